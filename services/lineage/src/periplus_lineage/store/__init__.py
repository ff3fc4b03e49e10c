"""The tables of lineage. All of this service's SQL is in this folder."""
