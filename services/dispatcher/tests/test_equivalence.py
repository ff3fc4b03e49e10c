"""Manifests of others: plain, through us with an empty cache and with a full one they have the same outcome.

Every eighth of the recordings' manifests of this repository is run. `PERIPLUS_FOREIGN_MANIFESTS` names folders, separated by colons, with
others, such as Argo's `examples` and `test/e2e`: without it their test is skipped.
"""

import asyncio
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from dispatcher_harness import FinishedRun, Harness

from periplus_common.errors import Invalid
from periplus_dispatcher.domain import RunState
from periplus_dispatcher.follow.observe import WorkflowStatus
from periplus_local.argo.testing import Refusal, has_ended
from periplus_manifest.errors import ManifestError
from periplus_manifest.read import read_all
from periplus_model.steps import StepPhase

Json = dict[str, Any]
RECORDED = Path(__file__).parents[3] / "tests" / "conformance" / "recordings" / "manifests"
FOREIGN = [Path(each) for each in os.environ.get("PERIPLUS_FOREIGN_MANIFESTS", "").split(":") if each]
TEMPLATE_PATHS = {
    "WorkflowTemplate": "workflow-templates/{}",
    "ClusterWorkflowTemplate": "cluster-workflow-templates",
}
AT_A_TIME = 4
SECONDS = 20.0
EMPTY = RunState(templates={})


@dataclass(frozen=True)
class Outcome:
    """How a workflow ended: its phase, its output parameters and result, and the phase of each step by path."""

    phase: str
    outputs: dict[str, str]
    steps: dict[str, str]


class Skip(Exception):
    """A manifest can not be compared here; the message is a kind of reason."""


def documents(folder: Path) -> Iterator[tuple[str, Json]]:
    """Every document below a folder that can be read."""
    for path in sorted(p for p in folder.rglob("*") if p.suffix in (".yaml", ".yml", ".json")):
        try:
            found = read_all(path.read_text())
        except (ManifestError, UnicodeDecodeError):
            continue
        for number, document in enumerate(found):
            yield f"{path.relative_to(folder)}#{number}", document


def create_templates(harness: Harness, templates: list[Json]) -> None:
    """Create the templates, each after those that it refers to; what the local Argo refuses is left out."""
    remaining = len(templates) + 1
    while templates and len(templates) < remaining:
        remaining, refused = len(templates), []
        for template in templates:
            path = TEMPLATE_PATHS[template["kind"]].format(harness.client.namespace)
            metadata = {k: v for k, v in template["metadata"].items() if k != "namespace"}
            try:
                harness.client.call("POST", path, {"template": {**template, "metadata": metadata}})
            except Refusal:
                refused.append(template)
        templates = refused


def plain(manifest: Json) -> Json:
    """The manifest with a name of its own, in the namespace of the server."""
    metadata = {k: v for k, v in (manifest.get("metadata") or {}).items() if k not in ("name", "namespace")}
    return {**manifest, "metadata": {**metadata, "generateName": "plain-"}}


async def run_plain(harness: Harness, manifest: Json) -> Outcome:
    """Run a manifest as it is."""
    client = harness.client
    try:
        name = await asyncio.to_thread(client.create, plain(manifest))
    except Refusal:
        raise Skip("the local Argo refuses it") from None
    deadline = asyncio.get_running_loop().time() + SECONDS
    while not has_ended(workflow := await asyncio.to_thread(client.get, name)):
        if asyncio.get_running_loop().time() > deadline:
            await asyncio.to_thread(client.do, name, "terminate")
            raise Skip("it waits, or takes long")
        await asyncio.sleep(0.1)
    status = WorkflowStatus(workflow, EMPTY, {}, harness.repository)
    listed = list(status.steps())
    steps = {step.path: step.phase.name for step in listed}
    if len(steps) < len(listed):
        raise Skip("steps of two attempts of a retried template have the same path")
    return Outcome(status.phase.name, dict(status.outputs.parameters), steps)


