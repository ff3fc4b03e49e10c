"""What lineage knows: runs and their steps, the facts that tell of them, and the graph they make."""
