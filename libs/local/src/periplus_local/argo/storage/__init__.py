"""The state that outlives the server: workflows, their nodes and templates in one SQLite file."""
