"""What can not be planned is refused with its field, or planned without steps and with a warning; and at once."""

import json
import time
from typing import Any

import pytest
from fakes import MemoryCache, MemorySnapshotter, MemoryTemplates
from manifests import ANY_KEYS, PROCESSES, dag, say, task, workflow

from periplus_common.errors import Invalid
from periplus_dispatcher.domain import RunRequest
from periplus_dispatcher.manifest import read as manifests
from periplus_dispatcher.manifest.calls import ExpandedWorkflow
from periplus_dispatcher.planner import Planner
from periplus_model.steps import CacheMode

Json = dict[str, Any]


def expanded(manifest: Json, **parameters: str) -> ExpandedWorkflow:
    return manifests.read(json.dumps(manifest), parameters).expand(PROCESSES)


def refused(manifest: Json, **parameters: str) -> Invalid:
    with pytest.raises(Invalid) as error:
        expanded(manifest, **parameters)
    return error.value


def doubling(levels: int) -> list[Json]:
    """Templates that each call the next twice."""
    calls = [[task(key, f"t{n + 1}") for key in ("a", "b")] for n in range(levels)]
    return [dag(*two, name=f"t{n}") for n, two in enumerate(calls)] + [say(f"t{levels}", "1")]


def test_a_billion_nodes_are_refused_with_their_field() -> None:
    error = refused(workflow(*doubling(30)))
    assert error.field == "spec.manifest.spec.templates[16]"
    assert error.message == "the workflow would have 2147483647 nodes; at most 20000 are allowed"
    assert error.reason == "MANIFEST_INVALID"


def test_more_calls_than_the_cache_can_be_asked_about_give_a_warning_and_no_silence() -> None:
    found = expanded(workflow(*doubling(13)))  # 16,383 calls
    assert found.calls == ()
    assert found.warnings == (
        "no step is planned or cached: the workflow has more than 10000 calls of templates",
    )
    assert expanded(workflow(*doubling(12))).warnings == ()


def test_templates_of_other_objects_give_a_warning() -> None:
    manifest = workflow(say("x", "1"))
    manifest["spec"] = {"workflowTemplateRef": {"name": "elsewhere"}}
    assert "WorkflowTemplate" in expanded(manifest).warnings[0]


def test_ninety_nine_templates_within_one_another_are_planned() -> None:
    templates = [dag(task("a", f"t{n + 1}"), name=f"t{n}") for n in range(98)]
    found = expanded(workflow(*templates, say("t98", "1")))
    assert found.warnings == ()
    assert [call.path for call in found.calls if call.query] == [".".join("a" * 98)]
    assert (
        "Maximum recursion depth"
        in refused(workflow(*templates, dag(task("a", "x"), name="t98"), say("x", "1"))).message
    )


def test_a_text_that_doubles_at_each_level_is_refused_with_its_field() -> None:
    levels = [
        dag(task("c", f"t{n + 1}", given={"a": "{{inputs.parameters.a}}" * 2}), name=f"t{n}",
            inputs={"parameters": [{"name": "a"}]})
        for n in range(40)
    ]  # fmt: skip
    manifest = workflow(
        *levels, say("t40", "$a", "a"), arguments={"parameters": [{"name": "a", "value": "x"}]}
    )
    error = refused(manifest)
    assert error.field == "spec.manifest.spec.templates[20]"
    assert "more than 1048576 characters" in error.message


def test_items_that_are_known_through_inputs_are_counted() -> None:
    inner = dag(
        task("l", "leaf", withParam="{{inputs.parameters.items}}", given={"x": "{{item}}"}),
        name="inner",
        inputs={"parameters": [{"name": "items"}]},
    )
    calls = [task(f"c{n}", "inner", given={"items": "{{workflow.parameters.items}}"}) for n in range(3)]
    manifest = workflow(
        dag(*calls),
        inner,
        say("leaf", "$x", "x"),
        arguments={"parameters": [{"name": "items", "value": "[]"}]},
    )
    assert expanded(manifest, items=json.dumps([0] * 5_000)).warnings == ()
    error = refused(manifest, items=json.dumps([0] * 9_000))
    assert (error.field, "more than 20000 nodes" in error.message) == (
        "spec.manifest.spec.templates[1]",
        True,
    )


@pytest.mark.parametrize(
    ("manifest", "reason"),
    [
        pytest.param(
            workflow({"name": "main", "steps": [[task(f"{g}-{n}", "x") for n in range(4_000)] for g in "ab"]}, say("x", "1")),
            "dependencies", id="groups of thousands of steps",
        ),
        pytest.param(
            workflow(dag(*(task(f"c{n}", "only") for n in range(4_000))),
                     {"name": "only", "dag": {"target": "t0", "tasks": [task(f"t{n}", "x") for n in range(4_000)]}},
                     say("x", "1")),
            "", id="thousands of calls of thousands of tasks of which one runs",
        ),
        pytest.param(
            workflow(dag(*(task(f"c{n}", "many") for n in range(4_000))),
                     dag(task("t", "x", given={f"p{n}": "1" for n in range(4_000)}), name="many"), say("x", "1")),
            "texts", id="thousands of calls with thousands of arguments",
        ),
        pytest.param(
            workflow(dag(*(task(f"c{n}", "x", given={"p": "{{workflow.parameters.a}}" * 2}) for n in range(4_000))),
                     say("x", "$p", "p"), arguments={"parameters": [{"name": "a", "value": "x" * 100_000}]}),
            "texts", id="thousands of calls with long texts",
        ),
    ],
)  # fmt: skip
def test_what_multiplies_is_planned_in_seconds_or_not_at_all(manifest: Json, reason: str) -> None:
    began = time.process_time()
    found = expanded(manifest)
    assert time.process_time() - began < 60
    assert len(found.warnings) == bool(reason)
    assert reason in "".join(found.warnings)


async def test_the_warning_is_part_of_the_plan() -> None:
    planner = Planner(MemoryCache(), MemorySnapshotter(), MemoryTemplates(), PROCESSES, ANY_KEYS)
    request = RunRequest("default", json.dumps(workflow(*doubling(13))), {}, CacheMode.READWRITE, None)
    planned = await planner.plan(request)
    assert "no step is planned or cached" in planned.warnings[0]
