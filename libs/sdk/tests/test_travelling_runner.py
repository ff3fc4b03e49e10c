"""The runner in the code archive: a step's image needs Python 3.11 and nothing of Periplus."""

import ast
import io
import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from periplus.sdk.compiler.loading import load
from periplus.sdk.compiler.manifest import Compiled, compile  # noqa: A004 - the public name
from periplus.sdk.compiler.travelling_runner import FOLDER, runner_files
from periplus.sdk.discovery.names import DIGESTS_FILE, INDEX_FILE
from periplus.sdk.pipelines import ports

BARE = [sys.executable, "-I", "-S"]
"""Python with its standard library only, as in an image without packages."""

OLD = (
    "periplus: steps need Python 3.11 or later, and this image has {}\n"
    '  fix: name another image, as @step(image="python:3.11")\n'
)

FLOW = """
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from periplus.sdk import Artifact, PipelineError, compile, each, pipeline, step, when
if TYPE_CHECKING:
    import numpy as np

@dataclass
class Point:
    x: float
    name: str | None = None

class Both(NamedTuple):
    data: bytes
    table: Artifact[dict[str, list[int]]]

@step(ttl="7d", retries=1)
def double(n: int) -> int:
    return 2 * n

@step
def point(x: float) -> Point:
    return Point(x)

@step
def both(n: int) -> Both:
    return Both(bytes([n]), {"b": [n], "a": []})

@step
def modules() -> list[str]:
    import sys
    return sorted({name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names))

@step
def services() -> str:
    from periplus.sdk.client import Client
    return Client.__module__

@step
def reads(pixels: "np.ndarray") -> int:
    return len(pixels)

@step
def missing() -> int:
    import lightgbm.sklearn
    return 1

@pipeline
def flow(n: int = 1) -> int:
    double.map(each([1, 2]))
    both(n)
    modules()
    services()
    missing()
    with when(point(0.5).x > 1):
        double(n)
    return double(n)
"""


@pytest.fixture
def unpacked(write, tmp_path: Path) -> Path:
    """The code archive of FLOW as Argo unpacks it."""
    made = compile(
        load(write({"project/flow.py": FLOW.replace("point(0.5).x", "double(n)")}) / "project/flow.py")
    )
    return unpack(made, tmp_path / "image")


def unpack(made: Compiled, to: Path) -> Path:
    with tarfile.open(fileobj=io.BytesIO(made.archive)) as tar:
        tar.extractall(to)
    return to / "code"


