"""Checks of what clients submit: Argo's own, and those for running without a cluster."""
