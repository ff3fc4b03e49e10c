"""Adopt and release WorkflowTemplates and CronWorkflows: what is changed of them, and that they become what they were."""

import copy
import json
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from admitted import admission, admitted, observation
from dispatcher_harness import Harness
from hypothesis import given, settings
from hypothesis import strategies as st
from manifests import PROCESSES, dag, gives, say, sh, shows, steps, task, workflow
from test_admitted_runs import RECORDED, pods
from test_observing import ended, id_of, observing, submitted
from test_stretch_runs import gates_of
from test_templates_stay import NAMES, bodies

from periplus.types.v1 import step_pb2
from periplus_common.errors import Conflict, Invalid, NotFound, Refused
from periplus_dispatcher.manifest.rewritten import ANNOTATION, REWRITTEN_LABEL, released
from periplus_dispatcher.observed.namespaces import Observation
from periplus_dispatcher.template_adoption import AdoptedTemplate, TemplateAdoption, TemplateKind
from periplus_manifest.check import check
from periplus_model.steps import RunPhase, Verdict

Json = dict[str, Any]
TEMPLATE, CRON = TemplateKind.WORKFLOW_TEMPLATE, TemplateKind.CRON_WORKFLOW


@dataclass
class MemoryObjects:
    """Objects by kind and name, as Kubernetes stores them."""

    objects: dict[tuple[str, str], Json] = field(default_factory=dict)
    writes: int = 0

    async def read(self, kind: str, name: str) -> Json | None:
        return copy.deepcopy(self.objects.get((kind, name)))

    async def replace(self, kind: str, found: Json) -> None:
        stored = self.objects[kind, found["metadata"]["name"]]
        if stored["metadata"]["resourceVersion"] != found["metadata"]["resourceVersion"]:
            raise Conflict("was changed meanwhile")
        self.writes += 1
        metadata = {**found["metadata"], "resourceVersion": str(self.writes + 1)}
        self.objects[kind, found["metadata"]["name"]] = {**copy.deepcopy(found), "metadata": metadata}

    def spec(self, kind: str, name: str) -> Json:
        found: Json = self.objects[kind, name]["spec"]
        return found


def wf_template(spec: Json, **metadata: Any) -> Json:
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "WorkflowTemplate",
        "metadata": {"name": "train", "namespace": "argo", "resourceVersion": "1", **metadata},
        "spec": spec,
    }


def cron(spec: Json, **more: Any) -> Json:
    return {**wf_template({"schedules": ["0 1 * * *"], "workflowSpec": spec, **more}), "kind": "CronWorkflow"}


def pipeline(mark: str = "") -> Json:
    """The spec of `up`, `a`, `b` in a chain, a fan-out, and a container that uses the workflow's parameter."""
    spec: Json = workflow(
        dag(
            task("up", "up", given={"p": "{{workflow.parameters.p}}"}),
            task("a", "t", given={"x": "{{tasks.up.outputs.parameters.o}}", "n": "a"}, depends="up"),
            task("f", "t", given={"x": "{{item}}", "n": "f"}, withParam="{{workflow.parameters.items}}", depends="a"),
            task("u", "u", depends="a", when="{{workflow.parameters.p}} != 9"),
            outputs=shows("tasks.u.outputs.parameters.o"),
        ),
        say("up", f"{mark}$p", "p"), say("t", "$x$n", "x", "n"),
        sh("u", "printf %s '{{workflow.parameters.p}}-{{workflow.parameters.items}}' > /tmp/o", outputs=gives("o")),
        parameters={"p": "1", "items": '["x","y"]'},
    )["spec"]  # fmt: skip
    return spec


def adoption(found: MemoryObjects, observed: Observation | None = None) -> TemplateAdoption:
    observed = observed or RECORDED
    return TemplateAdoption(
        dict.fromkeys(observed.namespaces, found), observed, PROCESSES, timedelta(seconds=30)
    )


def stored(*objects: Json) -> MemoryObjects:
    return MemoryObjects({(each["kind"], each["metadata"]["name"]): each for each in objects})


async def adopted(found: MemoryObjects, kind: TemplateKind = TEMPLATE, **more: Any) -> AdoptedTemplate:
    return await adoption(found).adopt("default", "", kind, "train", **{"validate_only": False} | more)


