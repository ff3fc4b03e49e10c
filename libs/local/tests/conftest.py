"""Fixtures of this folder's tests."""

from periplus_local.stack.testing import embedded

__all__ = ["embedded"]
