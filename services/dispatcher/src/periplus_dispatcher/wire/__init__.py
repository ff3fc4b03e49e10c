"""Protobuf messages ↔ the types of `domain`: requests, plans and events. Steps and queries are in `periplus_model.codec`."""
