"""A tour: a real pipeline is run, run again, changed in three ways, explained and traced.

Works on a copy of `examples/digits` with its own stack, below $PERIPLUS_HOME (default `.periplus`): each call starts
with an empty cache, and other runs are not touched.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

EXAMPLES = Path(__file__).parent
HOME = Path(os.environ.get("PERIPLUS_HOME", ".periplus")).resolve() / "demo"
PROJECT = HOME / "digits"
PERIPLUS = Path(sys.executable).parent / "periplus"
ENVIRONMENT = os.environ | {"PERIPLUS_HOME": str(HOME)}


def main() -> None:
    """Run the tour. The stack is stopped at the end, also after an error."""
    began = time.monotonic()
    periplus("down", quiet=True)
    shutil.rmtree(HOME, ignore_errors=True)
    try:
        periplus("up", "--detach")
        PROJECT.mkdir()
        for file in (EXAMPLES / "digits").glob("*.py"):
            shutil.copy(file, PROJECT)
        first = run("The first run: every step runs.", ran="everything")
        run("The same again: no step runs.", ran="nothing")
        changed = run(
            "One hyperparameter changes: what depends on it runs.", "-p", "gamma=[0.01, 0.02]", ran="some"
        )
        edit("preparation.py", '"""', '# A comment that changes nothing.\n"""')
        run("A comment in a helper changes: no step runs.", ran="nothing")
        edit("scoring.py", ".mean()), 4)", ".mean()), 3)")
        edited = run("The logic of a helper changes: the steps that call it run.", ran="some")
        heading("Why did evaluate run?")
        periplus("why", edited, "evaluate")
        heading("What was the model made from?")
        periplus("lineage", "up", f"step:{edited}/register")
        heading("How do the first run and the one with another hyperparameter differ?")
        periplus("diff", first, changed)
    finally:
        heading("Stop everything.")
        periplus("down")
    heading(
        f"Done in {time.monotonic() - began:.0f} s. To try it yourself: `.venv/bin/periplus up`, then `periplus run FILE`."
    )


def run(title: str, *arguments: str, ran: str) -> str:
    """Run the pipeline, check which steps ran ("everything", "some" or "nothing"), and return the run's id."""
    heading(title)
    periplus("run", str(PROJECT / "pipeline.py"), *arguments)
    latest = json.loads(periplus("runs", "@latest", "-o", "json", quiet=True))
    steps = latest["steps"]
    cached = sum(step["phase"] == "CACHED" for step in steps)
    is_expected = {
        "everything": cached == 0,
        "nothing": cached == len(steps),
        "some": 0 < cached < len(steps),
    }[ran]
    if not is_expected:
        sys.exit(f"demo: {cached} of {len(steps)} steps were cached, but {ran} should have run")
    return str(latest["id"])


def edit(file: str, old: str, new: str) -> None:
    """Replace the first occurrence of a text in a file of the copy."""
    path = PROJECT / file
    text = path.read_text()
    if old not in text:
        sys.exit(f"demo: {path} has no {old!r}")
    path.write_text(text.replace(old, new, 1))
    print(f"  (edited {file})")


def periplus(*arguments: str, quiet: bool = False) -> str:
    """Run a command; with `quiet`, return its output instead of showing it."""
    if not quiet:
        print(f"\n$ periplus {' '.join(arguments)}".replace(str(HOME), "$PERIPLUS_HOME"), flush=True)
    done = subprocess.run(  # noqa: S603
        [PERIPLUS, *arguments], env=ENVIRONMENT, capture_output=quiet, text=True, check=False
    )
    if done.returncode and not quiet:
        sys.exit(f"demo: periplus {arguments[0]} ended with {done.returncode}; logs are in {HOME / 'log'}")
    return done.stdout or ""


def heading(text: str) -> None:
    """Print a heading."""
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n== {text}", flush=True)


if __name__ == "__main__":
    main()
