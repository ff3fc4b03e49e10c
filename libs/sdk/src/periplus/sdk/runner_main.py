"""The first file of a step's process, in the code archive as `__main__.py`. Python 2.7 can read it: it says so."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - the image's Python, not ours
    what = "periplus: steps need Python 3.11 or later, and this image has "
    what += ".".join(map(str, sys.version_info[:2]))
    fix = 'fix: name another image, as @step(image="python:3.11")'
    sys.stderr.write(what + "\n  " + fix + "\n")
    try:
        with open("/dev/termination-log", "r+") as log:  # noqa: PTH123 - which Argo shows, as in runner.py
            log.write(what + "; " + fix)
    except (IOError, OSError):  # noqa: UP024 - two in Python 2.7
        pass
    sys.exit(2)

from periplus.sdk.runner import run_step

sys.exit(run_step())
