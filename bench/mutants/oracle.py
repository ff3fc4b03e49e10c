"""One version of the project: the key of each step by the product's own code, and its outputs by the SDK's runner, without the cache.

Each version is compiled in a fork of this process, and each step runs in another one, so that nothing of a version stays.
"""

import hashlib
import io
import json
import os
import re
import shutil
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from mutants.example import ENVIRONMENT, PARAMETERS
from mutants.processes import Failed, StepProcess, Steps, in_fork
from periplus.sdk.compiler.loading import load
from periplus.sdk.compiler.manifest import compile  # noqa: A004 - the public name
from periplus.sdk.compiler.travelling_runner import FOLDER
from periplus.sdk.pipelines import ports
from periplus_cache.domain import Candidate
from periplus_cache.key import Scope, TemplateKeys
from periplus_cache.resolve.candidates import CandidateIndex
from periplus_dispatcher.manifest import read
from periplus_dispatcher.manifest.discovered import OUTPUT, read_index, read_report
from periplus_dispatcher.manifest.uncacheable import StepEnvironment
from periplus_model.steps import Outputs
from periplus_snapshotter.snapshots.claim import Claim, Package, Platform

_SCOPE = Scope("default")
_CODE = "periplus-code"


@dataclass(frozen=True)
class Version:
    """The project and what it runs in: `packages` are installed, and `pinned` are those that steps install."""

    files: Mapping[str, str]
    packages: Mapping[str, str]
    pinned: Mapping[str, str]
    parameters: Mapping[str, int | str] = field(default_factory=lambda: PARAMETERS)
    environment: Mapping[str, str] = field(default_factory=lambda: ENVIRONMENT)
    system: str = "linux"


@dataclass(frozen=True)
class Ran:
    """A step's end: its inputs and outputs by name, the digest of the outputs, its report; `failed` is the end of its log.

    `opened`: the files of the project that the process opened.
    """

    parameters: Mapping[str, str]
    artifacts: Mapping[str, str]
    outputs: Mapping[str, bytes] = field(default_factory=dict)
    report: str = ""
    failed: str = ""
    opened: frozenset[str] = frozenset()

    @property
    def digest(self) -> str:
        """Equal for two that gave the same bytes; of a failure, none."""
        return "" if self.failed else hashlib.sha256(repr(sorted(self.outputs.items())).encode()).hexdigest()


@dataclass(frozen=True)
class Compiled:
    """What the SDK and the dispatcher make of a version: the manifest, and of each template its document for the key, its
    policy's ignored inputs and why it is not cached.
    """

    manifest: dict[str, Any]
    archive: bytes
    documents: Mapping[str, str]
    ignored: Mapping[str, frozenset[str]]
    uncacheable: Mapping[str, str]

    @property
    def tasks(self) -> list[dict[str, Any]]:
        tasks: list[dict[str, Any]] = self.template("main")["dag"]["tasks"]
        return tasks

    def template(self, name: str) -> dict[str, Any]:
        return next(one for one in self.manifest["spec"]["templates"] if one["name"] == name)