def run(
    code: Path, step: str, python: list[str] = BARE, **variables: str
) -> subprocess.CompletedProcess[str]:
    out = code.parent / "out.json"
    environment = {"PERIPLUS_CODE": str(code), "PERIPLUS_OUTPUT_output": str(out)}
    environment |= {f"PERIPLUS_{name}": value for name, value in variables.items()}
    return subprocess.run(
        [*python, str(code / FOLDER), f"flow:{step}"],
        env=environment, cwd=code.parent, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def output(code: Path) -> object:
    return json.loads((code.parent / "out.json").read_text())


def test_a_step_runs_where_nothing_is_installed(unpacked):
    done = run(unpacked, "double", PARAMETER_n="21")
    assert done.returncode == 0, done.stderr
    assert output(unpacked) == 42


def test_a_process_of_a_step_imports_nothing_but_the_standard_library_and_the_runner(unpacked):
    done = run(unpacked, "modules")
    assert done.returncode == 0, done.stderr
    assert output(unpacked) == ["__main__", "flow", "periplus"]
    slow = {"asyncio", "unittest", "email", "http", "ssl", "subprocess", "multiprocessing", "logging"}
    listed = subprocess.run(
        [*BARE, "-X", "importtime", str(unpacked / FOLDER), "flow:double"],
        env={"PERIPLUS_CODE": str(unpacked), "PERIPLUS_PARAMETER_n": "1", "PERIPLUS_OUTPUT_output": str(unpacked / "o")},
        capture_output=True, text=True, check=True,
    ).stderr  # fmt: skip
    assert not {line.rpartition("|")[2].strip() for line in listed.splitlines()} & slow


def test_the_runner_of_the_archive_is_used_where_another_is_installed(unpacked):
    main = unpacked / FOLDER / "periplus/sdk/runner.py"
    main.write_text(main.read_text().replace("def main(", "print('the one of the archive')\n\n\ndef main("))
    done = run(unpacked, "double", [sys.executable], PARAMETER_n="1")
    assert (done.returncode, done.stdout) == (0, "the one of the archive\n"), done.stderr


def test_a_step_imports_the_rest_of_the_sdk_where_it_is_installed(unpacked):
    done = run(unpacked, "services", [sys.executable])
    assert done.returncode == 0, done.stderr
    assert output(unpacked) == "periplus.sdk.client.calls"


def test_a_package_that_the_image_lacks_is_named_with_what_to_do(unpacked, tmp_path):
    (tmp_path / "pixels.npy").write_bytes(b"")
    for step, package, variables in (
        ("reads", "numpy", {"INPUT_pixels": str(tmp_path / "pixels.npy")}),
        ("missing", "lightgbm", {}),
    ):
        done = run(unpacked, step, **variables)
        assert done.returncode == (2 if step == "reads" else 1)
        assert f"the module {package} is not in this step's environment\n  fix: " in done.stderr
        assert '@step(image="…")' in done.stderr


def test_a_python_that_is_too_old_is_named_with_what_to_do(unpacked):
    main = unpacked / FOLDER / "__main__.py"
    ast.parse(main.read_text(), feature_version=(3, 4))
    old = f"import runpy, sys; sys.version_info = (3, 9, 18); runpy.run_path({str(main)!r}, run_name='__main__')"
    done = subprocess.run([*BARE, "-c", old], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == OLD.format("3.9")


@pytest.mark.parametrize("version", ["2.7", "3.6", "3.9", "3.10"])
def test_an_old_python_reads_the_first_file(unpacked, version):
    python = shutil.which(f"python{version}")
    if not python or subprocess.run([python, "-V"], capture_output=True, check=False).returncode:
        pytest.skip(f"there is no Python {version} here")
    done = subprocess.run(
        [python, unpacked / FOLDER, "flow:double"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (2, OLD.format(version))


def test_a_manifest_of_another_protocol_is_refused(unpacked):
    done = run(unpacked, "double", PROTOCOL="0", PARAMETER_n="1")
    assert done.returncode == 2
    assert done.stderr == (
        f"periplus: this runner has protocol {ports.PROTOCOL}, and the manifest protocol 0\n  fix: compile it again\n"
    )


def test_the_archive_has_sources_only_and_no_trace_of_the_machine(unpacked, write):
    made = compile(
        load(write({"project/flow.py": FLOW.replace("point(0.5).x", "double(n)")}) / "project/flow.py")
    )
    with tarfile.open(fileobj=io.BytesIO(made.archive)) as tar:
        members = tar.getmembers()
    runner = [one for one in members if one.name.startswith(f"code/{FOLDER}/")]
    assert {Path(one.name).suffix for one in runner if one.isfile()} == {".py", ".json"}
    assert {(one.mtime, one.uid, one.gid, one.uname, one.mode) for one in runner} == {
        (0, 0, 0, "", 0o755), (0, 0, 0, "", 0o644)
    }  # fmt: skip
    assert [one.name for one in runner if one.isfile()] == sorted(
        f"code/{name}" for name in (*runner_files(), INDEX_FILE, DIGESTS_FILE)
    )
    assert len(made.archive) < 100_000


def test_a_change_of_the_runner_changes_no_key(write, tmp_path, monkeypatch):
    """Only the code archive, whose artifact the key leaves out; PROTOCOL is what a change of behaviour raises."""
    flow = load(write({"project/flow.py": FLOW.replace("point(0.5).x", "double(n)")}) / "project/flow.py")
    before = compile(flow)
    changed = tmp_path / "errors.py"
    changed.write_text("# another release\n")
    files = runner_files() | {f"{FOLDER}/periplus/sdk/errors.py": changed}
    monkeypatch.setattr("periplus.sdk.compiler.manifest.runner_files", lambda: files)
    after = compile(flow)
    assert before.archive_key != after.archive_key
    texts = [json.dumps(one.manifest).replace(one.archive_key, "") for one in (before, after)]
    assert texts[0] == texts[1]
    ignored = [
        template["metadata"]["annotations"]["periplus.dev/ignore-inputs"]
        for template in after.manifest["spec"]["templates"]
        if "container" in template
    ]
    assert set(ignored) == {"periplus-code"}
