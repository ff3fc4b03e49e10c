"""What lineage does: it keeps facts, and answers from them."""