class Machine:
    """Compiles and runs versions in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._steps = Steps()
        self._written: dict[str, bytes] = {}
        self._unpacked: dict[str, bytes] = {}
        self._installed: dict[str, str] = {}

    def close(self) -> None:
        self._steps.close()

    def compile(self, version: Version) -> Compiled | None:
        """None if it cannot be compiled: then nothing is run, and nothing is served."""
        root = self._folder / "project"
        files = {name: text.encode() for name, text in version.files.items()}
        _write_changed(root, self._written, files)
        self._written = files
        found = in_fork(lambda: _compiled(root / "flow.py", version))
        return None if isinstance(found, Failed) else found

    def run(
        self, compiled: Compiled, version: Version, affected: Callable[[str], bool], base: Mapping[str, Ran]
    ) -> dict[str, Ran]:
        """Each step's end by name. One that is not `affected` and whose inputs are those of `base` ends as there."""
        code, site = self._folder / "code", self._folder / "site"
        unpacked = _unpacked(compiled.archive)
        _write_changed(code, self._unpacked, unpacked)
        self._unpacked = unpacked
        packages = {**version.packages, **version.pinned}
        if packages != self._installed:
            _install(packages, site)
            self._installed = packages
        arguments = compiled.manifest["spec"]["arguments"]["parameters"]
        values = {f"workflow.parameters.{one['name']}": one["value"] for one in arguments}
        objects: dict[str, bytes] = {}
        found: dict[str, Ran] = {}
        for task in compiled.tasks:
            name = task["name"]
            inputs = _inputs(task, values, objects)
            if inputs is None:
                continue  # what it takes was not made
            known = base.get(name)
            same = known and (known.parameters, known.artifacts) == (inputs[0], _digests(inputs[1]))
            if known is not None and same and not affected(name):
                ran = known
            else:
                ran = self._step(compiled.template(task["template"]), *inputs, code, site, version)
            found[name] = ran
            for output, content in ran.outputs.items():
                values[f"tasks.{name}.outputs.parameters.{output}"] = content.decode("utf-8", "replace")
                objects[f"tasks.{name}.outputs.artifacts.{output}"] = content
        return found

    def _step(
        self,
        template: dict[str, Any],
        parameters: dict[str, str],
        artifacts: dict[str, bytes],
        code: Path,
        site: Path,
        version: Version,
    ) -> Ran:
        work = self._folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        moved = {ports.CODE_PATH: str(code), ports.WORK_PATH: str(work)}
        for one in template["inputs"]["artifacts"]:
            if one["name"] != _CODE:
                moved[one["path"]] = str(work / f"in-{one['name']}")
                Path(moved[one["path"]]).write_bytes(artifacts[one["name"]])
        outputs = {one["name"]: one["valueFrom"]["path"] for one in template["outputs"].get("parameters", ())}
        outputs |= {one["name"]: one["path"] for one in template["outputs"].get("artifacts", ())}
        moved |= {path: str(work / f"out-{name}") for name, path in outputs.items()}
        put = {f"inputs.parameters.{name}": value for name, value in parameters.items()}
        environment = dict(version.environment) | {"PATH": os.environ["PATH"]}
        for one in template["container"]["env"]:
            environment[one["name"]] = moved.get(one["value"]) or _put(one["value"], put)
        entry = template["container"]["args"][0]
        ended = self._steps.run(StepProcess(entry, environment, str(code), str(site), str(work)))
        inputs = (parameters, _digests(artifacts))
        if isinstance(ended, Failed):
            return Ran(*inputs, failed=ended.text)
        made = {name: Path(moved[path]).read_bytes() for name, path in outputs.items() if name != OUTPUT}
        report = Path(moved[outputs[OUTPUT]]).read_text() if Path(moved[outputs[OUTPUT]]).exists() else ""
        return Ran(*inputs, made, report, opened=frozenset(ended))


