"""Settings of every test session."""

import signal

# A shell starts background commands with SIGINT ignored, and their child processes inherit that; tests send SIGINT.
signal.signal(signal.SIGINT, signal.default_int_handler)
