"""The decision about a Workflow that others create: what is changed of it, that nothing else is, and what it carries."""

import asyncio
import base64
import copy
import json
import zlib
from typing import Any

import pytest
from admitted import admission, admitted, observation, patched
from fakes import MemoryCache, MemoryTemplates
from hypothesis import given, settings
from manifests import dag, hit, say, shows, task, workflow
from test_library import template as library
from test_templates_stay import cases

from periplus_common.errors import Invalid
from periplus_dispatcher.admission import Validation
from periplus_dispatcher.domain import TemplateRole
from periplus_dispatcher.manifest import rewritten
from periplus_dispatcher.manifest.rewritten import ANNOTATION, REWRITTEN_LABEL, Rewrite
from periplus_manifest.check import check
from periplus_model.queries import StepVerdict
from periplus_model.steps import CacheMode, Verdict

Json = dict[str, Any]


class Verdicts:
    """A cache with the same verdict for each step, or one by the step's path."""

    def __init__(self, *, default: StepVerdict, **by_step: StepVerdict) -> None:
        self.default, self.by_step = default, by_step
        self.modes: list[CacheMode | None] = []

    async def resolve(
        self,
        project: str,
        run: str,
        cache_mode: CacheMode | None,
        templates: Any,
        queries: Any,
        code_index: Any,
    ) -> dict[str, StepVerdict]:
        self.modes.append(cache_mode)
        return {query.id: self.by_step.get(query.id, self.default) for query in queries}


UNKNOWN, MISS = (StepVerdict("", verdict, "") for verdict in (Verdict.UNKNOWN, Verdict.MISS))
PARTLY = {"a": hit(o="1"), "b": UNKNOWN}


def pipeline(**metadata: Any) -> Json:
    made = workflow(
        dag(
            task("a", "a", given={"x": "{{workflow.parameters.p}}"}),
            task("b", "b", given={"x": "{{tasks.a.outputs.parameters.o}}"}, depends="a"),
            outputs=shows("tasks.b.outputs.parameters.o"),
        ),
        say("a", "a$x", "x"), say("b", "b$x", "x"), parameters={"p": "1"},
    )  # fmt: skip
    made["metadata"] = {"generateName": "others-", **metadata}
    return made


async def test_a_workflow_is_rewritten_and_carries_what_its_run_is_followed_with() -> None:
    before = pipeline(annotations={"who": "me"})
    created, answer = await admitted(admission(Verdicts(default=MISS, **PARTLY)), before)
    check({key: created[key] for key in ("apiVersion", "kind", "metadata", "spec")})
    assert answer.warnings == ()
    assert created["metadata"]["labels"] == {REWRITTEN_LABEL: "true"}
    assert created["metadata"]["annotations"].keys() == {"who", ANNOTATION}
    assert created["metadata"]["generateName"] == "others-"
    assert [t["template"] for t in created["spec"]["templates"][0]["dag"]["tasks"]] == ["a--hit", "b--cached"]
    assert created["spec"]["templates"][1:3] == before["spec"]["templates"][1:3]
    carried = rewritten.decode(created["metadata"]["annotations"][ANNOTATION])
    assert carried.source == before["spec"]
    assert {node.path: node.verdict for node in carried.nodes} == {"a": Verdict.HIT, "b": Verdict.UNKNOWN}
    assert carried.state.resolved["a"].outputs == PARTLY["a"].outputs
    assert carried.state.generated["b--gate"].role is TemplateRole.GATE
    assert carried.fits(created["spec"])


async def test_the_same_object_has_the_same_answer_and_is_not_changed_and_what_was_rewritten_is_left_alone() -> (
    None
):
    asked, before = admission(Verdicts(default=MISS, **PARTLY)), pipeline(labels={"a/b~c": "1"})
    given = copy.deepcopy(before)
    first, second = await asked.admit(given, "argo"), await asked.admit(given, "argo")
    assert given == before
    assert json.dumps(first.patch) == json.dumps(second.patch)
    again = await asked.admit(patched(before, first.patch), "argo")
    assert (again.patch, again.warnings) == ((), ())


async def test_a_workflow_none_of_whose_steps_is_known_keeps_its_spec_and_carries_its_keys() -> None:
    before = pipeline()
    created, answer = await admitted(admission(Verdicts(default=MISS)), before)
    assert {operation["path"] for operation in answer.patch} == {"/metadata/labels", "/metadata/annotations"}
    assert created["spec"] == before["spec"]
    carried = rewritten.decode(created["metadata"]["annotations"][ANNOTATION])
    assert (carried.state.generated, set(carried.state.templates)) == ({}, {"a", "b"})
    assert {node.verdict for node in carried.nodes} == {Verdict.MISS}