async def let_go(found: MemoryObjects, kind: TemplateKind = TEMPLATE, **more: Any) -> AdoptedTemplate:
    return await adoption(found).release("default", "", kind, "train", **{"validate_only": False} | more)


@pytest.mark.parametrize(
    ("kind", "made"),
    [
        (TEMPLATE, wf_template(pipeline())),
        (
            TEMPLATE,
            wf_template({**pipeline(), "workflowMetadata": {"labels": {"team": "ml"}, "annotations": {}}}),
        ),
        (CRON, cron(pipeline())),
        (CRON, cron(pipeline(), workflowMetadata={})),
        (CRON, cron(pipeline(), workflowMetadata={"annotations": {"a": "b"}})),
    ],
)
async def test_an_adopted_template_is_released_as_it_was(kind: TemplateKind, made: Json) -> None:
    found = stored(copy.deepcopy(made))
    done = await adopted(found, kind)
    assert done.is_changed
    assert found.spec(kind, "train") == done.after["spec"] != made["spec"]
    back = await let_go(found, kind)
    assert json.dumps(found.spec(kind, "train"), sort_keys=True) == json.dumps(made["spec"], sort_keys=True)
    assert back.is_changed
    assert not (await let_go(found, kind)).is_changed
    assert found.writes == 2


async def test_every_cacheable_step_is_behind_a_gate_and_the_templates_stay() -> None:
    made = wf_template(pipeline())
    found = stored(copy.deepcopy(made))
    done = await adopted(found)
    spec = found.spec(TEMPLATE, "train")
    own = made["spec"]["templates"]
    assert spec["templates"][: len(own)] == own
    assert spec["entrypoint"] == "main--call"
    assert spec["arguments"] == made["spec"]["arguments"]
    main = next(each for each in spec["templates"] if each["name"] == "main--call")
    assert {t["name"]: t["template"] for t in main["dag"]["tasks"]} == {
        "up": "up--stretch", "a": "t--stretch", "f": "t--fan", "u": "u--stretch", "periplus-gate": "periplus-gate",
    }  # fmt: skip
    assert done.plan is not None
    assert {step.verdict.verdict for step in done.plan.steps} == {Verdict.UNKNOWN}
    check({**made, "spec": spec})


async def test_adopting_again_changes_nothing_and_a_trial_writes_nothing() -> None:
    found = stored(wf_template(pipeline()))
    assert (await adopted(found, validate_only=True)).is_changed
    assert found.writes == 0
    await adopted(found)
    again = await adopted(found)
    assert (again.is_changed, found.writes) == (False, 1)
    assert (await let_go(found, validate_only=True)).is_changed
    assert found.writes == 1


async def test_what_was_edited_since_is_not_released_over_the_edit() -> None:
    found = stored(wf_template(pipeline()))
    await adopted(found)
    found.spec(TEMPLATE, "train")["templates"][1]["container"]["image"] = "other"
    for call in (adopted, let_go):
        with pytest.raises(Refused, match="was edited since it was adopted"):
            await call(found)


async def test_what_was_applied_anew_is_adopted_anew_and_released_to_that() -> None:
    found = stored(wf_template(pipeline()))
    await adopted(found)
    applied = pipeline("new")  # as by `kubectl apply`, which leaves the fields of others
    found.spec(TEMPLATE, "train").update(copy.deepcopy(applied))
    assert (await adopted(found)).is_changed
    await let_go(found)
    spec = found.spec(TEMPLATE, "train")
    assert {name: value for name, value in spec.items() if name != "workflowMetadata"} == applied
    assert spec["workflowMetadata"] == {"labels": {}, "annotations": {}}


async def test_a_change_between_reading_and_writing_is_not_overwritten() -> None:
    found = stored(wf_template(pipeline()))
    read = found.read

    async def changed_after(kind: str, name: str) -> Json | None:
        given = await read(kind, name)
        found.objects[kind, name]["metadata"]["resourceVersion"] = "other"
        return given

    found.read = changed_after  # type: ignore[method-assign]
    with pytest.raises(Conflict):
        await adopted(found)


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (wf_template({"workflowTemplateRef": {"name": "base"}}), "runs the WorkflowTemplate base"),
        (wf_template({"templates": pipeline()["templates"]}), "has no entrypoint"),
    ],
)
async def test_what_has_no_steps_of_its_own_to_run_is_refused(made: Json, says: str) -> None:
    with pytest.raises(Refused, match=says):
        await adopted(stored(made))


