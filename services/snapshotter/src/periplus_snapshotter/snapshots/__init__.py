"""Claims and snapshots: what they contain, when they are valid, their warnings and their differences."""
