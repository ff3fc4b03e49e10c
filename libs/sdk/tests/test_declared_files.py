"""Files that steps open: declared by a step, or by the project for all steps; and what is said of one that is not."""

import re
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

from periplus.sdk.compiler.loading import load
from periplus.sdk.compiler.manifest import Compiled, compile  # noqa: A004
from periplus.sdk.compiler.travelling_runner import FOLDER
from periplus.sdk.errors import PipelineError

PIPELINE = """
import re
import subprocess
from pathlib import Path

from periplus.sdk import pipeline, step

HERE = Path(__file__).parent


@step
def opened() -> str:
    return (HERE / "config.yaml").read_text()


@step
def wrapped() -> str:
    try:
        return (HERE / "config.yaml").read_text()
    except OSError as error:
        raise ValueError("no configuration") from error


@step
def started() -> str:
    return subprocess.run(["sh", str(HERE / "tool.sh")], check=True, capture_output=True, text=True).stdout


@pipeline
def main() -> None:
    opened()
    wrapped()
    started()
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "p.py").write_text(PIPELINE)
    (tmp_path / "config.yaml").write_text("lr: 0.1\n")
    (tmp_path / "tool.sh").write_text("echo tool\n")
    return tmp_path


def compiled(project: Path) -> Compiled:
    return compile(load(project / "p.py"))


def keys(project: Path) -> dict[str, dict[str, str]]:
    return {each.entry.partition(":")[2]: each.digests for each in compiled(project).steps}


def run(project: Path, step: str, to: Path) -> subprocess.CompletedProcess[str]:
    """Run a step from the archive, somewhere else."""
    with tarfile.open(fileobj=BytesIO(compiled(project).archive)) as tar:
        tar.extractall(to)
    code = to / "code"
    environment = {
        "PERIPLUS_CODE": str(code),
        "PERIPLUS_OUTPUT_output": str(to / "out"),
        "PATH": "/usr/bin:/bin",
    }
    return subprocess.run(
        [sys.executable, str(code / FOLDER), f"p:{step}"],
        env=environment, capture_output=True, text=True, timeout=60, check=False, cwd=to,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("step", "file"), [("opened", "config.yaml"), ("wrapped", "config.yaml"), ("started", "tool.sh")]
)
def test_a_step_that_misses_a_file_says_both_settings_that_add_it(
    project: Path, tmp_path_factory: pytest.TempPathFactory, step: str, file: str
) -> None:
    done = run(project, step, tmp_path_factory.mktemp("elsewhere"))
    assert done.returncode == 1
    assert f"{file} did not travel with the step's code" in done.stderr
    assert f'@step(files=["{file}"])' in done.stderr
    assert f'under [tool.periplus] as files = ["{file}"]' in done.stderr


def test_files_of_the_project_travel_with_all_steps_and_are_in_all_keys(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    before = keys(project)
    (project / "pyproject.toml").write_text('[tool.periplus]\nfiles = ["config.yaml", "tool.sh"]\n')
    for step in ("opened", "wrapped", "started"):
        done = run(project, step, tmp_path_factory.mktemp("elsewhere"))
        assert done.returncode == 0, done.stderr
    declared = keys(project)
    (project / "config.yaml").write_text("lr: 0.2\n")
    edited = keys(project)
    for step in before:
        assert len({str(sorted(found[step].items())) for found in (before, declared, edited)}) == 3


def test_pyproject_above_the_code_counts_within_one_repository(tmp_path: Path) -> None:
    code = tmp_path / "repository/src"
    code.mkdir(parents=True)
    (code / "p.py").write_text(PIPELINE)
    (code / "config.yaml").write_text("lr: 0.1\n")
    (code.parent / "pyproject.toml").write_text('[tool.periplus]\nfiles = ["src/config.yaml"]\n')
    assert "config.yaml" not in keys(code)["opened"]
    (code.parent / ".git").mkdir()
    assert "config.yaml" in keys(code)["opened"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[tool.periplus]\nfiles = "config.yaml"\n', r"is not a list of names\n  fix: write files"),
        ('[tool.periplus]\nfiles = ["nothing.yaml"]\n', r"there is no nothing\.yaml in .*pyproject\.toml"),
        ('[tool.periplus]\nfiles = ["/etc/hostname"]\n', r"/etc/hostname is not in "),
        ('[tool.periplus]\nfiles = ["../"]\n', r"is not in "),
        ("[tool", r"pyproject\.toml cannot be read"),
    ],
)
def test_a_declaration_that_can_not_be_followed_is_refused(project: Path, text: str, message: str) -> None:
    (project / "pyproject.toml").write_text(text)
    with pytest.raises(PipelineError) as refused:
        compiled(project)

    assert re.search(message, str(refused.value), re.DOTALL), str(refused.value)
