"""What a resolved manifest needs from outside, and whether it is as it was."""

import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest
from manifests import PROCESSES

from periplus_common.errors import NotFound, Refused
from periplus_dispatcher.clients import MAX_DIGESTED_OBJECTS, CacheClient
from periplus_dispatcher.domain import RAW_CONTENT, ObjectContent, RecordedRun, RecordedStep, ResolvedImage
from periplus_dispatcher.manifest import read as manifests
from periplus_dispatcher.manifest.images import MAX_IMAGES
from periplus_dispatcher.manifest.uncacheable import StepEnvironment
from periplus_dispatcher.reproduce.needs import needs
from periplus_dispatcher.reproduce.one_step import one_step
from periplus_dispatcher.reproduce.requirements import (
    MAX_STEPS,
    NeededImage,
    NeededObject,
    Needs,
    Requirement,
    State,
    in_order,
    of_image,
    of_object,
    of_output,
)
from periplus_model.steps import Artifact, Inputs, ObjectRef, Outputs, StepPhase

Json = dict[str, Any]
DIGEST, OTHER = "sha256:" + "1" * 64, "sha256:" + "2" * 64
IMAGE = f"ghcr.io/team/train@{DIGEST}"


def workflow(*templates: Json, tasks: list[Json] | None = None, **spec: Any) -> Json:
    tasks = tasks or [{"name": template["name"], "template": template["name"]} for template in templates]
    main = {"name": "main", "dag": {"tasks": tasks}}
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"generateName": "x-"},
        "spec": {"entrypoint": "main", "templates": [main, *templates], **spec},
    }


def leaf(name: str = "a", **fields: Any) -> Json:
    container = {"image": IMAGE, "command": ["sh"], **fields.pop("container", {})}
    outputs = {"parameters": [{"name": "o", "valueFrom": {"path": "/o"}}]}
    return {"name": name, "container": container, "outputs": outputs, **fields}


def recorded(*steps: RecordedStep) -> RecordedRun:
    return RecordedRun(is_complete=True, steps=steps)


def ran(
    path: str = "a", phase: StepPhase = StepPhase.SUCCEEDED, *inputs: Artifact, **outputs: Any
) -> RecordedStep:
    return RecordedStep(path, path.partition("(")[0], phase, Inputs(artifacts=inputs), Outputs(**outputs))


def needed(manifest: Json, record: RecordedRun | None = None, earlier: Json | None = None) -> Needs:
    def expanded(of: Json) -> Any:
        return manifests.read(json.dumps(of), {}).expand(StepEnvironment())

    record = record or recorded(ran())
    return needs(manifest, {}, expanded(manifest), record, expanded(earlier or manifest).templates)


def others(manifest: Json, **more: Any) -> dict[str, tuple[str, str]]:
    return {each.name: (each.kind.name, each.state.name) for each in needed(manifest, **more).others}


def test_each_image_is_needed_by_the_steps_of_its_template_and_no_unused_one_is() -> None:
    manifest = workflow(leaf(), leaf("b"), leaf("never", container={"image": "unused"}), tasks=[
        {"name": "a", "template": "a"}, {"name": "b", "template": "b"},
    ])  # fmt: skip
    assert needed(manifest, recorded(ran("a"), ran("b"))).images == (NeededImage(IMAGE, ("a", "b")),)
    handled = workflow(
        leaf(),
        leaf("bye", container={"image": "handler"}),
        tasks=[{"name": "a", "template": "a"}],
        onExit="bye",
    )
    assert [each.image for each in needed(handled).images] == [IMAGE, "handler"]


@pytest.mark.parametrize(
    ("image", "found", "state"),
    [
        (IMAGE, ResolvedImage(IMAGE, DIGEST), State.MET),
        (IMAGE, ResolvedImage(IMAGE, reason="gone", is_absent=True), State.MISSING),
        (IMAGE, ResolvedImage(IMAGE, reason="not reached"), State.UNKNOWN),
        (IMAGE, None, State.UNKNOWN),
        ("python:3.11", ResolvedImage("python:3.11", DIGEST), State.UNKNOWN),
        ("localhost/x:1", None, State.UNKNOWN),
    ],
)
def test_only_what_a_registry_denies_is_missing(
    image: str, found: ResolvedImage | None, state: State
) -> None:
    assert of_image(NeededImage(image), found, ("localhost/",)).state is state