async def test_a_template_that_is_not_there_or_whose_runs_nobody_follows_is_refused() -> None:
    with pytest.raises(NotFound):
        await adopted(MemoryObjects())
    found = stored(wf_template(pipeline()))
    for project, namespace in (("other", ""), ("default", "elsewhere")):
        with pytest.raises(Refused, match="are observed"):
            await adoption(found).adopt(project, namespace, TEMPLATE, "train", validate_only=False)
    labelled = observation("argo=default", "team=ml")
    with pytest.raises(Refused, match="label team=ml"):
        await adoption(found, labelled).adopt("default", "", TEMPLATE, "train", validate_only=False)
    found.spec(TEMPLATE, "train")["workflowMetadata"] = {"labels": {"team": "ml"}}
    assert (
        await adoption(found, labelled).adopt("default", "", TEMPLATE, "train", validate_only=True)
    ).is_changed


async def test_an_invalid_template_is_refused_with_the_field() -> None:
    spec = pipeline()
    spec["templates"][0]["dag"]["tasks"][1]["template"] = "nothing"
    with pytest.raises(Invalid) as raised:
        await adopted(stored(wf_template(spec)))
    assert raised.value.field == "spec.manifest.spec.templates[0].dag.tasks[1].template"


async def test_a_template_none_of_whose_steps_can_be_cached_stays_as_it_is() -> None:
    spec = workflow(
        dag(task("a", "a")), sh("a", "true", metadata={"annotations": {"periplus.dev/side-effects": "true"}})
    )["spec"]
    found = stored(wf_template(spec))
    done = await adopted(found)
    assert (done.is_changed, found.writes) == (False, 0)
    assert done.plan is not None
    assert "side-effects" in done.plan.steps[0].verdict.reason


@st.composite
def specs(draw: st.DrawFn) -> Json:
    """Templates with fields in any order, called by a DAG."""
    own = [draw(bodies(name)) for name in NAMES]
    tasks = [
        task(f"a{n}", draw(st.sampled_from(NAMES)), given={"x": draw(st.sampled_from("12"))})
        for n in range(3)
    ]
    spec: Json = workflow(dag(*tasks), *own)["spec"]
    return spec


@settings(max_examples=40, deadline=None)
@given(specs())
async def test_whatever_is_in_a_template_it_stays_and_comes_back(spec: Json) -> None:
    before = json.dumps(spec)
    found = stored(wf_template(copy.deepcopy(spec)))
    await adopted(found)
    after = found.spec(TEMPLATE, "train")
    assert json.dumps(after["templates"][: len(spec["templates"])]) == json.dumps(spec["templates"])
    await let_go(found)
    assert json.dumps(found.spec(TEMPLATE, "train")) == before


async def test_a_plan_reads_an_adopted_template_as_it_was() -> None:
    found = stored(wf_template(pipeline()))
    before = copy.deepcopy(found.spec(TEMPLATE, "train"))
    await adopted(found)
    assert released(found.objects["WorkflowTemplate", "train"])["spec"] == before


# On the local Argo


@pytest.fixture
async def started(harness: Harness) -> AsyncIterator[Harness]:
    found = await observing(harness, RECORDED)
    yield found
    await found.crash()


def in_argo(harness: Harness) -> TemplateAdoption:
    return TemplateAdoption({"argo": harness.argo.templates()}, RECORDED, PROCESSES, timedelta(seconds=30))


async def run_of(harness: Harness, name: str, **parameters: str) -> tuple[Any, Json]:
    """A run of a template, as `argo submit --from` makes it."""
    given = [{"name": n, "value": value} for n, value in parameters.items()]
    found = submitted(harness, {
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"generateName": f"{name}-"},
        "spec": {"workflowTemplateRef": {"name": name}, "arguments": {"parameters": given}},
    })  # fmt: skip
    done = await ended(harness, id_of(found))
    for event in done.finished:
        if event.phase == step_pb2.STEP_PHASE_SUCCEEDED:
            harness.cache.record(event)
    at_end = await harness.argo.get(found["metadata"]["name"])
    assert at_end is not None
    return done, at_end


