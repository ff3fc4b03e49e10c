"""The runner as a process: inputs from environment variables and files, outputs as files, never values as code."""

import json
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from periplus.sdk import runner

SAME = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}

STEPS = """
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from helper import deeper
from periplus.sdk import Artifact, step

@dataclass
class Point:
    x: float
    label: str = "none"

class Both(NamedTuple):
    number: int
    data: bytes

@step
def shout(text: str, times: int = 1) -> str:
    print("working")
    return text.upper() * times

@step
def move(points: list[Point], by: float) -> list[Point]:
    return [Point(one.x + by, one.label) for one in points]

@step
def both(data: bytes) -> Both:
    return Both(len(data), data[::-1])

@step
def big(rows: Artifact[list[int]]) -> Artifact[dict[str, int]]:
    return {"total": sum(rows)}

@step
def copied(source: Path) -> Path:
    return source

@step
def words(n: int) -> list[str]:
    return ["a", 'b"c', "$x {{y}}"][:n]

@step
def fail(n: int) -> int:
    return deeper(n)

@step
def lie(n: int) -> int:
    return "text"

@step
def endless(n: int) -> float:
    return float("nan")

@step
def huge(n: int) -> str:
    return "x" * n

@step
def nothing(n: int) -> None:
    return n or None

@dataclass
class Tree:
    width: int = 1

@dataclass
class Linear:
    width: int = 1

@dataclass
class Colored(Point):
    color: str = "red"

class Picked(NamedTuple):
    model: Linear | Tree
    score: float

@step
def pick(n: int) -> Picked:
    return Picked(Tree(n), 1.0)

@step
def colored(n: int) -> list[Point]:
    return [Colored(1.0)]

@step
def endless_list(n: int) -> list[Any]:
    itself = []
    itself.append(itself)
    return itself

@step
def half_word(n: int) -> Artifact[str]:
    return chr(0xD800)

@step
def leave(n: int) -> None:
    sys.exit(n)

def bare(n: int) -> int:
    return n
"""

ARRAYS = """
import numpy as np
from periplus.sdk import step

@step
def masked(n: int) -> np.ndarray:
    return np.ma.masked_greater(np.array([1.0, 2.0, 9999.0]), 1000.0)
"""


