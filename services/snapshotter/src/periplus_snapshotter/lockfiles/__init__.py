"""Lockfiles: one parser per format, and the confined process in which they run."""
