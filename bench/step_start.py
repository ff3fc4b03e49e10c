"""The time of an SDK step's process in a bare image: the runner from the code archive, without bytecode, and no packages.

    python bench/step_start.py [rounds]

The step adds two numbers. The floors: `python -I -S -c pass`, and the import of the modules of the standard library that the runner uses.
"""

import io
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from harness import Table, measure

from periplus.sdk.compiler.loading import load
from periplus.sdk.compiler.manifest import compile  # noqa: A004 - the public name
from periplus.sdk.compiler.travelling_runner import FOLDER

PIPELINE = """
from periplus.sdk import pipeline, step

@step
def add(a: int, b: int) -> int:
    return a + b

@pipeline
def sums(a: int = 1, b: int = 2) -> int:
    return add(a, b)
"""
LIBRARY = "import ast, contextlib, dataclasses, inspect, json, pathlib, re, shlex, typing"
# The interpreter itself: the one of a virtual environment finds it again at each start.
PYTHON = [os.path.realpath(sys.executable), "-I", "-S"]


def main(rounds: int) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "sums.py").write_text(PIPELINE)
        with tarfile.open(fileobj=io.BytesIO(compile(load(folder / "sums.py")).archive)) as tar:
            tar.extractall(folder)
        code = folder / "code"
        environment = {
            "PERIPLUS_CODE": str(code),
            "PERIPLUS_PARAMETER_a": "1",
            "PERIPLUS_PARAMETER_b": "2",
            "PERIPLUS_OUTPUT_output": str(folder / "output"),
        }

        def run(*arguments: str) -> None:
            subprocess.run([*PYTHON, "-B", *arguments], env=environment, check=True)

        seconds = measure(
            rounds,
            {
                "pass": lambda: run("-c", "pass"),
                "library": lambda: run("-c", LIBRARY),
                "step": lambda: run(str(code / FOLDER), "sums:add"),
            },
        )
    table = Table("An SDK step's process")
    bare = table.add("python -c pass", seconds["pass"])
    library = table.add("with the standard library's modules", seconds["library"])
    table.add("a step", seconds["step"], {"bare Python": bare, "with the modules": library})
    table.show()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
