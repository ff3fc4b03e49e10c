"""Argo, real or local: the only package that imports hera."""
