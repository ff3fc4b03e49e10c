"""Every command in the README files and in docs/ is run, in the order of its file; those in running text exist."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from stack import ROOT
from typer.main import get_command

from periplus.sdk.cli.entry import application

FOLDERS = ("docs", "libs", "services", "tests", "bench", "proto", "examples")
DOCUMENTS = [
    ROOT / "README.md",
    *sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md")),
]
BY_OTHER_TESTS = {
    "libs/periplus/README.md",  # tests/packaging/test_distribution.py, in a virtual environment of its own
    "libs/local/src/periplus_local/argo/README.md",  # test_argo_alone.py, in two shells
}
COMMANDS = [
    (name, line.removeprefix("$ "))
    for path in DOCUMENTS
    if (name := str(path.relative_to(ROOT))) not in BY_OTHER_TESTS
    for block in re.findall(r"```console\n(.*?)```", path.read_text(), re.DOTALL)
    for line in block.splitlines()
    if line.startswith("$ ")
]
# `make demo` without `make setup`, which must not change the virtual environment under a running test. `make test` is
# this test, and `make proto` writes the code that other tests import at this time; `make check` runs it.
INSTEAD = {
    "make demo": f"{sys.executable} examples/demo.py",
    "make test": "make -n test",
    "make proto": "make -n proto",
}
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, str]]]:
    """By document: the environment of a user without a running stack."""
    given = {
        name: os.environ
        | {
            "PERIPLUS_HOME": str(tmp_path_factory.mktemp("document") / "home"),
            "PATH": f"{BIN}:{os.environ['PATH']}",
        }
        for name, _ in COMMANDS
    }
    yield given
    for environment in given.values():
        subprocess.run([BIN / "periplus", "down"], env=environment, check=False, capture_output=True)


def test_the_readme_names_both_commands_and_how_to_use_periplus() -> None:
    commands = [command for name, command in COMMANDS if name == "README.md"]
    assert {"make demo", "make test"} < set(commands)
    assert sum(command.startswith("periplus ") for command in commands) >= 10


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("name", "command"), COMMANDS)
def test_the_command_succeeds(name: str, command: str, environments: dict[str, dict[str, str]]) -> None:
    done = subprocess.run(
        ["bash", "-c", INSTEAD.get(command, command)],
        cwd=ROOT, env=environments[name], capture_output=True, text=True, timeout=380, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_in_running_text_exist(path: Path) -> None:
    text = path.read_text()
    for program in re.findall(r"`(?:python|\.venv/bin/python) ([\w./-]+\.py)", text):
        assert (ROOT / program).exists(), program
    for tested in re.findall(r"`(?:\.venv/bin/)?pytest ([\w./-]+)", text):
        assert (ROOT / tested).exists(), tested
    assert set(re.findall(r"`periplus ([a-z]+)", text)) <= set(get_command(application()).commands)
