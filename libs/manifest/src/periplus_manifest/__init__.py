"""The Argo manifest as a language: reading, checking, tags, expressions, conditions and loops."""