@pytest.fixture
def run(write, tmp_path):
    """Run a step of STEPS by `python -m periplus.sdk.runner`."""
    helper = "def deeper(n):\n    return 1 // n\n"
    write(
        {
            "code/steps.py": STEPS,
            "code/arrays.py": ARRAYS,
            "code/helper.py": helper,
            "code/broken.py": "1 / 0\n",
        }
    )

    def ran(entry: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {**SAME, "PERIPLUS_CODE": str(tmp_path / "code")}
        environment |= {f"PERIPLUS_{name}": value for name, value in variables.items()}
        return subprocess.run(  # noqa: PLW1510 - tests look at the exit code
            [sys.executable, "-m", "periplus.sdk.runner", entry],
            env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    return ran


def test_parameters_are_read_as_json_and_the_result_is_written_as_json(run, tmp_path):
    out = tmp_path / "deep" / "out.json"
    done = run("steps:shout", PARAMETER_text='"ab é"', PARAMETER_times="2", OUTPUT_output=str(out))
    assert (done.returncode, done.stdout, done.stderr) == (0, "working\n", "")
    assert out.read_text("utf-8") == '"AB ÉAB É"'


@pytest.mark.parametrize(
    "text",
    ["'); import os; os._exit(9) #", '"""\n{{inputs.parameters.x}}', "$(touch x) `id` \\", "\x01\u2028🦀"],
)
def test_no_text_is_run_as_code(run, tmp_path, text):
    out = tmp_path / "out.json"
    done = run("steps:shout", PARAMETER_text=json.dumps(text), PARAMETER_times="1", OUTPUT_output=str(out))
    assert done.returncode == 0, done.stderr
    assert json.loads(out.read_text("utf-8")) == text.upper()


def test_records_are_built_and_written_by_their_annotations(run, tmp_path):
    out = tmp_path / "out.json"
    done = run(
        "steps:move",
        PARAMETER_points='[{"x": 1}, {"label": "b", "x": 2.5}]',
        PARAMETER_by="1",
        OUTPUT_output=str(out),
    )
    assert done.returncode == 0, done.stderr
    assert out.read_text() == '[{"label":"none","x":2.0},{"label":"b","x":3.5}]'


def test_the_gathered_results_of_a_fan_out_are_read_as_a_list(run, tmp_path):
    out = tmp_path / "out.json"
    gathered = json.dumps(['{"x":1}', 'json:{"label":"b","x":2}'])
    done = run("steps:move", GATHERED_points=gathered, PARAMETER_by="0", OUTPUT_output=str(out))
    assert done.returncode == 0, done.stderr
    assert [one["x"] for one in json.loads(out.read_text())] == [1.0, 2.0]


def test_a_result_of_a_fan_out_is_written_so_that_argo_does_not_rewrite_it(run, tmp_path):
    for field, expected in (
        ("FAN_OUT_output", 'json:[{"label":"none","x":1.0}]'),
        ("OUTPUT_output", '[{"label":"none","x":1.0}]'),
    ):
        out = tmp_path / field
        points = 'json:[{"x":1.0}]'
        done = run("steps:move", PARAMETER_points=points, PARAMETER_by="0", **{field: str(out)})
        assert done.returncode == 0, done.stderr
        assert out.read_text() == expected


def test_the_fields_of_a_named_tuple_are_outputs_of_their_own(run, tmp_path):
    source = tmp_path / "in.bin"
    source.write_bytes(b"\x00abc")
    done = run(
        "steps:both", INPUT_data=str(source), OUTPUT_number=f"{tmp_path}/n", OUTPUT_data=f"{tmp_path}/d"
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "n").read_text() == "4"
    assert (tmp_path / "d").read_bytes() == b"cba\x00"


def test_large_json_travels_as_a_file(run, tmp_path):
    source = tmp_path / "rows.json"
    source.write_text(json.dumps(list(range(100_000))))
    done = run("steps:big", INPUT_rows=str(source), OUTPUT_output=f"{tmp_path}/out.json")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.json").read_text() == '{"total": 4999950000}'


def test_a_returned_path_is_copied_and_stays_where_it_is(run, tmp_path):
    folder = tmp_path / "folder"
    (folder / "sub dir").mkdir(parents=True)
    (folder / "sub dir" / "ü.txt").write_text("here")
    done = run("steps:copied", INPUT_source=str(folder), OUTPUT_output=f"{tmp_path}/out")
    assert done.returncode == 0, done.stderr
    for place in (folder, tmp_path / "out"):
        assert (place / "sub dir" / "ü.txt").read_text() == "here"


def test_a_list_of_texts_is_also_written_as_items_for_a_fan_out(run, tmp_path):
    done = run(
        "steps:words", PARAMETER_n="3", OUTPUT_output=f"{tmp_path}/out", ITEMS_output=f"{tmp_path}/items"
    )
    assert done.returncode == 0, done.stderr
    plain = (tmp_path / "out").read_text()
    assert json.loads(plain) == ["a", 'b"c', "$x {{y}}"]
    assert "$" not in plain
    assert "{{" not in plain
    items = json.loads((tmp_path / "items").read_text())
    assert [json.loads(one) for one in items] == json.loads(plain)
    assert "{{" not in items[2]


def test_a_users_exception_is_printed_without_the_frames_of_the_sdk(run):
    done = run("steps:fail", PARAMETER_n="0", OUTPUT_output="unused")
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback (most recent call last):\n")
    assert "ZeroDivisionError" in done.stderr
    assert 'code/steps.py", line' in done.stderr
    assert 'code/helper.py", line 2, in deeper' in done.stderr
    assert "periplus/sdk" not in done.stderr
    assert "importlib" not in done.stderr


def test_an_exception_on_import_is_printed_without_the_frames_of_the_sdk(run):
    done = run("broken:f")
    assert done.returncode == 1
    assert 'code/broken.py", line 1, in <module>' in done.stderr
    assert "periplus/sdk" not in done.stderr
    assert "frozen" not in done.stderr


def test_a_steps_own_exit_code_is_kept(run):
    assert run("steps:leave", PARAMETER_n="7").returncode == 7


@pytest.mark.parametrize(
    ("entry", "variables", "message"),
    [
        ("steps:shout", {"PARAMETER_text": "5", "PARAMETER_times": "1"}, "shout(), argument text: expected str, got 5 (int)"),
        ("steps:shout", {"PARAMETER_text": "ab", "PARAMETER_times": "1"}, "shout(), argument text: is not JSON"),
        ("steps:shout", {"PARAMETER_text": '"a"', "PARAMETER_times": "1.5"}, "argument times: expected int, got 1.5 (float)"),
        ("steps:shout", {"PARAMETER_text": '"a"', "PARAMETER_times": "NaN"}, "argument times: is not JSON"),
        ("steps:shout", {"PARAMETER_times": "1"}, "the environment variable PERIPLUS_PARAMETER_text is not set"),
        ("steps:move", {"PARAMETER_points": '[{"y": 1}]', "PARAMETER_by": "1"}, "argument points: [0]: has no field y (of Point)"),
        ("steps:move", {"PARAMETER_points": '[{"x": "1"}]', "PARAMETER_by": "1"}, "argument points: [0].x: expected float, got '1'"),
        ("steps:both", {"INPUT_data": "/nowhere"}, "both(), argument data: cannot be read: "),
        ("steps:big", {"INPUT_rows": __file__}, "big(), argument rows: cannot be read: "),
        ("steps:lie", {"PARAMETER_n": "1"}, "lie(), argument return: expected int, got 'text' (str)"),
        ("steps:lie", {"PARAMETER_n": "1"}, "fix: return int, or annotate the type that it returns"),
        ("steps:half_word", {"PARAMETER_n": "1"}, "fix: return it as bytes"),
        ("steps:endless", {"PARAMETER_n": "1"}, "endless(), argument return: is nan, which JSON cannot say"),
        ("steps:huge", {"PARAMETER_n": "200000"}, "huge(), argument return: is 200002 bytes as JSON"),
        ("steps:huge", {"PARAMETER_n": "200000"}, "fix: annotate it Artifact[str]"),
        (
            "steps:pick",
            {"PARAMETER_n": "3", "OUTPUT_model": "m", "OUTPUT_score": "s"},
            "pick(), argument return, field model: is Tree(width=3) (Tree), and what takes steps.Linear | steps.Tree would get Linear(width=3)",
        ),
        ("steps:pick", {"PARAMETER_n": "3", "OUTPUT_model": "m", "OUTPUT_score": "s"}, "fix: annotate one type, or give each type of the union a field"),
        ("steps:colored", {"PARAMETER_n": "1"}, "colored(), argument return: [0]: expected Point, got Colored("),
        ("arrays:masked", {"PARAMETER_n": "1"}, "masked(), argument return: expected numpy.ndarray, got numpy."),
        ("arrays:masked", {"PARAMETER_n": "1"}, "MaskedArray: the mask would be lost\n  fix: return value.filled(…)"),
        ("steps:endless_list", {"PARAMETER_n": "1"}, "endless_list(), argument return: cannot be written as JSON: it is nested too deeply, or holds itself"),
        ("steps:half_word", {"PARAMETER_n": "1"}, "half_word(), argument return: cannot be written as JSON: 'utf-8' codec"),
        ("steps:nothing", {"PARAMETER_n": "1"}, "nothing(): returned int, its annotation says None"),
        ("steps:bare", {"PARAMETER_n": "1"}, "steps has no step bare\n  fix: decorate the function with @step"),
        ("steps:missing", {}, "steps has no step missing"),
        ("steps", {}, "usage: python3 periplus-runner module:function"),
    ],
)  # fmt: skip
def test_inputs_and_outputs_that_do_not_fit_are_reported_in_one_line_and_exit_2(
    run, tmp_path, entry, variables, message
):
    done = run(entry, OUTPUT_output=str(tmp_path / "out"), OUTPUT_number="n", OUTPUT_data="d", **variables)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("periplus: ")
    assert "Traceback" not in done.stderr
    assert message in done.stderr


def test_a_module_of_the_code_archive_hides_one_of_the_working_directory(run, tmp_path):
    (tmp_path / "helper.py").write_text("raise SystemExit(5)\n")
    done = run("steps:fail", PARAMETER_n="1", OUTPUT_output=str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr


def test_a_step_process_imports_neither_hera_nor_numpy_for_json(write, tmp_path):
    steps = """
    import sys
    from periplus.sdk import step
    @step
    def modules() -> list[str]:
        return [one for one in ("hera", "numpy", "grpc", "rich", "hashlib", "tarfile") if one in sys.modules]
    """
    write({"code/steps.py": dedent(steps)})
    done = subprocess.run(  # noqa: PLW1510 - the exit code is asserted
        [sys.executable, "-m", "periplus.sdk.runner", "steps:modules"],
        env={**SAME, "PERIPLUS_CODE": str(tmp_path / "code"), "PERIPLUS_OUTPUT_output": str(tmp_path / "o"), "PERIPLUS_ITEMS_output": str(tmp_path / "i")},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(Path(tmp_path / "o").read_text()) == []


@pytest.fixture
def left(write, tmp_path, monkeypatch):
    """Run a step of STEPS in this process, and return the message that it leaves for Kubernetes."""
    write({"code/failing.py": STEPS.replace("from helper import deeper\n", "")})
    log = tmp_path / "termination-log"
    log.write_text("of the attempt before, and longer than what follows " * 40)
    monkeypatch.setattr(runner, "TERMINATION_LOG", log)
    monkeypatch.syspath_prepend(str(tmp_path / "code"))

    def message(entry: str, **variables: str) -> str:
        environment = {f"PERIPLUS_{name}": value for name, value in variables.items()}
        assert runner.main([entry], environment) != 0
        return log.read_text("utf-8")

    return message


def test_a_failed_step_leaves_its_error_in_one_line_for_kubernetes(left, tmp_path):
    out = str(tmp_path / "out")
    assert left("failing:lie", PARAMETER_n="1", OUTPUT_output=out) == (
        "periplus: lie(), argument return: expected int, got 'text' (str); "
        "fix: return int, or annotate the type that it returns"
    )
    assert left("failing:fail", PARAMETER_n="1") == "the step raised NameError"
    assert len(left("failing:lie", PARAMETER_n="[" * 5000, OUTPUT_output=out)) <= 1_000


def test_where_kubernetes_reads_no_message_none_is_left(left, tmp_path):
    (tmp_path / "termination-log").unlink()
    with pytest.raises(FileNotFoundError):
        left("failing:fail", PARAMETER_n="1")
