"""Runs and their steps: get, list, watch and compare them."""
