"""Settings of every test session."""

import atexit
import os
import shutil
import signal
import tempfile

# A shell starts background commands with SIGINT ignored, and their child processes inherit that; tests send SIGINT.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The key that seals the homes of tests: in one folder per session, whose workers inherit it, and not in the user's own.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="periplus-state-")
    atexit.register(shutil.rmtree, os.environ["XDG_STATE_HOME"], ignore_errors=True)
