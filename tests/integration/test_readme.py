"""Every command in the READMEs is run, in order."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from stack import ROOT

COMMANDS = [
    line.removeprefix("$ ")
    for readme in (ROOT / "README.md", ROOT / "libs/local/README.md")
    for block in re.findall(r"```console\n(.*?)```", readme.read_text(), re.DOTALL)
    for line in block.splitlines()
    if line.startswith("$ ")
]
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a user without a running stack."""
    environment = os.environ | {
        "PERIPLUS_HOME": str(tmp_path_factory.mktemp("readme") / "home"),
        "PATH": f"{BIN}:{os.environ['PATH']}",
    }
    yield environment
    subprocess.run([BIN / "periplus", "down"], env=environment, check=False, capture_output=True)


def test_the_readme_names_both_commands_and_how_to_use_it() -> None:
    assert {"make demo", "make test"} < set(COMMANDS)
    assert sum(command.startswith("periplus ") for command in COMMANDS) >= 10


@pytest.mark.timeout(400)
@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_succeeds(command: str, home: dict[str, str]) -> None:
    if command == "make test":
        assert re.search(r"^test:.*\n\t.*pytest", (ROOT / "Makefile").read_text(), re.MULTILINE)
        return  # this is it
    # `make demo` without `make setup`, which must not change the venv under a running test.
    program = [sys.executable, "examples/demo.py"] if command == "make demo" else shlex.split(command)
    done = subprocess.run(
        program, cwd=ROOT, env=home, capture_output=True, text=True, timeout=380, check=False
    )
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert "Traceback" not in done.stderr