def outcome_of(ended: FinishedRun) -> Outcome:
    """The outcome of a run through us. A loop without items is cached, as it has nothing to run; Argo skips it."""
    steps = {path: phase.upper() for path, phase in ended.phases.items()}
    for event in ended.finished:
        values = {parameter.value for parameter in event.outputs.parameters} | {event.outputs.result}
        if steps[event.step] == StepPhase.CACHED.name and values <= {"[]", ""} and "[]" in values:
            steps[event.step] = StepPhase.SKIPPED.name
    return Outcome(ended.run.phase.name, dict(ended.run.outputs.parameters), steps)


def as_run(outcome: Outcome) -> Outcome:
    """The outcome as if the cached steps had run."""
    succeeded, cached = StepPhase.SUCCEEDED.name, StepPhase.CACHED.name
    steps = {path: succeeded if phase == cached else phase for path, phase in outcome.steps.items()}
    return replace(outcome, steps=steps)


async def difference(harness: Harness, manifest: Json) -> str:
    """What differs between the plain run and the runs through us; empty if nothing does. Raises `Skip`."""
    if "random" in json.dumps(manifest).lower():
        raise Skip("it is random")
    expected = await run_plain(harness, manifest)
    if expected != await run_plain(harness, manifest):
        raise Skip("two plain runs of it differ")
    try:
        cold = await harness.run(manifest)
    except Invalid as error:
        return f"is refused: {error}"
    # Also of the first run steps can be cached: other manifests have the same.
    if as_run(outcome_of(cold)) != expected:
        return f"cold: {outcome_of(cold)} instead of {expected}"
    warm = await harness.run(manifest)
    found = outcome_of(warm)
    served = {path for path, phase in found.steps.items() if phase == StepPhase.CACHED.name}
    if as_run(found) != expected:
        return f"warm: {found} instead of {expected}"
    if warm.run.manifest:
        workflow = await harness.argo.get(warm.run.id)
        assert workflow is not None
        pods = set(WorkflowStatus(workflow, warm.run.state, {}, harness.repository).pod_steps().values())
        if served & pods:
            return f"warm: there are pods of hits: {sorted(served & pods)}"
    return ""


async def compare(harness: Harness, found: list[tuple[str, Json]]) -> tuple[Counter[str], list[str]]:
    """How many manifests have which outcome, and what differs."""
    create_templates(harness, [each for _, each in found if each.get("kind") in TEMPLATE_PATHS])
    counts, differences = Counter[str](), []
    places = asyncio.Semaphore(AT_A_TIME)

    async def one(name: str, manifest: Json, *, is_last: bool) -> tuple[str, Json] | None:
        """Compare one, and give it back if it did not end, which can be because of the others."""
        async with places:
            try:
                async with asyncio.timeout(5 * SECONDS):
                    differs = await difference(harness, manifest)
            except Skip as skip:
                counts[str(skip)] += 1
                return None
            except (TimeoutError, AssertionError) as error:
                if not is_last:
                    return name, manifest
                differs = f"did not end: {str(error)[:300]}"
        counts["differs" if differs else "is the same"] += 1
        if differs:
            differences.append(f"{name}: {differs}")
        return None

    workflows = [(name, each) for name, each in found if each.get("kind") == "Workflow"]
    slow = await asyncio.gather(*(one(name, each, is_last=False) for name, each in workflows))
    for again in filter(None, slow):
        await one(*again, is_last=True)
    return counts, differences


@pytest.mark.timeout(900)
async def test_recorded_manifests_have_the_same_outcome_through_us(harness: Harness) -> None:
    found = list(documents(RECORDED))
    templates = [each for each in found if each[1].get("kind") in TEMPLATE_PATHS]
    others = [each for each in found if each[1].get("kind") not in TEMPLATE_PATHS]
    counts, differences = await compare(harness, templates + others[::8])
    print(json.dumps(counts), *differences, sep="\n")
    assert differences == []
    assert counts["is the same"] >= 15


@pytest.mark.timeout(3600)
@pytest.mark.skipif(not FOREIGN, reason="PERIPLUS_FOREIGN_MANIFESTS names no folder with manifests of others")
@pytest.mark.parametrize("folder", FOREIGN, ids=lambda folder: folder.name)
async def test_manifests_of_others_have_the_same_outcome_through_us(harness: Harness, folder: Path) -> None:
    counts, differences = await compare(harness, list(documents(folder)))
    print(json.dumps(counts), *differences, sep="\n")
    assert differences == []
