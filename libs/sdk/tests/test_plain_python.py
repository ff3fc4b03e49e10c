"""Steps and pipelines are ordinary functions outside a compilation."""

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from periplus.sdk import PipelineError, each, pipeline, step, when


class Fit(NamedTuple):
    slope: float
    error: float


@step
def double(x: int) -> int:
    """Twice x."""
    return 2 * x


@step(retries=3)
def fit(x: int, shift: int = 0) -> Fit:
    return Fit(x + shift, x / 10)


@step
def worst(errors: list[float]) -> float:
    return max(errors)


log: list[str] = []


@step
def note(text: str) -> None:
    log.append(text)


@step
def below(n: int) -> list[int]:
    return list(range(n))


@pipeline
def flow(n: int = 3) -> float:
    fits = fit.map(each(below(n)), shift=double(2))
    error = worst(fits.error)
    with when(error > 0.5):
        note("bad")
        with when(error > 0):
            note("very")
    with when(error <= 0.5):
        note("good")
    return error


def test_a_step_called_outside_a_pipeline_is_its_function():
    assert double(4) == 8
    assert double.__doc__ == "Twice x."
    assert double.__name__ == "double"
    assert fit(1, shift=2) == Fit(3, 0.1)


def test_map_outside_a_pipeline_calls_the_function_for_each_value():
    fits = fit.map(each([1, 2]), 10)
    assert fits == [Fit(11, 0.1), Fit(12, 0.2)]
    assert fits.slope == [11, 12]
    assert fit.map(each([1, 2]), each([3, 4])) == [Fit(4, 0.1), Fit(6, 0.2)]
    with pytest.raises(PipelineError, match="marked with each"):
        fit.map(1)
    with pytest.raises(ValueError, match="shorter"):
        fit.map(each([1, 2]), each([3]))


def test_calling_a_pipeline_runs_its_steps_except_those_whose_condition_is_false():
    log.clear()
    assert flow() == 0.2
    assert log == ["good"]
    assert flow(n=9) == 0.8
    assert log == ["good", "bad", "very"]


def test_steps_that_depend_on_a_skipped_step_are_skipped_in_plain_python():
    log.clear()
    with when(False):
        left = fit(1)
        errors = fit.map(each([1, 2])).error
    assert not left
    slope, error = left
    with when(error > 0):
        note("compared")
    note(slope)
    double(left.slope)
    worst(errors)
    assert not fit.map(each(left), 2)
    assert log == []
    note("after")
    assert log == ["after"]


def test_compiling_runs_no_step():
    log.clear()
    recorded = flow.record()
    assert [task.name for task in recorded.tasks] == [
        "below",
        "double",
        "fit",
        "worst",
        "note",
        "note-2",
        "note-3",
    ]
    assert log == []


def test_a_pipeline_inside_a_pipeline_is_recorded_in_it():
    @pipeline
    def outer() -> float:
        return flow(2)

    assert [task.name for task in outer.record().tasks][:3] == ["below", "double", "fit"]


def test_after_an_error_while_recording_steps_run_as_functions():
    @pipeline
    def wrong() -> None:
        if double(1):
            note("no")

    with pytest.raises(PipelineError):
        wrong.record()
    assert double(1) == 2


SCRIPT = """
from periplus.sdk import pipeline, step

@step
def one(url: str) -> str:
    return url

@pipeline
def fetch(url: str, times: int = 1) -> str:
    return one(url)
"""


def script(folder: Path, text: str, name: str = "my flow.py") -> subprocess.CompletedProcess[str]:
    (folder / name).write_text(text)
    return subprocess.run(  # noqa: PLW1510 - tests look at the exit code
        [sys.executable, name], cwd=folder, capture_output=True, text=True, timeout=60
    )


RUN = "run it with `periplus run 'my flow.py' -p url=…`, or in this process with fetch(url=…)"


def test_a_printed_pipeline_says_how_to_run_it(tmp_path):
    done = script(tmp_path, SCRIPT + "print(fetch)\n")
    assert done.stdout == f"<pipeline fetch; {RUN}>\n"


def test_a_file_that_defines_a_pipeline_and_does_nothing_says_how_to_run_it(tmp_path):
    done = script(tmp_path, SCRIPT)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"periplus: fetch was defined and not run; {RUN}\n"


@pytest.mark.parametrize(
    "use",
    ["print(fetch('u'))", "fetch.record()", "from periplus.sdk import compile\ncompile(fetch, {'url': 'u'})"],
)
def test_a_file_that_uses_its_pipeline_prints_no_hint(tmp_path, use):
    done = script(tmp_path, f"{SCRIPT}\n{use}\n", "flow.py")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_file_that_raises_shows_its_traceback_and_no_hint(tmp_path):
    done = script(tmp_path, SCRIPT + "1 / 0\n")
    assert done.stderr.strip().endswith("ZeroDivisionError: division by zero")
    assert "periplus run" not in done.stderr


def test_the_hint_names_the_pipeline_where_a_file_has_two(tmp_path):
    done = script(
        tmp_path,
        f"{SCRIPT}\n@pipeline\ndef other() -> str:\n    return one('a')\nprint(other)\nfetch('u')\n",
        "flow.py",
    )
    assert (
        done.stdout
        == "<pipeline other; run it with `periplus run flow.py:other`, or in this process with other()>\n"
    )
