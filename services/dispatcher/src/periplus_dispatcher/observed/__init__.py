"""Workflows that others submitted: read without trust, and recorded as runs."""
