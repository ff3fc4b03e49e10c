"""The first file of a step's process, in the code archive as `__main__.py`. Python 2 and 3.4 can read it: they say so."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - the image's Python, not ours
    sys.stderr.write(
        "periplus: steps need Python 3.11 or later, and this image has "
        + ".".join(map(str, sys.version_info[:2]))
        + '\n  fix: name another image, as @step(image="python:3.11")\n'
    )
    sys.exit(2)

from periplus.sdk.runner import run_step

sys.exit(run_step())
