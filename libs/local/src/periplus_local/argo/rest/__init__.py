"""The REST API: Argo's paths, its JSON, its errors."""