async def test_a_workflow_none_of_whose_steps_can_be_cached_is_left_as_it_is() -> None:
    made = pipeline(annotations={"periplus.dev/side-effects": "true"})
    assert (await admission(Verdicts(default=MISS)).admit(made, "argo")).patch == ()


@settings(max_examples=60, deadline=None)
@given(cases())
def test_templates_of_the_user_are_no_part_of_the_patch(
    case: tuple[Json, Json, dict[str, StepVerdict]],
) -> None:
    before, library_template, verdicts = case
    before["spec"]["templates"][1]["nodeSelector"] = None  # Kubernetes keeps it, and Argo reads it as absent
    cache = Verdicts(default=UNKNOWN, **verdicts)
    asked = admission(cache, MemoryTemplates({("lib", False): library_template}))
    created, answer = asyncio.run(admitted(asked, before))
    own = before["spec"]["templates"][1:]
    assert json.dumps(created["spec"]["templates"][1 : 1 + len(own)]) == json.dumps(own)
    named = {operation["path"] for operation in answer.patch}
    assert not named & {f"/spec/templates/{index + 1}" for index in range(len(own))}


async def test_library_templates_are_copied_and_images_stay_as_they_are() -> None:
    made = pipeline()
    made["spec"] = {"workflowTemplateRef": {"name": "lib"}, "arguments": made["spec"]["arguments"]}
    of = library("lib", *pipeline()["spec"]["templates"], entrypoint="main")
    asked = admission(Verdicts(default=MISS, **PARTLY), MemoryTemplates({("lib", False): of}))
    created, _ = await admitted(asked, made)
    assert "workflowTemplateRef" not in created["spec"]
    assert created["metadata"]["labels"]["workflows.argoproj.io/workflow-template"] == "lib"
    carried = rewritten.decode(created["metadata"]["annotations"][ANNOTATION])
    assert carried.fits(created["spec"])


@pytest.mark.parametrize(
    ("metadata", "namespace", "says"),
    [
        ({"labels": {"periplus.dev/managed": "true"}}, "argo", ""),
        ({"labels": {REWRITTEN_LABEL: "true"}}, "argo", ""),
        ({"labels": {"periplus.dev/project": "other"}}, "argo", "are not observed"),
        ({}, "elsewhere", "are not observed"),
        ({}, "", "are not observed"),
    ],
)
async def test_what_is_not_followed_is_not_rewritten(metadata: Json, namespace: str, says: str) -> None:
    answer = await admission(Verdicts(default=UNKNOWN)).admit(pipeline(**metadata), namespace)
    assert answer.patch == ()
    assert [says in warning for warning in answer.warnings] == ([True] if says else [])


async def test_only_workflows_with_the_label_of_the_observed_are_rewritten() -> None:
    asked = admission(Verdicts(default=UNKNOWN), observed=observation("argo=default", "team=ml"))
    assert (await asked.admit(pipeline(), "argo")).patch == ()
    assert (await asked.admit(pipeline(labels={"team": "ml"}), "argo")).patch


@pytest.mark.parametrize(("recorded", "mode"), [(["default"], None), ([], CacheMode.READ)])
async def test_a_project_whose_observed_results_are_not_recorded_may_still_be_served(
    recorded: list[str], mode: CacheMode | None
) -> None:
    cache = Verdicts(default=UNKNOWN)
    asked = admission(cache, observed=observation("argo=default", recorded=recorded))
    assert (await asked.admit(pipeline(), "argo")).patch
    assert cache.modes == [mode]


async def test_a_cache_that_does_not_answer_costs_the_budget_and_the_workflow_runs_as_it_is() -> None:
    asked = admission(MemoryCache(release=asyncio.Event()), seconds=0.05)
    answer = await asked.admit(pipeline(), "argo")
    assert (answer.patch, answer.refusal) == ((), None)
    assert answer.warnings == (
        "every step runs, and none is served from the cache: the cache was not asked within 0.05 s",
    )


async def test_of_too_many_at_the_same_time_some_run_as_they_are_at_once() -> None:
    cache = MemoryCache(release=asyncio.Event())
    asked = admission(cache)
    first = [asyncio.create_task(asked.admit(pipeline(), "argo")) for _ in range(32)]
    await asyncio.sleep(0)
    answer = await asked.admit(pipeline(), "argo")
    assert answer.warnings == (
        "every step runs, and none is served from the cache: too many Workflows are created at the same time",
    )
    assert cache.release is not None
    cache.release.set()
    await asyncio.gather(*first)
    assert (await asked.admit(pipeline(), "argo")).warnings == ()


