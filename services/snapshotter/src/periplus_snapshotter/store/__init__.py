"""The snapshotter's tables in Postgres. All SQL of the service is in this package and in `migrations/`."""
