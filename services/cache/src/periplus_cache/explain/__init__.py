"""Explanations: why a step was not a hit."""