@pytest.mark.parametrize("cache", [MemoryCache(is_unreachable=True), object()])
async def test_whatever_fails_the_workflow_runs_as_it_is(cache: Any) -> None:
    answer = await admission(cache).admit(pipeline(), "argo")
    assert answer.refusal is None
    assert not any(operation["path"].startswith("/spec") for operation in answer.patch)
    assert answer.warnings


@pytest.mark.parametrize("validation", list(Validation))
@pytest.mark.parametrize("namespace", ["argo", "elsewhere"])
async def test_a_workflow_that_argo_would_end_is_refused_or_warned_about_with_the_field(
    validation: Validation, namespace: str
) -> None:
    made = pipeline()
    made["spec"]["templates"][0]["dag"]["tasks"][1]["template"] = "nothing"
    answer = await admission(validation=validation).admit(made, namespace)
    field, message = "spec.templates[0].dag.tasks[1].template", "template name 'nothing' undefined"
    assert answer.patch == ()
    if validation is Validation.REFUSE:
        assert answer.refusal is not None
        assert (answer.refusal.field, answer.refusal.message) == (field, message)
    else:
        assert answer.refusal is None
        assert any(f"{field}: {message}" in w for w in answer.warnings) is (validation is Validation.WARN)


async def test_what_only_periplus_refuses_is_not_refused() -> None:
    made = pipeline()
    made["spec"]["templates"][1]["metadata"] = {"annotations": {"periplus.dev/ttl": "soon"}}
    answer = await admission(validation=Validation.REFUSE).admit(made, "argo")
    assert (answer.refusal, answer.patch) == (None, ())
    assert "periplus.dev/ttl" in answer.warnings[0]


async def test_a_workflow_whose_annotations_would_be_too_large_runs_as_it_is() -> None:
    made = pipeline(annotations={"notes": "x" * (255 << 10)})
    answer = await admission(Verdicts(default=MISS, **PARTLY)).admit(made, "argo")
    assert answer.patch == ()
    assert "annotations" in answer.warnings[0]


async def made_rewrite() -> tuple[Json, Rewrite]:
    created, _ = await admitted(admission(Verdicts(default=MISS, **PARTLY)), pipeline())
    return created, rewritten.decode(created["metadata"]["annotations"][ANNOTATION])


async def test_the_spec_as_argo_writes_it_is_the_spec_that_was_rewritten() -> None:
    created, carried = await made_rewrite()
    spec = copy.deepcopy(created["spec"])
    for each in spec["templates"]:
        each |= {"metadata": {}, "outputs": each.get("outputs") or {}, "inputs": each.get("inputs") or {}}
        if "container" in each:
            each["container"] |= {"name": "", "resources": {}}
        for name in ("inputs", "outputs"):
            each[name] = {key: value for key, value in each[name].items() if value}
    assert carried.fits(spec)


@pytest.mark.parametrize("field", ["args", "image", "template", "parameter"])
async def test_after_another_change_of_the_spec_nothing_is_served_or_recorded(field: str) -> None:
    created, carried = await made_rewrite()
    spec = created["spec"]
    if field == "parameter":
        spec["arguments"]["parameters"][0]["value"] = "2"
    elif field == "template":
        spec["templates"][0]["dag"]["tasks"][0]["template"] = "b"
    else:
        spec["templates"][1]["container"][field] = ["other"] if field == "args" else "other"
    assert not carried.fits(spec)


def packed(value: Any) -> str:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.b64encode(zlib.compress(text)).decode()


async def test_a_rewrite_that_is_not_ours_is_refused_with_its_field() -> None:
    created, _ = await made_rewrite()
    good = json.loads(zlib.decompress(base64.b64decode(created["metadata"]["annotations"][ANNOTATION])))
    other_gate = copy.deepcopy(good)
    other_gate["state"]["generated"]["b--gate"]["template"] = "c"
    for text in (
        "", "x", "é", "aGVsbG8=", "A" * (rewritten.MAX_ANNOTATION_BYTES + 4), packed([]), packed({}), packed(b"["),
        packed(b"[" * 100_000), packed({**good, "version": 2}), packed({**good, "state": {}}), packed(other_gate),
        packed(b" " * (rewritten.MAX_CARRIED_BYTES + 1)), packed({**good, "nodes": [1]}),
    ):  # fmt: skip
        with pytest.raises(Invalid) as raised:
            rewritten.decode(text)
        assert raised.value.field == f"metadata.annotations['{ANNOTATION}']"
        assert rewritten.read({"name": "w", "annotations": {ANNOTATION: text}}) is None
