"""What every test may count on, wherever it is run."""

import signal

# A shell has those it starts in the background ignore Ctrl-C, and they hand that down; what is tested here minds it.
signal.signal(signal.SIGINT, signal.default_int_handler)