WITH_INPUT = leaf(inputs={"artifacts": [{"name": "data", "path": "/d", "s3": {"key": "datasets/x"}}]})
DATA, MADE = ObjectRef("datasets/x"), ObjectRef("projects/p/r/o")


def test_an_object_that_the_manifest_names_is_needed_with_the_digest_that_was_read() -> None:
    read = Artifact("data", DATA, DIGEST)
    assert needed(workflow(WITH_INPUT), recorded(ran("a", StepPhase.SUCCEEDED, read))).objects == (
        NeededObject(DATA, DIGEST, steps=("a",)),
    )
    # Of a cached step, the producer's digest counts for the object that this run names.
    elsewhere = Artifact("data", ObjectRef("datasets/y"), DIGEST)
    assert needed(workflow(WITH_INPUT), recorded(ran("a", StepPhase.CACHED, elsewhere))).objects == (
        NeededObject(DATA, DIGEST, steps=("a",)),
    )
    assert needed(workflow(WITH_INPUT), recorded(ran("a", StepPhase.SKIPPED))).objects == ()


def test_an_object_that_a_step_of_the_run_wrote_is_not_needed() -> None:
    made = Artifact("m", MADE, DIGEST)
    record = recorded(
        ran("a", artifacts=(made,)), ran("b", StepPhase.SUCCEEDED, made, Artifact("n", DATA, OTHER))
    )
    assert needed(workflow(leaf(), leaf("b")), record).objects == (NeededObject(DATA, OTHER, steps=("b",)),)


@pytest.mark.parametrize(
    ("digest", "ref", "found", "state"),
    [
        (DIGEST, DATA, ObjectContent(DIGEST), State.MET),
        (DIGEST, DATA, ObjectContent(OTHER), State.CHANGED),
        (DIGEST, DATA, ObjectContent(reason="none", is_absent=True), State.MISSING),
        (DIGEST, DATA, ObjectContent(reason="a bad archive"), State.UNKNOWN),
        ("", DATA, ObjectContent(DIGEST), State.UNKNOWN),
        (
            DIGEST,
            ObjectRef("k", "b", "elsewhere:9000"),
            ObjectContent(reason="none", is_absent=True),
            State.UNKNOWN,
        ),
    ],
)
def test_an_object_is_as_it_was_if_its_content_has_the_digest(
    digest: str, ref: ObjectRef, found: ObjectContent, state: State
) -> None:
    assert of_object(NeededObject(ref, digest), found).state is state


@pytest.mark.parametrize(
    ("digest", "found", "refuses"),
    [
        (DIGEST, ObjectContent(DIGEST), False),
        (DIGEST, ObjectContent(OTHER), True),
        (DIGEST, ObjectContent(is_absent=True), True),
        (DIGEST, ObjectContent(reason="not read"), True),
        ("", ObjectContent(DIGEST), True),
    ],
)
def test_a_rollback_promises_no_bytes_that_are_not_proven(
    digest: str, found: ObjectContent, refuses: bool
) -> None:
    assert of_output(Artifact("o", MADE, digest), found, ()).state.refuses is refuses


def test_sources_that_are_no_objects_are_listed_unless_a_commit_pins_them() -> None:
    def artifact(**source: Any) -> Json:
        return leaf(inputs={"artifacts": [{"name": "c", "path": "/c", **source}]})

    repo = "https://example.org/x.git"
    assert others(workflow(artifact(git={"repo": repo, "revision": "a" * 40}))) == {
        f"git {repo}": ("INPUT", "MET")
    }
    assert others(workflow(artifact(git={"repo": repo, "revision": "main"}))) == {
        f"git {repo}": ("INPUT", "UNKNOWN")
    }
    assert others(workflow(artifact(http={"url": "https://example.org"}))) == {"http c": ("INPUT", "UNKNOWN")}


