"""Protobuf messages ↔ domain, both directions."""
