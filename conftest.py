"""Settings of every test session."""

import atexit
import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest

# A shell starts background commands with SIGINT ignored, and their child processes inherit that; tests send SIGINT.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The key that seals the homes of tests: in one folder per session, whose workers inherit it, and not in the user's own.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="periplus-state-")
    atexit.register(shutil.rmtree, os.environ["XDG_STATE_HOME"], ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of the whole come first: they are few and long, and at the end one worker would wait for the other's last file."""
    whole = Path(__file__).parent / "tests"
    items.sort(key=lambda item: not item.path.is_relative_to(whole))
