"""Fixtures of this folder's tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for the modules that only these tests share

from periplus_local.stack.testing import embedded

__all__ = ["embedded"]
