"""Steps, artifacts, cache policies and verdicts: the types that services share (`steps`, `queries`) and their codec."""
