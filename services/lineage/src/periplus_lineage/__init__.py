"""Lineage: runs, steps and the graph of artifacts, computed from the events of the other services."""
