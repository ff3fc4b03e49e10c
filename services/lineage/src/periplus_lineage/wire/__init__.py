"""Protobuf ↔ lineage's own types: events and rows in, responses out."""
