"""Images by tag: in the key and in the submitted workflow they are named by digest, or their steps are not cached."""

import json
from dataclasses import dataclass, field, replace

import pytest
from fakes import MemoryCache, MemorySnapshotter, MemoryTemplates
from manifests import ANY_KEYS, dag, say, task, workflow

from periplus_common.errors import Unavailable
from periplus_dispatcher.domain import ResolvedImage, RunRequest
from periplus_dispatcher.manifest import read
from periplus_dispatcher.manifest.images import ImagePolicy, pin, to_resolve
from periplus_dispatcher.manifest.uncacheable import StepEnvironment
from periplus_dispatcher.planner import PlannedRun, Planner
from periplus_model.steps import Verdict

IMAGES = StepEnvironment(immutable_image_prefixes=("localhost/",))
DIGEST = "sha256:" + "d" * 64


@dataclass
class Registry(MemorySnapshotter):
    """A snapshotter that knows the digests of some tags."""

    digests: dict[str, str] = field(default_factory=dict)
    asked: list[list[str]] = field(default_factory=list)
    is_away: bool = False

    async def resolve_images(self, project, images):
        if self.is_away:
            raise Unavailable("the snapshotter can not be reached")
        self.asked.append(list(images))
        return [self._resolved(image) for image in images]

    def _resolved(self, image: str) -> ResolvedImage:
        digest = self.digests.get(image, "")
        if not digest:
            return ResolvedImage(image, reason="the registry has no such tag", fix="push it")
        return ResolvedImage(image, digest, f"{image.partition(':')[0]}@{digest}")


def with_image(image: str, name: str = "main", **more):
    template = say(name, "x")
    template["container"] |= {"image": image, **more}
    return template


async def plan(
    registry: Registry, manifest, policy: ImagePolicy = ImagePolicy.PIN, **parameters: str
) -> PlannedRun:
    planner = Planner(MemoryCache(), registry, MemoryTemplates(), IMAGES, ANY_KEYS, image_policy=policy)
    return await planner.plan(RunRequest("p", json.dumps(manifest), parameters))


def verdict(planned: PlannedRun) -> tuple[Verdict, str]:
    found = planned.plan.steps[-1].verdict
    return found.verdict, found.reason


async def test_an_image_that_moved_under_its_tag_is_another_key_and_one_that_was_moved_back_the_same():
    registry = Registry()
    documents = []
    for letter in "aba":
        registry.digests = {"python:3.11": f"sha256:{letter * 64}"}
        planned = await plan(registry, workflow(with_image("python:3.11")))
        assert verdict(planned)[0] is Verdict.MISS
        documents.append(planned.expanded.templates["main"].step.document)
    assert documents[0] == documents[2] != documents[1]


async def test_the_key_of_a_tag_is_that_of_its_digest_written_by_hand():
    by_tag = await plan(Registry(digests={"python:3.11": DIGEST}), workflow(with_image("python:3.11")))
    by_hand = await plan(Registry(), workflow(with_image(f"python@{DIGEST}")))
    assert by_tag.expanded.templates == by_hand.expanded.templates


async def test_the_submitted_workflow_names_the_digest_and_is_the_users_in_everything_else():
    manifest = workflow(
        dag(task("a", "a"), task("b", "b")),
        with_image("python:3.11", "a"),
        with_image("unknown:1", "b") | {"sidecars": [{"name": "s", "image": "redis"}], "initContainers": [{"name": "i", "image": "python:3.11"}]},
        templateDefaults={"container": {"image": "busybox:1"}},
    )  # fmt: skip
    registry = Registry(digests={"python:3.11": DIGEST, "busybox:1": DIGEST})
    planned = await plan(registry, manifest)
    text = (
        json.dumps(manifest)
        .replace('"python:3.11"', f'"python@{DIGEST}"')
        .replace('"busybox:1"', f'"busybox@{DIGEST}"')
    )
    assert planned.manifest == json.loads(text)
    assert registry.asked == [["python:3.11", "unknown:1", "redis", "busybox:1"]]
    (warning,) = [each for each in planned.warnings if "pinned" in each]
    assert f"python:3.11 to {DIGEST}" in warning


async def test_an_image_without_a_digest_is_submitted_as_it_is_and_its_step_is_not_cached_with_the_reason():
    manifest = workflow(with_image("python:3.11"))
    planned = await plan(Registry(), manifest)
    kind, reason = verdict(planned)
    assert kind is Verdict.UNCACHEABLE
    assert reason == (
        "UNPINNED: its image python:3.11 can change under its tag, and the registry has no such tag (push it): pin it "
        "(python:3.11@sha256:…), or name its prefix in DISPATCHER_IMMUTABLE_IMAGE_PREFIXES"
    )
    assert planned.manifest == manifest


async def test_without_a_snapshotter_the_run_goes_on_and_its_steps_are_not_cached():
    planned = await plan(Registry(is_away=True), workflow(with_image("python:3.11")))
    kind, reason = verdict(planned)
    assert kind is Verdict.UNCACHEABLE
    assert "the snapshotter can not be reached" in reason


@pytest.mark.parametrize(
    ("image", "more"),
    [
        ("localhost/lib:latest", {}),  # which a setting trusts
        (f"python@{DIGEST}", {}),
        (f"python:3.11@{DIGEST}", {}),
        ("{{inputs.parameters.image}}", {}),
        ("localhost:5000/lib:1", {"imagePullPolicy": "Never"}),
    ],
)
async def test_a_registry_is_not_asked_where_it_could_say_nothing(image: str, more):
    registry = Registry()
    inputs = {"parameters": [{"name": "image", "default": "x"}]}
    manifest = workflow(with_image(image, **more) | {"inputs": inputs})
    assert (await plan(registry, manifest)).manifest == manifest
    assert registry.asked == []


async def test_an_image_of_a_parameter_of_the_workflow_is_pinned_with_its_value():
    registry = Registry(digests={"python:3.12": DIGEST})
    manifest = workflow(with_image("python:{{workflow.parameters.v}}"), parameters={"v": "3.11"})
    planned = await plan(registry, manifest, v="3.12")
    assert registry.asked == [["python:3.12"]]
    assert planned.manifest["spec"]["templates"][0]["container"]["image"] == f"python@{DIGEST}"


async def test_with_the_policy_off_no_registry_is_asked():
    registry = Registry(digests={"python:3.11": DIGEST})
    planned = await plan(registry, workflow(with_image("python:3.11")), ImagePolicy.OFF)
    assert registry.asked == []
    assert verdict(planned)[0] is Verdict.UNCACHEABLE


async def test_an_image_is_asked_for_once_however_many_steps_have_it():
    calls = [task(f"t{n}", f"t{n}") for n in range(50)]
    manifest = workflow(dag(*calls), *(with_image("python:3.11", f"t{n}") for n in range(50)))
    registry = Registry(digests={"python:3.11": DIGEST})
    await plan(registry, manifest)
    assert registry.asked == [["python:3.11"]]


def test_a_manifest_without_images_to_pin_stays_as_it_is():
    checked = read.read(json.dumps(workflow(with_image("localhost/x"))), {})
    assert to_resolve(checked, IMAGES) == []
    assert pin(checked, IMAGES, []) is checked
    unknown = [ResolvedImage("python:3.11", reason="no")]
    assert pin(replace(checked), IMAGES, unknown) == checked
