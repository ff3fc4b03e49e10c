"""Forks: calls of this process, and steps of a process of their own that has imported the runner and little else, as forks of a large process
take long.
"""

import os
import pickle
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STEP_SECONDS = 20


@dataclass(frozen=True)
class Failed:
    """What a fork raised."""

    text: str


@dataclass(frozen=True)
class StepProcess:
    """A step to run: `module:function`, its environment, the folders of the code, of installed packages and of its own."""

    entry: str
    environment: dict[str, str]
    code: str
    site: str
    work: str


def in_fork(call: Callable[[], Any]) -> Any:
    """The result of a call in a fork of this process; `Failed` if it raises or takes too long."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            signal.alarm(STEP_SECONDS)
            silent = os.open(os.devnull, os.O_RDWR)
            for stream in range(3):
                os.dup2(silent, stream)
            try:
                result = call()
            except BaseException:  # noqa: BLE001 - whatever a mutant does
                result = Failed(traceback.format_exc()[-2000:])
            with os.fdopen(writing, "wb") as pipe:
                pickle.dump(result, pipe)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    return pickle.loads(data) if data else Failed("it was ended by a signal")


class Steps:
    """Runs steps as forks of a small process. Closed by the end of this process."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-B", "-m", "mutants.processes"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[1],
        )

    def run(self, step: StepProcess) -> list[str] | Failed:
        """The files of the project that it opened."""
        assert self._process.stdin
        assert self._process.stdout
        pickle.dump(step, self._process.stdin)
        self._process.stdin.flush()
        found: list[str] | Failed = pickle.load(self._process.stdout)
        return found

    def close(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def _run(step: StepProcess) -> list[str]:
    from periplus.sdk import runner, step_packages
    from periplus.sdk.compiler.travelling_runner import FOLDER

    opened: set[str] = set()
    beginning = step.code + "/"

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(args[0], str) and args[0].startswith(beginning):
            opened.add(args[0].removeprefix(beginning))

    os.environ.clear()
    os.environ.update(step.environment)
    os.chdir(step.work)
    sys.path.insert(0, step.site)
    step_packages._RUNNER = Path(
        step.code, FOLDER
    )  # its files lie beside the code, and this process has the SDK's own
    sys.addaudithook(hook)
    if status := runner.main([step.entry], os.environ):
        raise RuntimeError(f"exit code {status}")
    return sorted(opened)


def _serve() -> None:
    # What the steps import beside the project, and what the runner imports when it runs one.
    import asyncio  # noqa: F401
    import dataclasses  # noqa: F401
    import gc
    import importlib.metadata  # noqa: F401
    import inspect  # noqa: F401
    import pkgutil  # noqa: F401
    import string  # noqa: F401

    import mutants.processes as this  # noqa: PLW0406 - what it pickles is to be of this name
    import periplus.sdk
    import periplus.sdk.discovery.observation
    import periplus.sdk.runner
    import periplus.sdk.step_packages  # noqa: F401

    gc.freeze()
    while True:
        try:
            step = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        pickle.dump(this.in_fork(lambda: this._run(step)), sys.stdout.buffer)  # noqa: B023 - it is called at once
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    _serve()
