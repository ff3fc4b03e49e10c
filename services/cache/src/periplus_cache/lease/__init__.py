"""Leases: which run makes a step, and who waits for it."""
