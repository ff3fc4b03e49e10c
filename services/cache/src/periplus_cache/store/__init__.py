"""The record in Postgres, a file for each table: all SQL of this service is here."""
