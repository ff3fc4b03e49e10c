"""What a step takes is what the other returned, whether that ran now or was taken from the cache."""

import json
import re
import uuid
from pathlib import Path

from stack import Stack

PIPELINE = '''
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple
import numpy as np
from periplus.sdk import Artifact, each, pipeline, step

@dataclass
class Linear:
    width: int = 1
    kind: Literal["linear"] = "linear"

@dataclass
class Tree:
    width: int = 1
    kind: Literal["tree"] = "tree"

class Made(NamedTuple):
    model: Linear | Tree
    weights: dict[str, float]
    rows: Artifact[list[dict[str, Any]]]
    numbers: list[float]
    readings: np.ndarray
    data: bytes

@step
def make() -> Made:
    """NAME"""
    return Made(
        Tree(3), {"width": 10.0, "age": -0.0}, [{"z": 1, "a": True, "m": None}], [1e-7, 2.0**60, -0.0],
        np.array([[1.5, np.nan]], dtype=">f4"), b"\\\\0\\\\xff",
    )

@step
def tables() -> list[dict[str, int]]:
    return [{"b": 1, "a": 2}, {"z": 1, "a": 2}]

@step
def turned(table: dict[str, int]) -> dict[str, int]:
    return dict(reversed(table.items()))

@step
def told(
    model: Linear | Tree, weights: dict[str, float], rows: Artifact[list[dict[str, Any]]], numbers: list[float],
    readings: np.ndarray, data: bytes, gathered: list[dict[str, int]],
) -> str:
    # RUN
    marker = RUN
    array = (type(readings).__name__, readings.dtype.str, readings.shape, readings.tobytes())
    return repr((model, weights, rows, numbers, array, data, gathered))

@pipeline
def values() -> str:
    made = make()
    return told(*made, turned.map(each(tables())))
'''
ARRIVES = (
    "(Tree(width=3, kind='tree'), {'width': 10.0, 'age': -0.0}, [{'z': 1, 'a': True, 'm': None}], "
    "[1e-07, 1.152921504606847e+18, -0.0], ('ndarray', '>f4', (1, 2), b'?\\xc0\\x00\\x00\\x7f\\xc0\\x00\\x00'), "
    "b'\\x00\\xff', [{'a': 2, 'b': 1}, {'a': 2, 'z': 1}])"
)


def test_a_value_from_the_cache_is_the_one_that_was_returned(stack: Stack, tmp_path: Path) -> None:
    text = PIPELINE.replace("NAME", uuid.uuid4().hex).replace("\\\\", "\\")
    file = tmp_path / "flow.py"
    found = []
    for number in (1, 2):
        file.write_text(text.replace("RUN", str(number)))
        document = json.loads(stack.periplus("run", str(file), "-o", "json", cwd=tmp_path).stdout)
        stack.wait_for_cache(stack.run(document["run"]))
        phases = {step["path"]: step["phase"] for step in document["steps"]}
        found.append((document["outputs"]["parameters"][0]["value"], phases))
    (first, _), (second, phases) = found
    assert json.loads(first) == json.loads(second) == ARRIVES
    assert {phase for path, phase in phases.items() if path != "told"} == {"CACHED"}
    assert phases["told"] == "SUCCEEDED"


def test_a_step_that_returns_what_would_arrive_as_another_value_fails_with_the_fix(
    stack: Stack, tmp_path: Path
) -> None:
    text = PIPELINE.replace("RUN", "1").replace('    kind: Literal["linear"] = "linear"\n', "")
    text = text.replace('    kind: Literal["tree"] = "tree"\n', "")
    (tmp_path / "flow.py").write_text(text.replace("NAME", uuid.uuid4().hex))
    done = stack.periplus("run", "flow.py", check=False, cwd=tmp_path)
    assert done.returncode == 1, done.stdout
    (run,) = set(re.findall(r"^run (\S+)$", done.stdout, re.MULTILINE))
    log = stack.periplus("logs", run, "--step", "make").stdout
    assert "make(), argument return, field model: is Tree(width=3) (Tree)" in log
    assert "fix: annotate one type, or give each type of the union a field" in log


FAN_OUT = '''
from periplus.sdk import each, pipeline, step

@step
def floats(count: int) -> list[float]:
    return [1e-07, 1e22, -0.0, 0.1, 2.5e-09, 12345678901234567.0, 5e-324][:count]

@step
def ints(count: int) -> list[int]:
    return [2**60 + 1, -5, 10**30, 0, 7][:count]

@step
def rows(count: int) -> list[dict[str, float]]:
    return [{"b": 1e-07, "a": -0.0}, {"z": 1.0, "a": 2.0}, {"b": 1e-07, "a": -0.0, "A": 1e22}][:count]

@step
def same_float(value: float) -> float:
    """NAME"""
    return value

@step
def same_int(value: int) -> int:
    """NAME"""
    return value

@step
def same_row(value: dict[str, float]) -> dict[str, float]:
    """NAME"""
    return value

@step
def told(a: list[float], b: list[int], c: list[dict[str, float]]) -> str:
    return repr((a, b, c))

@pipeline
def fan_outs(count: int) -> str:
    return told(
        same_float.map(each(floats(count))), same_int.map(each(ints(count))), same_row.map(each(rows(count)))
    )
'''


def test_items_that_are_cached_beside_items_that_run_keep_their_values(stack: Stack, tmp_path: Path) -> None:
    names = uuid.uuid4().hex
    (tmp_path / "flow.py").write_text(FAN_OUT.replace("same_", f"same_{names}_"))
    floats = [1e-07, 1e22, -0.0, 0.1, 2.5e-09, 12345678901234567.0, 5e-324]
    ints = [2**60 + 1, -5, 10**30, 0, 7]
    rows = [{"b": 1e-07, "a": -0.0}, {"z": 1.0, "a": 2.0}, {"b": 1e-07, "a": -0.0, "A": 1e22}]
    for count in (2, 5, 2):
        document = json.loads(
            stack.periplus("run", "flow.py", "-p", f"count={count}", "-o", "json", cwd=tmp_path).stdout
        )
        assert json.loads(document["outputs"]["parameters"][0]["value"]) == repr(
            (floats[:count], ints[:count], rows[:count])
        )
        stack.wait_for_cache(stack.run(document["run"]))
        phases = {step["path"]: step["phase"] for step in document["steps"]}
        if count == 5:
            assert phases[f"same-{names}-float(1)"] == "CACHED"
            assert phases[f"same-{names}-float(4)"] == "SUCCEEDED"
