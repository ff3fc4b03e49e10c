"""Snapshotter: code, packages, interpreter and platform of runs, by digest."""