def test_running_again_is_unsafe_where_it_changes_what_others_use() -> None:
    declared = leaf(metadata={"annotations": {"periplus.dev/side-effects": "true"}})
    assert others(workflow(declared)) == {"a": ("EFFECT", "UNSAFE")}
    created = {"name": "a", "resource": {"action": "create", "manifest": "{}"}}
    assert others(workflow(created)) == {"a": ("EFFECT", "UNSAFE")}

    def writing(key: str) -> Json:
        return workflow(leaf(outputs={"artifacts": [{"name": "m", "path": "/m", "s3": {"key": key}}]}))

    assert others(writing("models/latest")) == {"a: models/latest": ("EFFECT", "UNSAFE")}
    assert others(writing("models/{{workflow.name}}")) == {}


def test_a_secret_whose_version_was_not_recorded_and_a_template_that_was_not_stored_are_listed() -> None:
    env = [{"name": "T", "valueFrom": {"secretKeyRef": {"name": "token", "key": "t"}}}]
    assert others(workflow(leaf(container={"env": env}))) == {"Secret/token/t": ("SECRET", "UNKNOWN")}
    call = {"name": "a", "templateRef": {"name": "lib", "template": "t"}}
    assert others(workflow(leaf(), tasks=[call])) == {"lib/t": ("TEMPLATE", "UNKNOWN")}


def test_what_refuses_comes_first() -> None:
    from periplus_dispatcher.reproduce.requirements import Kind

    found = in_order(Requirement(Kind.INPUT, state.name, state) for state in State)
    assert [each.state.refuses for each in found] == [True, True, True, False, False]


def test_one_step_has_the_inputs_that_it_had() -> None:
    template = leaf(inputs={"parameters": [{"name": "p"}], "artifacts": [{"name": "data", "path": "/d"}]})
    given = {
        "parameters": [{"name": "p", "value": "{{workflow.parameters.p}}"}],
        "artifacts": [{"name": "data", "raw": {"data": "x"}}],
    }
    task = {"name": "a", "template": "a", "arguments": given}
    own = {"parameters": [{"name": "p", "value": "other"}]}
    manifest = workflow(template, leaf("bye"), tasks=[task], arguments=own, onExit="bye")
    step = RecordedStep(
        "main.a(1)", "a", StepPhase.SUCCEEDED, Inputs({"p": "7"}, (Artifact("data", MADE, DIGEST),))
    )
    found, record = one_step(manifest, recorded(step, ran("b")), "main.a(1)")
    (call,) = found["spec"]["templates"][0]["steps"][0]
    assert call["arguments"] == {
        "parameters": [{"name": "p", "value": "7"}],
        "artifacts": [{"name": "data", "s3": {"key": MADE.key}}],
    }
    assert "onExit" not in found["spec"]
    assert [each.path for each in record.steps] == ["step"]
    assert manifests.read(json.dumps(found), {}).expand(PROCESSES).calls[-1].template == "a"
    with pytest.raises(NotFound):
        one_step(manifest, recorded(step), "main.b")
    tagged = RecordedStep("a", "a", StepPhase.SUCCEEDED, Inputs({"p": "{{x}}"}))
    for bad in (ran("a"), ran("a", StepPhase.SKIPPED), tagged):
        with pytest.raises(Refused):
            one_step(manifest, recorded(bad), "a")


def test_the_bounds_are_published() -> None:
    section = (
        (Path(__file__).parents[3] / "docs" / "limits.md")
        .read_text()
        .partition("## Reproductions and rollbacks")[2]
    )
    bounds = [int(row.replace(",", "")) for row in re.findall(r"^\|[^|]*\| ([\d,]+)", section, re.MULTILINE)]
    assert bounds[:3] == [MAX_STEPS, MAX_IMAGES, MAX_DIGESTED_OBJECTS]
    assert f"| {inspect.signature(CacheClient).parameters['read_timeout'].default.seconds} s |" in section


def test_an_input_whose_content_is_in_the_manifest_needs_no_object() -> None:
    raw = Artifact("text", RAW_CONTENT, digest=DIGEST)
    read = Artifact("data", ObjectRef("data.csv"), digest=OTHER)
    record = recorded(ran("a", StepPhase.SUCCEEDED, raw, read))
    assert [each.ref for each in needed(workflow(leaf()), record).objects] == [ObjectRef("data.csv")]
