"""What the services' Dockerfiles copy and install, in a bare virtual environment instead of an image."""

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


def instructions(service: str) -> list[list[str]]:
    """The words of each instruction of a Dockerfile."""
    lines = (ROOT / "services" / service / "Dockerfile").read_text().splitlines()
    return [line.split() for line in lines if line.strip()]


def test_every_service_has_a_dockerfile() -> None:
    assert (
        sorted(path.name for path in (ROOT / "services").iterdir() if (path / "pyproject.toml").exists())
        == SERVICES
    )


@pytest.mark.timeout(300)
@pytest.mark.parametrize("service", SERVICES)
def test_what_a_dockerfile_copies_and_installs_starts_the_service(service: str, tmp_path: Path) -> None:
    context, python = tmp_path / "src", tmp_path / "venv/bin/python"
    context.mkdir()
    subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, tmp_path / "venv"], check=True)
    entrypoint: list[str] = []
    for name, *words in instructions(service):
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
    started = subprocess.run(
        [python, *entrypoint[1:]],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    # It starts, and ends because it has no settings: each that it requires is named.
    assert started.returncode == 2, started.stderr
    for setting in ("POSTGRES_DSN", "NATS_URL", "GRPC_ADDRESS", "TOKEN"):
        assert f"error: {service.upper()}_{setting}: is not set" in started.stderr


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
    for service in SERVICES:
        for name, *words in instructions(service):
            if name == "COPY" and not words[0].startswith("--"):
                assert words[0].split("/")[0] in allowed, (service, words)


def test_images_without_a_builder_says_what_to_install() -> None:
    made = subprocess.run(
        ["make", "-s", "images", "BUILDER="], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert made.returncode != 0
    assert "docker, podman or buildah" in made.stderr