class Cache:
    """What a run of the base left in the cache: the decisions are those of periplus_cache and periplus_dispatcher."""

    def __init__(self, compiled: Compiled, ran: Mapping[str, Ran]) -> None:
        self._keys = TemplateKeys()
        self._index = CandidateIndex()
        self.uncacheable: dict[str, str] = {}
        candidates = []
        for task in compiled.tasks:
            name, template = task["name"], task["template"]
            found = read_report(ran[name].report, steps_are_processes=True)
            if reason := compiled.uncacheable[template] or found.uncacheable_reason:
                self.uncacheable[name] = reason
                continue
            base = self._fingerprint(compiled, template, ran[name])
            candidates.append(
                Candidate(
                    fingerprint=self._fingerprint(compiled, template, ran[name], found.code)
                    if found.code
                    else base,
                    static_key="",
                    producer_run="base",
                    producer_step=name,
                    confirmed_at=datetime(2026, 1, 1, tzinfo=UTC),
                    duration=timedelta(),
                    load_outputs=Outputs,
                    base_fingerprint=base if found.code else "",
                    discovered=found.code,
                )
            )
        self._index.add({}, (), candidates)

    def is_hit(self, compiled: Compiled, task: Mapping[str, Any], ran: Ran) -> bool:
        """Whether a step with these inputs would be served."""
        template = task["template"]
        if compiled.uncacheable[template]:
            return False
        fingerprint = self._fingerprint(compiled, template, ran)
        return self._index.find(fingerprint, read_index(compiled.manifest)) is not None

    def _fingerprint(
        self, compiled: Compiled, template: str, ran: Ran, discovered: Mapping[str, str] | None = None
    ) -> str:
        ignored = compiled.ignored[template]
        parameters = {name: value for name, value in ran.parameters.items() if name not in ignored}
        artifacts = {name: value for name, value in ran.artifacts.items() if name not in ignored}
        return self._keys.get(_SCOPE, compiled.documents[template]).fingerprint(
            parameters, artifacts, discovered
        )


def _compiled(flow: Path, version: Version) -> Compiled:
    made = compile(load(flow), version.parameters)
    platform = Platform(version.system, "x86_64", "cpython", "3.11")
    installed = tuple(Package(name, one) for name, one in version.packages.items())
    environment = StepEnvironment(
        runs_images=False, digest=Claim(installed=installed, platform=platform).canonical().environment
    )
    expanded = read.read(json.dumps(made.manifest), {}).expand(environment)
    steps = {name: one.step for name, one in expanded.templates.items()}
    return Compiled(
        made.manifest,
        made.archive,
        {name: one.document for name, one in steps.items()},
        {name: one.policy.ignore_inputs for name, one in steps.items()},
        {name: one.uncacheable_reason for name, one in steps.items()},
    )


def _unpacked(archive: bytes) -> dict[str, bytes]:
    """The files of the project and of the packages to install: the runner is the SDK's own."""
    needless = f"code/{FOLDER}/periplus"
    found = {}
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        for one in tar:
            if one.isfile() and not one.name.startswith(needless):
                content = tar.extractfile(one)
                assert content is not None
                found[one.name.removeprefix("code/")] = content.read()
    return found


def _write_changed(folder: Path, before: Mapping[str, bytes], now: Mapping[str, bytes]) -> None:
    """Make a folder that holds some files hold others."""
    for name in before.keys() - now.keys():
        (folder / name).unlink()
    for name, content in now.items():
        if before.get(name) != content:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)


def _install(packages: Mapping[str, str], site: Path) -> None:
    """Packages whose module knows its version, as pip would leave them."""
    shutil.rmtree(site, ignore_errors=True)
    for name, version in packages.items():
        info = site / f"{name}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (site / f"{name}.py").write_text(
            f"VERSION = {version!r}\n\ndef amount(x):\n    return x + len(VERSION)\n"
        )


def _inputs(
    task: Mapping[str, Any], values: Mapping[str, str], objects: Mapping[str, bytes]
) -> tuple[dict[str, str], dict[str, bytes]] | None:
    arguments = task.get("arguments", {})
    try:
        return (
            {one["name"]: _put(one["value"], values) for one in arguments.get("parameters", ())},
            {one["name"]: objects[one["from"][2:-2]] for one in arguments.get("artifacts", ())},
        )
    except KeyError:
        return None


def _put(text: str, values: Mapping[str, str]) -> str:
    return re.sub(r"\{\{([^}]+)\}\}", lambda found: values[found[1]], text)


def _digests(artifacts: Mapping[str, bytes]) -> dict[str, str]:
    return {name: "sha256:" + hashlib.sha256(one).hexdigest() for name, one in artifacts.items()}
