"""Look-up: which steps of a request are hits, and why the others are not."""
