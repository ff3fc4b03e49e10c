"""The nodes and the depth of a manifest are counted without expanding it, and refused beyond the bounds by field."""

import resource
import time
from typing import Any

import pytest

from periplus_manifest import bounds, measure
from periplus_manifest.check import check
from periplus_manifest.errors import BoundError, ManifestError

LEAF = {"name": "leaf", "container": {"image": "x", "command": ["true"]}}
Fields = dict[str, Any]


def workflow(*templates: Fields, **spec: Any) -> Fields:
    head = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"generateName": "w-"}}
    return {**head, "spec": {"entrypoint": templates[0]["name"], "templates": list(templates), **spec}}


def dag(name: str, *tasks: Fields, **fields: Any) -> Fields:
    return {"name": name, "dag": {"tasks": list(tasks)}, **fields}


def task(name: str, template: str = "leaf", **fields: Any) -> Fields:
    return {"name": name, "template": template, **fields}


def doubling(levels: int) -> list[Fields]:
    """Templates that each call the next twice."""
    return [dag(f"t{n}", task("a", f"t{n + 1}"), task("b", f"t{n + 1}")) for n in range(levels)] + [
        {**LEAF, "name": f"t{levels}"}
    ]


def chain(levels: int) -> list[Fields]:
    """Templates that each call the next once."""
    return [dag(f"t{n}", task("a", f"t{n + 1}")) for n in range(levels)] + [{**LEAF, "name": f"t{levels}"}]


