"""What it costs a step's process to report what it used beyond its key.

    python bench/discovery.py [rounds]

A project of 50 modules; the step calls their functions, copies objects, opens files, and imports in a loop, for about a second of
processor time. The floor is the same process without hooks. Processor time, not time on the clock, of alternating processes; the
start is what the hooks and the report add, measured inside of the process.
"""

import io
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from harness import Table, measure

from periplus.sdk.compiler.loading import load
from periplus.sdk.compiler.manifest import compile  # noqa: A004 - the public name
from periplus.sdk.compiler.travelling_runner import FOLDER

MODULES = 50
FUNCTIONS = 20
WORK = 120_000
PROGRAM = """
import json, os, sys, time
import periplus.sdk.runner
code, is_observed, work = sys.argv[1], sys.argv[2] == "yes", int(sys.argv[3])
started = time.process_time()
if is_observed:
    from periplus.sdk import discovery
    found = discovery.start("flow:one", os.environ, code)
added = time.process_time() - started
sys.path.insert(0, code)
import flow
started = time.process_time()
if is_observed:
    found.imported()
added += time.process_time() - started
before = time.process_time()
flow.one.function(work)
spent = time.process_time() - before
started = time.process_time()
if is_observed:
    discovery.write(found.report(), os.path.join(code, "report.json"))
added += time.process_time() - started
print(added, spent)
"""


def project(folder: Path) -> None:
    """Write the modules, and a step that uses all of them."""
    for number in range(MODULES):
        functions = [
            f"def f{each}(x):\n    value = x + {each}\n    return value * {number}\n"
            for each in range(FUNCTIONS)
        ]
        (folder / f"m{number}.py").write_text("\n".join(functions))
    imports = "\n".join(f"import m{number}" for number in range(MODULES))
    calls = ", ".join(f"m{number}.f0" for number in range(MODULES))
    (folder / "flow.py").write_text(f"""
import copy
import os
from periplus.sdk import pipeline, step
{imports}

@step
def one(work: int) -> int:
    functions = [{calls}]
    total = 0
    for turn in range(work):
        total += functions[turn % {MODULES}](turn)
        if turn % 20 == 0:
            copy.deepcopy([turn, [turn], {{"a": turn}}])
        if turn % 500 == 0:
            import json
            with open(os.devnull) as file:
                file.read()
    return sum(index * index for index in range(work * 60)) and total

@pipeline
def flow(work: int = 1) -> int:
    return one(work)
""")


def main(rounds: int) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        project(folder)
        with tarfile.open(fileobj=io.BytesIO(compile(load(folder / "flow.py")).archive)) as tar:
            tar.extractall(folder)
        code = folder / "code"
        found: dict[str, list[float]] = {"start": [], "yes": [], "no": []}

        def run(is_observed: str) -> None:
            program = f"import sys; sys.path.insert(0, {str(code / FOLDER)!r})\n{PROGRAM}"
            done = subprocess.run(
                [sys.executable, "-c", program, str(code), is_observed, str(WORK)],
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            added, spent = map(float, done.stdout.split())
            found[is_observed].append(spent)
            if is_observed == "yes":
                found["start"].append(added)

        measure(rounds, {"no": lambda: run("no"), "yes": lambda: run("yes")})
    table = Table(f"A step of a project of {MODULES} modules")
    floor = table.add("without hooks", found["no"])
    table.add("observed", found["yes"], {"without hooks": floor})
    table.add("added before and after the function", found["start"])
    table.show()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
