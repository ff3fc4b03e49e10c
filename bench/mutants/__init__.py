"""Parts of bench/key_mutants.py: an example project, mutants of it, and the oracle that runs them without the cache."""
