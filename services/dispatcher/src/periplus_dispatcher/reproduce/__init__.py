"""Runs a run again as it was: what that needs, whether it is as it was, and the manifest that does it."""
