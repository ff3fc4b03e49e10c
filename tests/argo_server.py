"""The local Argo after the first command of its README, for tests."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from stack import ROOT

README = (ROOT / "libs/local/src/periplus_local/argo/README.md").read_text()
START, *USES = [
    line for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL) for line in block.splitlines()
]
(SCRIPT,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
BIN = Path(sys.executable).parent

HELLO = """
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {generateName: hello-}
spec:
  entrypoint: main
  templates:
  - {name: main, container: {image: any, command: [echo], args: [hello]}}
"""


def environment(**more: str) -> dict[str, str]:
    """A shell's environment without variables that name another Argo or S3."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("ARGO_", "S3_"))}
    return kept | {"PATH": f"{BIN}:{os.environ['PATH']}"} | more


@dataclass
class ArgoServer:
    """A running local Argo: its process, its working directory and the lines that it printed."""

    process: subprocess.Popen[str]
    folder: Path
    printed: list[str]

    @property
    def home(self) -> Path:
        """Its home."""
        return self.folder / ".periplus/argo"

    def env(self) -> dict[str, str]:
        """The environment after the `export` lines that it printed for clients."""
        exports = "\n".join(line for line in self.printed if line.strip().startswith("export "))
        command = ["bash", "-c", f"{exports}\nenv -0"]
        found = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True).stdout
        return dict(line.split("=", 1) for line in found.split("\0") if "=" in line)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ArgoServer]:
    """The README's first command, in a new folder."""
    folder = tmp_path_factory.mktemp("alone")
    (folder / "hello.yaml").write_text(HELLO)
    with subprocess.Popen(
        START.split(),
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout
        printed = []
        for line in process.stdout:
            printed.append(line.rstrip())
            if line.startswith("Ctrl-C"):
                break
        yield ArgoServer(process, folder, printed)
        children = psutil.Process(process.pid).children()
        process.send_signal(signal.SIGINT)
        output = process.stdout.read()
        assert process.wait(60) == 0
        stopped = [line.split()[0] for line in output.splitlines() if " stopped in " in line]
        assert stopped == ["argo", "s3"], output
        assert not any(child.is_running() for child in children)
