"""Recording: what a finished step adds to the cache."""
