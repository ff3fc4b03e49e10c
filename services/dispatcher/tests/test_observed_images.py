"""Images by tag of Workflows that others submitted: the keys of their steps have the digests that their pods ran."""

import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from dispatcher_harness import FinishedRun, Harness
from fakes import MemoryCache, MemoryTemplates
from manifests import ANY_KEYS, dag, say, task, workflow
from test_images import DIGEST, Registry
from test_observing import ended, id_of, observation, observing, submitted
from test_pod_images import OTHER, NodePods

from periplus_dispatcher.domain import (
    ContainerImage,
    ContainerTemplate,
    ObservedWorkflow,
    Run,
    RunRequest,
    RunState,
    StepStatus,
)
from periplus_dispatcher.follow.images import NOT_SEEN, SeenImages, check_images
from periplus_dispatcher.manifest import read as manifests
from periplus_dispatcher.manifest.images import ImagePolicy
from periplus_dispatcher.manifest.uncacheable import StepEnvironment
from periplus_dispatcher.planner import Planner
from periplus_model.steps import StepPhase

Json = dict[str, Any]
OBSERVED = StepEnvironment(images_are_seen=True)


def manifest(text: str) -> Json:
    template = say("a", text)
    template["container"]["image"] = "python:3.11"
    return workflow(dag(task("a", "a")), template)


@asynccontextmanager
async def seeing(harness: Harness, pods: NodePods | None) -> AsyncIterator[Harness]:
    environment = OBSERVED if pods is not None else StepEnvironment()
    started = await observing(
        replace(harness, pods=pods), observation("argo=default"), environment=environment
    )
    try:
        yield started
    finally:
        await started.crash()


async def observed(harness: Harness, found: Json, pods: NodePods | None) -> tuple[str, str]:
    """The document of the step of an observed Workflow, and why it can not be cached."""
    async with seeing(harness, pods) as started:
        run: FinishedRun = await ended(started, id_of(submitted(harness, found)))
    (event,) = run.finished
    return event.template.document, event.template.uncacheable_reason


async def own(found: Json, digest: str) -> str:
    """The document of the step if Periplus runs it while the tag points to a digest."""
    registry = Registry(digests={"python:3.11": digest})
    planner = Planner(
        MemoryCache(), registry, MemoryTemplates(), StepEnvironment(), ANY_KEYS, image_policy=ImagePolicy.PIN
    )
    planned = await planner.plan(RunRequest("p", json.dumps(found), {}))
    assert planned.expanded.templates["a"].step.uncacheable_reason == ""
    return planned.expanded.templates["a"].step.document


async def test_the_key_of_an_observed_step_with_a_tag_is_that_of_a_run_of_periplus_with_what_its_pod_ran(
    harness: Harness,
) -> None:
    found = manifest(uuid.uuid4().hex)
    for digest in (DIGEST, OTHER):
        document, reason = await observed(harness, found, NodePods(harness, "python:3.11", digest))
        assert (document, reason) == (await own(found, digest), "")
    assert await own(found, DIGEST) != await own(found, OTHER)


@pytest.mark.parametrize("gone", [{"are_deleted": True}, {"is_away": True}, {"digest": ""}])
async def test_an_observed_step_whose_pod_was_not_seen_is_not_cached(harness: Harness, gone: Json) -> None:
    _, reason = await observed(harness, manifest("gone"), NodePods(harness, "python:3.11", **gone))
    assert reason == NOT_SEEN


async def test_without_the_kubernetes_api_an_image_by_tag_is_the_reason(harness: Harness) -> None:
    _, reason = await observed(harness, manifest("no api"), None)
    assert reason.startswith("UNPINNED: its image python:3.11 can change under its tag")


def image(letter: str) -> str:
    return "sha256:" + letter * 64


async def seen_document(template: Json, spec: Json, images: dict[str, str]) -> tuple[Json, str]:
    found = workflow(template, **spec)
    described: ContainerTemplate = manifests.read(json.dumps(found), {}).expand(OBSERVED).templates["a"]
    run = Run("p", "w@1", "r", "d", "w", None, "{}", RunState({"a": described}), "", None, None,  # type: ignore[arg-type]
              observed=ObservedWorkflow("ml", "w", "u"))  # fmt: skip
    asked = []

    class ListedPods:
        async def list_images(self, *place: str) -> dict[str, tuple[ContainerImage, ...]]:
            asked.append(place)
            return {"n": tuple(ContainerImage(name, "x", digest) for name, digest in images.items())}

    step = StepStatus("a", StepPhase.SUCCEEDED, "a", pod="n")
    (checked,) = await check_images(run, [step], ListedPods(), SeenImages(), "argo")
    assert asked in ([("ml", "w")], [])
    return json.loads(checked.document or described.step.document), (
        checked.uncacheable_reason or described.step.uncacheable_reason
    )


async def test_each_container_of_the_pod_has_its_own_digest_in_the_key() -> None:
    template = say("a", "x") | {
        "sidecars": [{"name": "s", "image": "redis:7"}],
        "initContainers": [
            {"name": "i", "image": "registry:5000/init:1"},
            {"name": "j", "image": f"b@{image('9')}"},
        ],
    }
    template["container"] |= {"image": "python:3.11"}
    spec = {"templateDefaults": {"container": {"image": "unused:1"}}}
    digests = {"main": image("1"), "s": image("2"), "i": image("3"), "j": image("9")}
    document, reason = await seen_document(template, spec, digests)
    assert reason == ""
    assert document["container"]["image"] == f"python@{image('1')}"
    assert document["sidecars"][0]["image"] == f"redis@{image('2')}"
    assert [c["image"] for c in document["initContainers"]] == [
        f"registry:5000/init@{image('3')}",
        f"b@{image('9')}",
    ]
    del digests["s"]
    assert (await seen_document(template, spec, digests))[1] == NOT_SEEN


async def test_an_image_of_the_defaults_and_one_of_a_patch() -> None:
    template = say("a", "x")
    del template["container"]["image"]
    spec: Json = {"templateDefaults": {"container": {"image": "python:3.11"}}}
    document, reason = await seen_document(template, spec, {"main": image("1")})
    assert (document["common"]["defaults"]["container"]["image"], reason) == (f"python@{image('1')}", "")
    spec["podSpecPatch"] = json.dumps({"containers": [{"name": "main", "image": "other:1"}]})
    assert "UNPINNED: its image other:1" in (await seen_document(template, spec, {"main": image("1")}))[1]
