"""Proto ↔ domain, pure, both directions. The only meeting of the two."""
