"""Parsers of lockfiles, one for each format, and the restricted process in which they run."""
