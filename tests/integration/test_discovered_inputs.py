"""Code that a step reaches by no name in its own code is part of what decides whether a result is served: its value is the one that
a run without the cache has, whichever way the code was reached, and steps that do not use what was edited are served.
"""

import json
import uuid
from pathlib import Path

import pytest
from stack import Stack

MODELS = """
import codecs

RATE = 1
TABLE = {"rate": 1}


class Model:
    weight = 1

    def score(self):
        return 1 * self.weight


def tree(x):
    return helped(x) + 1


def helped(x):
    return x * RATE


def encode(text, errors="strict"):
    return b"", 1


@codecs.register
def find(name):
    return codecs.CodecInfo(encode, None, name=name) if name == "NAME" else None


def unused(x):
    return x
"""
EDITS = {
    "1 * self.weight": "100 * self.weight",
    "helped(x) + 1": "helped(x) + 100",
    "RATE = 1": "RATE = 100",
    '{"rate": 1}': '{"rate": 100}',
    'return b"", 1': 'return b"", 100',
}
PLUGIN = "def value():\n    return 1\n"
PIPELINE = """
import codecs
import importlib.metadata
import pickle
import pkgutil
from pydoc import locate

import models

from periplus.sdk import pipeline, step


@step
def dumped() -> bytes:
    project = "NAME"
    return pickle.dumps([models.Model()])


@step
def a_pickle(data: bytes) -> float:
    project = "NAME"
    return pickle.loads(data)[0].score()


@step
def a_name(target: str) -> int:
    project = "NAME"
    return pkgutil.resolve_name(target)(1)


@step
def a_located_name(target: str) -> int:
    project = "NAME"
    return locate(target)(1)


@step
def a_constant(target: str) -> int:
    project = "NAME"
    return locate(target)


@step
def a_member(target: str) -> int:
    project = "NAME"
    return pkgutil.resolve_name(target)["rate"]


@step
def an_entry_point(target: str) -> int:
    project = "NAME"
    return importlib.metadata.EntryPoint("one", target, "group").load()(1)


@step
def a_registered_function() -> int:
    project = "NAME"
    return codecs.lookup("NAME").encode("")[1]


@step
def a_plugin(target: str) -> int:
    project = "NAME"
    return pkgutil.resolve_name(target)()


@step
def unused() -> int:
    project = "NAME"
    return models.unused(1)


@pipeline
def used() -> None:
    a_pickle(dumped())
    a_name("models.tree")
    a_located_name("models.tree")
    a_constant("models.RATE")
    a_member("models:TABLE")
    an_entry_point("models:tree")
    a_registered_function()
    a_plugin("plugins.one.value")
    unused()
"""
DYNAMIC = {
    "a-pickle", "a-name", "a-located-name", "a-constant", "a-member", "an-entry-point",
    "a-registered-function", "a-plugin",
}  # fmt: skip


class Project:
    """A project in a folder, and its runs."""

    def __init__(self, stack: Stack, folder: Path, files: dict[str, str]) -> None:
        self.stack, self.folder, self.name = stack, folder, f"n{uuid.uuid4().hex}"
        for name, text in files.items():
            self.write(name, text)

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("NAME", self.name))

    def edit(self, name: str, edits: dict[str, str]) -> None:
        text = (self.folder / name).read_text()
        for old, new in edits.items():
            assert old in text
            text = text.replace(old, new)
        self.write(name, text)

    def run(self, *options: str, file: str = "flow.py") -> tuple[dict[str, float], set[str], str]:
        """The outputs of the steps by name, those that were served, and the run's id."""
        made = self.stack.periplus("run", file, "-o", "json", *options, cwd=self.folder)
        document = json.loads(made.stdout)
        self.stack.wait_for_cache(self.stack.run(document["run"]))
        steps = document["steps"] or document["plan"]["steps"]
        outputs = {}
        for step in document["steps"]:
            for parameter in step["outputs"].get("parameters", ()):
                outputs[step["path"]] = json.loads(parameter["value"])
        served = {
            step["path"]
            for step in steps
            if "CACHED" in step.get("phase", "") or step.get("verdict") == "HIT"
        }
        return outputs, served, document["run"]


@pytest.fixture
def project(stack: Stack, tmp_path: Path) -> Project:
    files = {"flow.py": PIPELINE, "models.py": MODELS, "plugins/__init__.py": "", "plugins/one.py": PLUGIN}
    return Project(stack, tmp_path, files)


def test_code_that_is_reached_at_run_time_alone_runs_again_when_it_was_edited(project: Project) -> None:
    first, served, _ = project.run()
    assert {step: first[step] for step in DYNAMIC} == dict.fromkeys(DYNAMIC, 1) | dict.fromkeys(
        ("a-name", "a-located-name", "an-entry-point"), 2
    )
    assert not served
    _, served, _ = project.run()
    assert served >= DYNAMIC | {"unused"}

    project.edit("models.py", {"def unused(x):": "def unused(x):  # a comment", "return x\n": "return (x)\n"})
    _, served, _ = project.run()
    assert served >= DYNAMIC | {"unused"}, "a comment and parentheses change nothing"

    project.edit("models.py", EDITS)
    project.edit("plugins/one.py", {"return 1": "return 100"})
    edited, served, run = project.run()
    fresh, _, _ = project.run("--cache", "off")
    assert {step: edited[step] for step in DYNAMIC} == {step: fresh[step] for step in DYNAMIC}
    assert set(edited.values()) >= {100.0, 200}
    assert served == {"unused"}
    why = project.stack.periplus("why", run, "a-located-name").stdout
    assert "models.py" in why


ESTIMATORS = """
from sklearn.base import BaseEstimator

class Threshold(BaseEstimator):
    def __init__(self, cut=0.5):
        self.cut = cut

    def fit(self, x, y=None):
        return self

    def score(self, x, y=None):
        return float(1 * self.cut)
"""
ESTIMATED = """
from estimators import Threshold
from sklearn.base import BaseEstimator
from periplus.sdk import pipeline, step

@step
def fit() -> BaseEstimator:
    project = "NAME"
    return Threshold(1.0)

@step
def share(model: BaseEstimator) -> float:
    project = "NAME"
    return model.score(None)

@pipeline
def estimated() -> float:
    return share(fit())
"""


def test_the_class_of_an_unpickled_model_is_compared_at_a_gate_as_well(stack: Stack, tmp_path: Path) -> None:
    project = Project(stack, tmp_path, {"flow.py": ESTIMATED, "estimators.py": ESTIMATORS})
    assert project.run()[0]["share"] == 1.0
    # `fit` runs again and gives the same bytes, so that the gate of `share` asks with the key of before.
    project.edit("flow.py", {"return Threshold(1.0)": "return Threshold(2.0 - 1.0)"})
    project.edit("estimators.py", {"1 * self.cut": "100 * self.cut"})
    outputs, served, _ = project.run()
    assert (outputs["share"], served) == (100.0, set())
    project.edit("flow.py", {"return Threshold(2.0 - 1.0)": "return Threshold(3.0 - 2.0)"})
    _, served, _ = project.run()
    assert served == {"share"}
    project.edit("estimators.py", {"100 * self.cut": "1 * self.cut"})
    assert project.run()[1] == {"share"}, "the entry of the code of before is still there"
