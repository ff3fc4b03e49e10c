"""The bench of mutants finds a wrong key: with a planted mistake it reports false hits. Without one, it is a command of bench/README.md."""

import os
import subprocess
import sys

import pytest
from stack import ROOT

PLANTED = """
import sys
from periplus.sdk.compiler.closure import canonical
from key_mutants import measure
canonical._LEFT_OUT |= {"defaults"}
found = measure(12, 1, frozenset({"default value", "comment"}), workers=1)
assert found.false_hits and found.missed, found
assert not found.total("comment")["false hits"], found
"""


@pytest.mark.timeout(300)
def test_a_reader_that_ignores_default_arguments_is_found_by_the_bench() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PLANTED],
        cwd=ROOT / "bench", env=os.environ | {"PYTHONPATH": str(ROOT / "bench")}, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