async def test_later_runs_of_an_adopted_template_are_served_with_the_parameters_of_each(
    started: Harness,
) -> None:
    name = f"train-{uuid.uuid4().hex[:8]}"
    made = wf_template(pipeline(name), name=name)
    started.client.call("POST", "workflow-templates/argo", {"template": made})
    before = await started.argo.templates().read("WorkflowTemplate", name)
    await in_argo(started).adopt("default", "", TEMPLATE, name, validate_only=False)
    cold, _ = await run_of(started, name)
    all_of_them = {"up", "a", "f(0)", "f(1)", "u"}
    assert (cold.run.phase, cold.ran, cold.cached) == (RunPhase.SUCCEEDED, all_of_them, set())
    assert cold.output == '1-["x","y"]'
    assert cold.run.pipeline == name
    warm, found = await run_of(started, name)
    assert (warm.run.phase, warm.ran, warm.cached) == (RunPhase.SUCCEEDED, set(), all_of_them)
    assert warm.output == cold.output
    assert pods(found) == []
    assert len(await gates_of(started, found["metadata"]["name"])) == 1
    other, _ = await run_of(started, name, p="2")
    assert (other.output, "u" in other.ran, "up" in other.ran) == ('2-["x","y"]', True, True)
    fewer, _ = await run_of(started, name, items='["y","z"]')
    assert fewer.cached == {"up", "a", "f(0)"}
    await in_argo(started).release("default", "", TEMPLATE, name, validate_only=False)
    after = await started.argo.templates().read("WorkflowTemplate", name)
    assert before is not None
    assert after is not None
    assert after["spec"] == before["spec"]
    plain, found = await run_of(started, name)
    assert plain.ran == all_of_them
    assert await gates_of(started, found["metadata"]["name"]) == []


async def test_those_who_call_a_template_of_it_or_start_elsewhere_meet_no_gate(started: Harness) -> None:
    name = f"lib-{uuid.uuid4().hex[:8]}"
    spec = workflow(
        dag(task("a", "a", given={"x": "1"})),
        say("a", f"{name}$x", "x"),
        steps([task("s", "a", given={"x": "2"})], name="other"),
    )["spec"]
    started.client.call("POST", "workflow-templates/argo", {"template": wf_template(spec, name=name)})
    await in_argo(started).adopt("default", "", TEMPLATE, name, validate_only=False)
    caller = workflow(dag({"name": "c", "templateRef": {"name": name, "template": "main"}}))
    found = submitted(started, caller)
    assert (await ended(started, id_of(found))).run.phase is RunPhase.SUCCEEDED
    assert await gates_of(started, found["metadata"]["name"]) == []
    elsewhere = submitted(started, {
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"generateName": "elsewhere-"},
        "spec": {"workflowTemplateRef": {"name": name}, "entrypoint": "other"},
    })  # fmt: skip
    done = await ended(started, id_of(elsewhere))
    assert (done.run.phase, done.ran) == (RunPhase.SUCCEEDED, {"s"})
    assert {event.observed for event in done.finished} == {True}


async def test_the_webhook_and_a_plan_use_what_an_adopted_template_was(started: Harness) -> None:
    name = f"both-{uuid.uuid4().hex[:8]}"
    started.client.call(
        "POST", "workflow-templates/argo", {"template": wf_template(pipeline(name), name=name)}
    )
    await in_argo(started).adopt("default", "", TEMPLATE, name, validate_only=False)
    await run_of(started, name)
    made = {
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"generateName": "both-"},
        "spec": {"workflowTemplateRef": {"name": name}},
    }  # fmt: skip
    created, _ = await admitted(admission(started.cache, started.argo, RECORDED), made)
    assert created["spec"]["entrypoint"] == "main"
    assert created["metadata"]["labels"][REWRITTEN_LABEL] == "true"
    assert ANNOTATION not in (created["spec"].get("workflowMetadata") or {}).get("annotations", {})
    done = await ended(started, id_of(submitted(started, created)))
    assert (done.ran, done.output) == (set(), '1-["x","y"]')
