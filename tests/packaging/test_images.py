"""What the Dockerfiles copy and install, in a bare virtual environment instead of an image."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from stack import ROOT

UV = Path(sys.executable).parent / "uv"
SERVICES = sorted(path.parent.name for path in ROOT.glob("services/*/Dockerfile"))
RUNNER = "libs/sdk"
DOCKERFILES = [RUNNER, *(f"services/{service}" for service in SERVICES)]


def instructions(folder: str) -> list[list[str]]:
    """The words of each instruction of a Dockerfile."""
    lines = (ROOT / folder / "Dockerfile").read_text().splitlines()
    return [line.split() for line in lines if line.strip()]


def test_every_service_has_a_dockerfile() -> None:
    assert (
        sorted(path.name for path in (ROOT / "services").iterdir() if (path / "pyproject.toml").exists())
        == SERVICES
    )


def start(folder: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """Install what a Dockerfile does into a virtual environment, and run its entrypoint there, in another folder."""
    context, python = tmp_path / "src", tmp_path / "venv/bin/python"
    context.mkdir()
    subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, tmp_path / "venv"], check=True)
    entrypoint: list[str] = []
    for name, *words in instructions(folder):
        if name == "COPY" and not words[0].startswith("--"):
            copy(words, context)
        elif name == "RUN":
            assert words[:2] == ["pip", "install"]
            options = [
                word for word in words[2:] if word != "--no-cache-dir" and not word.startswith("--prefix")
            ]
            subprocess.run(
                [UV, "pip", "install", "--quiet", "--python", python, *options], cwd=context, check=True
            )
        elif name == "ENTRYPOINT":
            entrypoint = re.findall(r'"([^"]+)"', " ".join(words))
    shutil.rmtree(context)
    assert entrypoint[0] == "python"
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [python, *entrypoint[1:]],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.timeout(300)
@pytest.mark.parametrize("service", SERVICES)
def test_what_a_dockerfile_copies_and_installs_starts_the_service(service: str, tmp_path: Path) -> None:
    started = start(f"services/{service}", tmp_path)
    # It starts, and ends because it has no settings: each that it requires is named.
    assert started.returncode == 2, started.stderr
    for setting in ("POSTGRES_DSN", "NATS_URL", "GRPC_ADDRESS", "TOKEN"):
        assert f"error: {service.upper()}_{setting}: is not set" in started.stderr


@pytest.mark.timeout(300)
def test_the_runner_image_has_the_sdk_and_nothing_of_the_services(tmp_path: Path) -> None:
    started = start(RUNNER, tmp_path)
    assert (started.returncode, started.stderr) == (
        2,
        "periplus: usage: python3 periplus-runner module:function\n",
    )
    python = tmp_path / "venv/bin/python"
    listed = subprocess.run(
        [UV, "pip", "freeze", "--python", python], check=True, capture_output=True, text=True
    )
    packages = {re.split(r"[= @]", line)[0] for line in listed.stdout.splitlines()}
    assert {name for name in packages if name.startswith("periplus")} == {
        "periplus-sdk",
        "periplus-proto",
        "periplus-manifest",
    }
    assert not {"numpy", "scikit-learn", "asyncpg", "nats-py", "minio", "pytest"} & packages


@pytest.mark.parametrize("folder", DOCKERFILES)
def test_an_image_runs_as_nobody_on_the_base_that_it_was_built_on(folder: str) -> None:
    words = instructions(folder)
    assert ["USER", "65532:65532"] in words
    bases = {rest[0] for name, *rest in words if name == "FROM"}
    assert bases == {"python:3.11-slim"}


def test_make_builds_every_image() -> None:
    made = subprocess.run(
        ["make", "-n", "images", "BUILDER=builder", "TAG=t"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert f"for s in {' '.join(SERVICES)}" in made
    assert "builder build -t periplus-runner:t -f libs/sdk/Dockerfile ." in made


def copy(words: list[str], context: Path) -> None:
    """COPY of one path of the build context, but for what .dockerignore leaves out."""
    source, target = ROOT / words[0], context / words[1]
    assert source.exists(), f"COPY {words[0]}: no such path"
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("tests", "__pycache__"))
    else:
        shutil.copyfile(source, target)


def test_the_build_context_has_every_path_that_is_copied() -> None:
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for folder in DOCKERFILES:
        for name, *words in instructions(folder):
            if name == "COPY" and not words[0].startswith("--"):
                assert words[0].split("/")[0] in allowed, (folder, words)


def test_images_without_a_builder_says_what_to_install() -> None:
    made = subprocess.run(
        ["make", "-s", "images", "BUILDER="], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert made.returncode != 0
    assert "docker, podman or buildah" in made.stderr
