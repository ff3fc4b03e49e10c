"""The servers of `periplus up`, shared by the tests of this folder."""

from periplus_local.stack.testing import embedded

__all__ = ["embedded"]
