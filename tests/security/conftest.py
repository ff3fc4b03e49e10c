"""The servers of `periplus up`, shared by the tests of this folder, and the modules beside the tests."""

import sys
from pathlib import Path

from periplus_local.stack.testing import embedded

sys.path.insert(0, str(Path(__file__).parent))

__all__ = ["embedded"]