def counted(manifest: Fields, parameters: dict[str, str] | None = None) -> int:
    """The nodes of a manifest, as the error names them when almost none are allowed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bounds, "MAX_NODES", 0)
        with pytest.raises(BoundError) as error:
            check(manifest, parameters=parameters)
    return int(error.value.message.split()[4])


def refused(manifest: Fields) -> BoundError:
    with pytest.raises(BoundError) as error:
        check(manifest)
    return error.value


def test_thirty_templates_that_each_call_the_next_twice_are_refused_at_once() -> None:
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    error = refused(workflow(*doubling(30)))
    assert time.process_time() - began < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10
    assert error.path == "spec.templates[16]"
    assert error.message == "the workflow would have 2147483647 nodes; at most 20000 are allowed"


def test_ninety_levels_of_ten_thousand_items_are_refused_with_a_short_message() -> None:
    items = {"withSequence": {"count": "10000"}}
    templates = [dag(f"t{n}", task("a", f"t{n + 1}", **items)) for n in range(90)]
    error = refused(workflow(*templates, {**LEAF, "name": "t90"}))
    assert error.message == "the workflow would have more than 1000000000000 nodes; at most 20000 are allowed"


def test_as_many_nodes_as_allowed_are_accepted_and_one_more_is_refused() -> None:
    tasks = [task("a", withSequence={"count": "10000"}), task("b", withSequence={"count": "9997"})]
    check(workflow(dag("main", *tasks), LEAF))  # main, two groups and the items
    assert "20001 nodes" in refused(workflow(dag("main", *tasks, task("c")), LEAF)).message


def test_calls_as_deep_as_argo_allows_are_accepted_and_one_deeper_is_refused() -> None:
    check(workflow(*chain(bounds.MAX_DEPTH - 2)))
    error = refused(workflow(*chain(bounds.MAX_DEPTH - 1)))
    assert (error.path, "100 templates within one another" in error.message) == (
        "spec.templates[98].dag.tasks[0]",
        True,
    )
    refused(workflow(*chain(5_000)))


def test_deep_calls_from_a_template_that_was_counted_before_are_refused() -> None:
    templates = chain(60)
    outer = [dag(f"o{n}", task("a", f"o{n + 1}")) for n in range(50)] + [dag("o50", task("a", "t0"))]
    main = dag("main", task("first", "t0"), task("second", "o0"))
    assert "within one another" in refused(workflow(main, *outer, *templates)).message


@pytest.mark.parametrize(
    ("fields", "field", "count"),
    [
        ({"withItems": [0] * 10_001}, "withItems", 10_001),
        ({"withParam": str([0] * 10_001)}, "withParam", 10_001),
        ({"withSequence": {"count": 10_001}}, "withSequence", 10_001),
        ({"withSequence": {"end": "1000000000000"}}, "withSequence", 10**12 + 1),
        ({"withSequence": {"start": "1000000000000", "end": "0"}}, "withSequence", 10**12 + 1),
    ],
)
def test_a_loop_of_too_many_items_is_refused_by_its_field(fields: Fields, field: str, count: int) -> None:
    error = refused(workflow(dag("main", task("a", **fields)), LEAF))
    assert error.path == f"spec.templates[0].dag.tasks[0].{field}"
    assert error.message == f"{count} items; at most 10000 are allowed"


def test_a_loop_over_a_parameter_of_the_workflow_is_counted() -> None:
    main = dag("main", task("a", withSequence={"count": "{{workflow.parameters.n}}"}))
    manifest = workflow(main, LEAF, arguments={"parameters": [{"name": "n", "value": "7"}]})
    assert counted(manifest) == 9
    assert counted(manifest, {"n": "5"}) == 7
    with pytest.raises(BoundError, match="10001 items"):
        check(manifest, parameters={"n": "10001"})


def test_too_many_templates_or_tasks_are_refused_by_their_field() -> None:
    templates = [{**LEAF, "name": f"t{n}"} for n in range(bounds.MAX_TEMPLATES + 1)]
    assert refused(workflow(*templates)).path == "spec.templates"
    check(workflow(*templates[:-1]))
    tasks = [task(f"t{n}") for n in range(bounds.MAX_CALLS + 1)]
    assert refused(workflow(dag("main", *tasks), LEAF)).path == "spec.templates[0].dag.tasks"
    check(workflow(dag("main", *tasks[:-1]), LEAF))
    groups = [[task(f"t{n}")] for n in range(bounds.MAX_CALLS + 1)]
    main = {"name": "main", "steps": groups}
    assert refused(workflow(main, LEAF)).path == "spec.templates[0].steps"


def test_what_makes_a_node_is_counted() -> None:
    plain = dag("main", task("a"), task("b"))
    assert counted(workflow(plain, LEAF)) == 3
    assert counted(workflow({"name": "main", "steps": [[task("a"), task("b")], [task("c")]]}, LEAF)) == 6
    assert counted(workflow(dag("main", task("a", withItems=[1, 2])), LEAF)) == 4
    assert counted(workflow({"name": "main", "steps": [[task("a", withItems=[1, 2])]]}, LEAF)) == 4
    retried = {**LEAF, "retryStrategy": {"limit": 3}}
    assert counted(workflow(dag("main", task("a")), retried)) == 3
    assert counted(workflow(plain, LEAF, templateDefaults={"retryStrategy": {"limit": 3}})) == 6
    assert counted(workflow(plain, LEAF, onExit="leaf")) == 4
    assert counted(workflow(plain, LEAF, hooks={"x": {"template": "leaf", "expression": "true"}})) == 4
    assert counted(workflow(dag("main", task("a", onExit="leaf", withItems=[1, 2])), LEAF)) == 7
    hook = {"hooks": {"x": {"template": "leaf", "expression": "true"}}}
    assert counted(workflow(dag("main", task("a", **hook)), LEAF)) == 3
    inline = {"name": "a", "inline": {"dag": {"tasks": [task("b"), task("c")]}}}
    assert counted(workflow(dag("main", inline), LEAF)) == 4


def test_what_is_known_not_to_run_counts_as_one_skipped_node() -> None:
    big = dag("big", *(task(f"t{n}") for n in range(9)))
    assert counted(workflow(dag("main", task("a", "big", when="1 == 2")), big, LEAF)) == 2
    assert counted(workflow(dag("main", task("a", "big", when="1 == 1")), big, LEAF)) == 11
    only = {"name": "main", "dag": {"target": "b", "tasks": [task("a", "big"), task("b")]}}
    assert counted(workflow(only, big, LEAF)) == 2


def test_a_recursion_with_a_condition_is_accepted_and_counted_once() -> None:
    flip = {
        "name": "main",
        "steps": [[task("flip")], [task("again", "main", when="{{steps.flip.status}} == Failed")]],
    }
    assert counted(workflow(flip, LEAF)) == 5
    check(workflow(flip, LEAF))


def test_templates_of_other_objects_count_where_they_are_known() -> None:
    other = {"templates": [dag("big", task("a", withSequence={"count": 9_999}), task("b")), LEAF]}
    main = dag(
        "main",
        *({"name": f"c{n}", "templateRef": {"name": "other", "template": "big"}} for n in range(2)),
    )
    check(workflow(main))
    asked: list[tuple[str, bool]] = []

    def referenced(name: str, cluster_scope: bool) -> Fields:
        asked.append((name, cluster_scope))
        return other

    with pytest.raises(ManifestError, match="20005 nodes"):
        check(workflow(main), referenced=referenced)
    assert asked == [("other", False)]


def test_the_templates_of_a_workflow_template_are_counted_each_on_its_own() -> None:
    half = dag("half", task("a", withSequence={"count": 10_000}))
    manifest = {**workflow(half, {**half, "name": "other"}, LEAF), "kind": "WorkflowTemplate"}
    del manifest["spec"]["entrypoint"]
    check(manifest)
    manifest["spec"]["templates"].append(dag("both", task("a", "half"), task("b", "other")))
    assert "20005 nodes" in refused(manifest).message


def test_the_size_of_texts_is_about_that_of_their_json() -> None:
    deep: Any = "x"
    for _ in range(100_000):
        deep = [deep]
    assert (measure.text_size(deep), measure.nesting(deep)) == (4, 100_000)
    assert measure.text_size({"a": ["bb", {"c": 1}]}) == 5 + 5 + 5
