"""`requirements`: packages with hashes that a step's process installs, where its image does not have them."""

import hashlib
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from io import BytesIO
from pathlib import Path

import pytest

from periplus.sdk import PipelineError
from periplus.sdk.compiler.loading import load
from periplus.sdk.compiler.manifest import Compiled, compile  # noqa: A004 - the public name
from periplus.sdk.compiler.requirements import read_requirements
from periplus.sdk.compiler.travelling_runner import FOLDER

HASH = f"sha256:{'a' * 64}"
FLOW = """
from periplus.sdk import pipeline, step

@step(requirements="science.lock")
def weigh() -> str:
    import weights
    return weights.VERSION

@step
def plain() -> str:
    return "plain"

@pipeline
def flow() -> str:
    plain()
    return weigh()
"""


def wheel(folder: Path, version: str = "1.0") -> str:
    """Write the wheel of a package `weights`, and return its hash."""
    folder.mkdir(exist_ok=True)
    file = folder / f"weights-{version}-py3-none-any.whl"
    info = f"weights-{version}.dist-info"
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr("weights.py", f"VERSION = {version!r}\n")
        packed.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: weights\nVersion: {version}\n")
        packed.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        packed.writestr(f"{info}/RECORD", "")
    return "sha256:" + hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.fixture
def made(write):
    """Compile FLOW with the text of its requirements."""

    def compiled(requirements: str, flow: str = FLOW) -> Compiled:
        folder = write({"project/flow.py": flow, "project/science.lock": requirements})
        return compile(load(folder / "project/flow.py"))

    return compiled


def variables(result: Compiled, step: str = "weigh") -> dict[str, str]:
    (template,) = [one for one in result.manifest["spec"]["templates"] if one["name"] == step]
    return {one["name"]: one["value"] for one in template["container"]["env"]}


def run(result: Compiled, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the step as its pod does, with an index that is a folder."""
    with tarfile.open(fileobj=BytesIO(result.archive)) as tar:
        tar.extractall(folder)
    code = folder / "code"
    given = {"PERIPLUS_CODE": str(code), "PERIPLUS_OUTPUT_output": str(folder / "out.json")}
    given |= {"PERIPLUS_REQUIREMENTS": variables(result)["PERIPLUS_REQUIREMENTS"], "PATH": os.environ["PATH"]}
    given |= {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull, "TMPDIR": str(folder)}
    return subprocess.run(
        [sys.executable, str(code / FOLDER), "flow:weigh"],
        env=given | environment, cwd=folder, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip


def test_a_step_installs_what_its_image_lacks_from_the_index_of_its_environment(made, tmp_path):
    result = made(f"weights==1.0 --hash={wheel(tmp_path / 'index')}\n")
    (tmp_path / "pod").mkdir()
    done = run(result, tmp_path / "pod", PIP_FIND_LINKS=str(tmp_path / "index"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert json.loads((tmp_path / "pod/out.json").read_text()) == "1.0"


def test_a_package_with_another_hash_is_not_installed(made, tmp_path):
    wheel(tmp_path / "index")
    (tmp_path / "pod").mkdir()
    done = run(
        made(f"weights==1.0 --hash={HASH}\n"), tmp_path / "pod", PIP_FIND_LINKS=str(tmp_path / "index")
    )
    assert done.returncode == 2
    assert "periplus: argument requirements: weights cannot be installed: " in done.stderr
    assert done.stderr.startswith("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES")  # what pip printed
    assert "PIP_INDEX_URL" in done.stderr


def test_nothing_is_installed_where_the_image_has_it(made, tmp_path):
    """No index is named, and pip is never started: what would run instead of it is not Python."""
    (tmp_path / "pod").mkdir()
    weights = tmp_path / "image"
    wheel(tmp_path / "index")
    with zipfile.ZipFile(next((tmp_path / "index").iterdir())) as packed:
        packed.extractall(weights)
    (weights / "pip").mkdir()
    (weights / "pip/__main__.py").write_text("raise SystemExit('pip was started')")
    (weights / "pip/__init__.py").write_text("")
    done = run(made(f"weights==1.0 --hash={HASH}\n"), tmp_path / "pod", PYTHONPATH=str(weights))
    assert (done.returncode, done.stderr) == (0, "")
    done = run(made(f"weights==1.1 --hash={HASH}\n"), tmp_path / "pod", PYTHONPATH=str(weights))
    assert (done.returncode, "pip was started" in done.stderr) == (2, True)


def test_only_the_steps_that_name_requirements_have_their_digest_in_the_key(made):
    result = made(f"weights==1.0 --hash={HASH}\n")
    assert len(variables(result)["PERIPLUS_REQUIREMENTS"]) == 64
    assert "PERIPLUS_REQUIREMENTS" not in variables(result, "plain")
    assert variables(made(f"weights==1.1 --hash={HASH}\n")) != variables(result)


def test_a_pipelines_requirements_are_those_of_steps_that_name_none(made):
    flow = FLOW.replace("@pipeline", '@pipeline(requirements="science.lock")')
    result = made(
        f"weights==1.0 --hash={HASH}\n", flow.replace('@step(requirements="science.lock")', "@step")
    )
    assert variables(result)["PERIPLUS_REQUIREMENTS"] == variables(result, "plain")["PERIPLUS_REQUIREMENTS"]


def test_layout_and_order_and_comments_are_no_part_of_the_key(tmp_path):
    other = HASH.replace("a", "b")
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text(f"B_c==2 ; python_version < '4' --hash={HASH}\na==1 --hash={HASH} --hash={other}\n")
    two.write_text(
        f"# a comment\na==1 \\\n    --hash={other} \\\n    --hash={HASH}\n    # via b\n"
        f"b-c==2 ; python_version < '4' \\\n    --hash={HASH}\n"
    )
    assert read_requirements(one, "f").digest == read_requirements(two, "f").digest


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("weights==1.0", "science.lock has no hash for weights"),
        (f"weights>=1.0 --hash={HASH}", "science.lock does not pin"),
        (f"weights @ https://example.org/w.whl --hash={HASH}", "science.lock does not pin"),
        ("--index-url https://user:secret@example.org/simple", "science.lock has the option --index-url"),
        ("-r other.txt", "science.lock has the option -r"),
        ("-e .", "science.lock has the option -e"),
    ],
)
def test_a_line_that_pins_no_package_to_its_files_is_refused_with_what_to_do(made, line, what):
    with pytest.raises(PipelineError) as refused:
        made(f"a==1 --hash={HASH}\n{line}\n")
    assert refused.value.what.startswith(what)
    assert refused.value.fix
    assert "secret" not in str(refused.value)
    assert refused.value.function == "weigh"


def test_a_file_that_is_not_there_is_named(write):
    folder = write({"project/flow.py": FLOW})
    with pytest.raises(PipelineError, match=r"science.lock cannot be read"):
        compile(load(folder / "project/flow.py"))
