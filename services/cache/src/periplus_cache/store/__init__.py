"""The store on Postgres: all SQL of this service."""
