"""Fixtures: projects in a temporary folder, and a small executor of compiled pipelines."""

import io
import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from periplus.sdk.compiler.loading import load
from periplus.sdk.compiler.manifest import Compiled, compile  # noqa: A004 - the public name

Write = Callable[..., Path]
SAME = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write the files of a project, by name, and return its folder."""

    def written(files: dict[str, str]) -> Path:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(dedent(text), encoding="utf-8")
        return tmp_path

    return written


HEADER = "from periplus.sdk import Artifact, each, pipeline, step, when\n"


@pytest.fixture
def compiled(write: Write) -> Callable[..., Compiled]:
    """Compile the pipeline of a text, with the header's imports in front."""

    def compile_text(text: str, /, **parameters: Any) -> Compiled:
        folder = write({"flow.py": HEADER + dedent(text)})
        return compile(load(folder / "flow.py"), parameters)

    return compile_text


@dataclass
class Execution:
    """Runs a compiled pipeline with the real runner: a process for each task, in the order of the DAG.

    It knows as much of Argo as the manifests of these tests need: references, withItems, withParam, aggregates,
    `when` with numbers, `depends` with `.Succeeded`.
    """

    compiled: Compiled
    folder: Path
    values: dict[str, str] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)
    ran: list[str] = field(default_factory=list)
    skipped: set[str] = field(default_factory=set)

    def run(self) -> dict[str, Any]:
        """Run every task, and return the outputs of the pipeline."""
        spec = self.compiled.manifest["spec"]
        self.templates = {one["name"]: one for one in spec["templates"]}
        for one in spec.get("arguments", {}).get("parameters", []):
            self.values[f"workflow.parameters.{one['name']}"] = one["value"]
        main = self.templates[spec["entrypoint"]]
        for task in main["dag"]["tasks"]:
            self._task(task)
        outputs = main.get("outputs", {})
        found = {
            one["name"]: json.loads(self._put(one["valueFrom"]["parameter"]))
            for one in outputs.get("parameters", [])
        }
        return found | {one["name"]: self.files[one["from"][2:-2]] for one in outputs.get("artifacts", [])}

    def _task(self, task: dict[str, Any]) -> None:
        needed = [one for one in task.get("depends", "").split(" && ") if one]
        omitted = any(one.endswith(".Succeeded") and one.split(".")[0] in self.skipped for one in needed)
        if omitted or ("when" in task and not self._holds(self._put(task["when"]))):
            self.skipped.add(task["name"])
            return
        items = task.get("withItems")
        if "withParam" in task:
            items = json.loads(self._put(task["withParam"]))
        if items is None:
            outputs, files = self._once(task, task["name"], {})
            self.values |= {f"tasks.{task['name']}.outputs.parameters.{k}": v for k, v in outputs.items()}
            self.files |= {f"tasks.{task['name']}.outputs.artifacts.{k}": v for k, v in files.items()}
            return
        results = [
            self._once(task, f"{task['name']}-{index}", self._item(item))[0]
            for index, item in enumerate(items)
        ]
        for name in results[0]:
            aggregate = json.dumps(together([one[name] for one in results]), separators=(",", ":"))
            self.values[f"tasks.{task['name']}.outputs.parameters.{name}"] = aggregate

    def _item(self, item: Any) -> dict[str, str]:
        texts = {"item": item if isinstance(item, str) else json.dumps(item, separators=(",", ":"))}
        if isinstance(item, dict):
            for name, one in item.items():
                texts[f"item.{name}"] = one if isinstance(one, str) else json.dumps(one)
        return texts

    def _once(
        self, task: dict[str, Any], name: str, item: dict[str, str]
    ) -> tuple[dict[str, str], dict[str, Path]]:
        template = self.templates[task["template"]]
        workdir = self.folder / name
        arguments = task.get("arguments", {})
        inputs = {
            f"inputs.parameters.{one['name']}": self._put(one["value"], item)
            for one in arguments.get("parameters", [])
        }
        paths: dict[str, Path] = {}
        for one in arguments.get("artifacts", []):
            paths[one["name"]] = self.files[one["from"][2:-2]]
        moved = {}
        for one in template.get("inputs", {}).get("artifacts", []):
            if one["name"] == "periplus-code":
                moved[one["path"]] = str(unpack(self.compiled.archive, workdir / "code"))
            else:
                moved[one["path"]] = str(paths[one["name"]])
        outputs = template.get("outputs", {})
        declared = [one["valueFrom"]["path"] for one in outputs.get("parameters", [])]
        declared += [one["path"] for one in outputs.get("artifacts", [])]
        moved |= {path: str(workdir) + path for path in declared}
        environment = {
            one["name"]: moved.get(one["value"]) or self._put(one["value"], inputs)
            for one in template["container"].get("env", [])
        }
        python, runner = template["container"]["command"]
        assert python == "python3"
        code = moved["/periplus/code"]
        workdir.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(  # noqa: PLW1510 - the exit code is asserted
            [sys.executable, runner.replace("/periplus/code", code), *template["container"]["args"]],
            env={**SAME, "HOME": str(workdir), **environment},
            cwd=workdir,
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stderr
        self.ran.append(name)
        return (
            {
                one["name"]: Path(moved[one["valueFrom"]["path"]]).read_text("utf-8")
                for one in outputs.get("parameters", [])
            },
            {one["name"]: Path(moved[one["path"]]) for one in outputs.get("artifacts", [])},
        )

    def _put(self, text: str, more: dict[str, str] | None = None) -> str:
        values = self.values | (more or {})
        return re.sub(r"\{\{([^}]+)\}\}", lambda found: values[found[1]], text)

    def _holds(self, text: str) -> bool:
        left, sign, right = text.split(" ")
        return {">": float(left) > float(right), "==": left == right}[sign]


def together(texts: list[str]) -> list[Any]:
    """The results of a fan-out as Argo gathers them: as values if all are JSON lists or objects, else as texts."""
    try:
        values = [json.loads(text) for text in texts]
    except ValueError:
        return texts
    return values if all(isinstance(one, list | dict) for one in values) else texts


def unpack(archive: bytes, to: Path) -> Path:
    """Unpack as Argo does: the one folder at the archive's root becomes the path itself."""
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        # Without a filter, which the first releases of 3.11 do not have: the SDK packed the archive itself.
        tar.extractall(to.with_name("unpacking"))
    (only,) = to.with_name("unpacking").iterdir()
    return only.rename(to)


@pytest.fixture
def execute(tmp_path: Path) -> Callable[[Compiled], Execution]:
    """An execution of a compiled pipeline in a folder of its own."""
    return lambda pipeline: Execution(pipeline, tmp_path / "execution")
