"""What the files of a project decide is listed in the SDK's README, and a command opens no other."""

import fnmatch
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from stack import ROOT

from periplus.cache.v1 import cache_pb2
from periplus.dispatcher.v1 import dispatcher_pb2
from periplus.lineage.v1 import lineage_pb2
from periplus.snapshotter.v1 import snapshotter_pb2

_found = importlib.util.spec_from_file_location("cli_conftest", ROOT / "libs/sdk/tests/cli/conftest.py")
assert _found
assert _found.loader
_cli = importlib.util.module_from_spec(_found)
_found.loader.exec_module(_cli)
_served, script = _cli._served, _cli.script

SECTION = (
    (ROOT / "libs/sdk/README.md")
    .read_text()
    .partition("## What the files of a project decide")[2]
    .partition("\n## ")[0]
)
LISTED = {
    name
    for row in re.findall(r"^\| (`.*?) \|", SECTION, re.MULTILINE)
    for name in re.findall(r"`(.*?)`", row)
}
# Names of modules that a command imports.
MODULES = ("site.py", "typing.py", "json.py", "grpc.py", "typer.py", "periplus.py")
# Files that other tools read, or that Python reads where a folder is on its path.
DECOYS = (
    "pyproject.toml", "setup.cfg", "setup.py", "periplus.toml", "periplus.yaml", ".periplusrc", ".env", ".envrc", "conftest.py",
    "sitecustomize.py", "usercustomize.py", "git",
    ".python-version", "tox.ini", "pip.conf", "Makefile", ".netrc", ".gitconfig", "logging.conf", "pyvenv.cfg", "decoy.pth",
    ".condarc", "environment.yml", "pixi.lock", "conda-lock.yml", "helper.txt", "other.py", ".config/git/config",
)  # fmt: skip
PIPELINE = """
from helper import double
from periplus.sdk import pipeline, step

@step
def one(text: str) -> str:
    return double(text)

@pipeline
def main(text: str = "a") -> str:
    return one(text)
"""
MANIFEST = "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\n"
COMMANDS = (
    ["plan", "workflow.yaml"],
    ["plan", "workflow.yaml"],
    ["run", "workflow.yaml", "--no-watch"],
    ["runs"],
    ["cache", "ls"],
    ["doctor"],
    ["down"],
    ["--help"],
    ["up", "--help"],
    ["plan", "pipeline.py"],
    ["run", "pipeline.py", "--no-watch"],
    ["compile", "pipeline.py", "--project", "p"],
)
RECORD = """
import json, os, sys
opened, started = set(), set()
def record(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes)):
        opened.add(os.path.abspath(os.fsdecode(arguments[0])))
    elif event in ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.system"):
        started.add(os.path.basename(os.fsdecode(arguments[0])))
sys.addaudithook(record)
from periplus.sdk.cli import main
try:
    main(sys.argv[2:])
finally:
    sys.stdout.flush()
    with open(sys.argv[1], "w") as file:
        json.dump({"opened": sorted(opened), "started": sorted(started)}, file)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The project of a stranger, with each file that is listed and many that are not."""
    for name in (*DECOYS, *MODULES):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("raise SystemExit('a decoy was run')\n")
    (tmp_path / "pyproject.toml").write_text('[tool.periplus]\nhome = "elsewhere"\nproject = "other"\n')
    (tmp_path / "pipeline.py").write_text(PIPELINE)
    (tmp_path / "helper.py").write_text("def double(text: str) -> str:\n    return 2 * text\n")
    (tmp_path / "workflow.yaml").write_text(MANIFEST)
    for name in (
        "uv.lock",
        "pylock.toml",
        "poetry.lock",
        "pdm.lock",
        "requirements.txt",
        "requirements.lock",
        "Pipfile.lock",
    ):
        (tmp_path / name).write_text("a==1\n")
    for name in ("a-1.dist-info/direct_url.json", "b.egg-info/PKG-INFO"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("Name: b\nVersion: 1\n")
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "a"]):
        subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b.example", *command], cwd=tmp_path, check=True
        )
    return tmp_path


def names(project: Path, path: str) -> str:
    """A file's name as the list has it."""
    name = str(Path(path).relative_to(project))
    # The home of this test is not named .periplus; its files are opened relative to their folder.
    return f".periplus/{name.removeprefix('home/')}" if name.startswith("home/") else name


def test_a_command_opens_the_listed_files_of_a_project_and_no_other(script: Any, project: Path) -> None:
    for module in (dispatcher_pb2, cache_pb2, lineage_pb2, snapshotter_pb2):
        for service in module.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                script.answers[method.name] = getattr(module, method.output_type.name)()
    lockfiles = iter((("uv.lock",), ("pylock.toml",), ("poetry.lock",), ("pdm.lock",)))
    opened, started = set(), set()
    for arguments in COMMANDS:
        record = project.parent / "record.json"
        if "pipeline.py" in arguments:  # whose folder is on Python's path, as with `python pipeline.py`
            for name in MODULES:
                (project / name).unlink(missing_ok=True)
        said = subprocess.run(
            [sys.executable, "-P", "-c", RECORD, record, *arguments],
            cwd=project, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert "decoy" not in said.stdout + said.stderr
        found = json.loads(record.read_text())
        opened |= {names(project, path) for path in found["opened"] if Path(path).is_relative_to(project)}
        started |= set(found["started"])
        if arguments[0] in ("plan", "run"):  # the next one is then the nearest
            for name in next(lockfiles, ()):
                (project / name).unlink()
    # These three are opened in a folder that is open already.
    home = {"client.json": ".periplus/client.json", "run": ".periplus/run/lock", "lock": ".periplus/run/lock"}
    files = {home.get(name, name) for name in opened if not (project / name).is_dir() or name in home}
    unlisted = {name for name in files if not any(fnmatch.fnmatch(name, pattern) for pattern in LISTED)}
    assert unlisted == set()
    unused = {
        pattern
        for pattern in LISTED - {".periplus/*", ".git", "pyvenv.cfg"}
        if not any(fnmatch.fnmatch(name, pattern) for name in files)
    }
    assert unused == set()
    assert started <= {"git", "nats-server", "postgres", "weed"}
