"""From a manifest to its calls: paths, order, inputs, and which steps are not looked up."""

import json
from typing import Any

import pytest
from manifests import PROCESSES, dag, expand_checked, say, sh, shows, steps, task, workflow

from periplus_dispatcher.manifest.calls import Call, ExpandedWorkflow
from periplus_dispatcher.manifest.read import read
from periplus_model.queries import Item, Literal, OutputRef, Raw, Text, Unknown, literal_text
from periplus_model.steps import ObjectRef

Json = dict[str, Any]


def by_path(found: ExpandedWorkflow) -> dict[str, Call]:
    return {call.path: call for call in found.calls}


def given(found: ExpandedWorkflow, path: str, name: str = "x") -> Text:
    query = by_path(found)[path].query
    assert query is not None, by_path(found)[path].uncacheable_reason
    return query.parameters[name]


def one(*, inputs: Json | None = None, **more: Any) -> Json:
    """A workflow with one task, whose template takes x."""
    template = say("t", "$x", "x")
    if inputs:
        template["inputs"] = inputs
    return workflow(dag(task("a", "t", **more)), template)


def test_calls_are_in_topological_order_with_their_dependencies() -> None:
    found = expand_checked(workflow(
        dag(task("c", "t", depends="a && b"), task("b", "t", depends="a"), task("a", "t")), say("t", "1")
    ))  # fmt: skip
    assert [call.path for call in found.calls] == ["a", "b", "c"]
    assert by_path(found)["c"].depends_on == ("a", "b")


def test_each_group_of_a_steps_template_depends_on_the_previous_one() -> None:
    found = expand_checked(workflow(steps([task("a", "t"), task("b", "t")], [task("c", "t")]), say("t", "1")))
    assert [(call.path, call.depends_on) for call in found.calls] == [("a", ()), ("b", ()), ("c", ("a", "b"))]


def test_steps_inside_nested_templates_have_paths_and_inputs_through_all_levels() -> None:
    inner = dag(
        task("deep", "t", given={"x": "<{{inputs.parameters.p}}>"}), name="inner",
        inputs={"parameters": [{"name": "p"}]}, outputs=shows("tasks.deep.outputs.parameters.o"),
    )  # fmt: skip
    middle = steps(
        [task("in", "inner", given={"p": "{{inputs.parameters.q}}!"})], name="middle",
        inputs={"parameters": [{"name": "q"}]}, outputs=shows("steps.in.outputs.parameters.o"),
    )  # fmt: skip
    found = expand_checked(workflow(
        dag(task("m", "middle", given={"q": "{{workflow.parameters.w}}"}),
            task("end", "t", depends="m", given={"x": "{{tasks.m.outputs.parameters.o}}"})),
        middle, inner, say("t", "$x", "x"), parameters={"w": "1"},
    ))  # fmt: skip
    assert [call.path for call in found.calls] == ["m", "m.in", "m.in.deep", "end"]
    assert given(found, "m.in.deep") == (Literal("<1!>"),)
    assert given(found, "end") == (OutputRef("m.in.deep", "o"),)


def test_arguments_refer_to_the_item_and_the_items_are_json() -> None:
    found = expand_checked(one(withItems=[{"a": 1}, {"a": "é"}], given={"x": "n={{item.a}};"}))
    assert given(found, "a") == (Literal("n="), Item("a"), Literal(";"))
    query = by_path(found)["a"].query
    assert query
    assert literal_text(query.items or ()) == '[{"a":1},{"a":"é"}]'


def test_quotes_of_a_parameter_do_not_break_the_items() -> None:
    manifest = one(withItems=["{{workflow.parameters.w}}"], given={"x": "{{item}}"})
    manifest["spec"]["arguments"] = {"parameters": [{"name": "w", "value": 'a"b'}]}
    query = by_path(expand_checked(manifest))["a"].query
    assert query
    assert literal_text(query.items or ()) == '["a\\"b"]'


def test_a_sequence_is_expanded_and_items_of_another_step_are_a_reference() -> None:
    query = by_path(expand_checked(one(withSequence={"start": "2", "count": "2"}, given={"x": "{{item}}"})))[
        "a"
    ].query
    assert query
    assert literal_text(query.items or ()) == '["2", "3"]'
    found = expand_checked(workflow(
        dag(task("l", "l"), task("a", "t", depends="l", withParam="{{tasks.l.outputs.parameters.o}}",
                                 given={"x": "{{item}}"})),
        say("l", "[]"), say("t", "$x", "x"),
    ))  # fmt: skip
    query = by_path(found)["a"].query
    assert query
    assert query.items == (OutputRef("l", "o"),)


def test_an_input_without_an_argument_has_its_default() -> None:
    manifest = one(inputs={"parameters": [{"name": "x", "value": "{{workflow.parameters.w}}-d"}]})
    manifest["spec"]["arguments"] = {"parameters": [{"name": "w", "value": "1"}]}
    assert given(expand_checked(manifest), "a") == (Literal("1-d"),)
    assert given(expand_checked(manifest, w="2"), "a") == (Literal("2-d"),)


def test_the_user_and_the_host_names_of_all_pods_are_part_of_each_document() -> None:
    def document(**spec: Any) -> str:
        return (
            expand_checked(workflow(dag(task("a", "t")), say("t", "1"), **spec)).templates["t"].step.document
        )

    aliases = [{"ip": "10.0.0.1", "hostnames": ["db"]}]
    assert len({document(), document(securityContext={"runAsUser": 5}), document(hostAliases=aliases)}) == 3
    assert document(serviceAccountName="runner") == document()


CONFIG_MAP = {"valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}


@pytest.mark.parametrize("default", [{"default": "d"}, {"value": "d"}, {}])
def test_an_input_from_a_config_map_is_unknown_even_with_a_default(default: Json) -> None:
    manifest = one(inputs={"parameters": [{"name": "x", **default, **CONFIG_MAP}]})
    assert given(expand_checked(manifest), "a") == (Unknown("inputs.parameters.x"),)
    passed = one(inputs={"parameters": [{"name": "x", **default, **CONFIG_MAP}]}, given={"x": "1"})
    assert given(expand_checked(passed), "a") == (Literal("1"),)


def test_a_parameter_of_the_workflow_from_a_config_map_is_unknown_and_stays_argos_to_read() -> None:
    parameter = {"name": "x", "default": "d", **CONFIG_MAP}
    template = say("t", "$x", "x") | {"inputs": {"parameters": [{"name": "x", "default": "e"}]}}
    manifest = workflow(template)
    manifest["spec"]["arguments"] = {"parameters": [parameter]}
    checked = read(json.dumps(manifest), {})
    assert checked.parameters == {}
    assert given(checked.expand(PROCESSES), "t") == (Unknown("workflow.parameters.x"),)
    assert read(json.dumps(manifest), {"x": "1"}).parameters == {"x": "1"}


def test_an_expression_is_evaluated_only_if_everything_in_it_is_known() -> None:
    manifest = one(given={"x": "{{=asInt(workflow.parameters.w) + 1}}"})
    manifest["spec"]["arguments"] = {"parameters": [{"name": "w", "value": "1"}]}
    assert literal_text(given(expand_checked(manifest), "a")) == "2"
    found = expand_checked(workflow(
        dag(task("b", "t", given={"x": "1"}),
            task("a", "t", depends="b", given={"x": "{{=tasks.b?.outputs?.parameters?.o ?? 'none'}}"})),
        say("t", "$x", "x"),
    ))  # fmt: skip
    assert isinstance(given(found, "a")[0], Unknown), "what it asks for may come"


def test_a_value_that_is_known_only_during_the_run_is_unknown() -> None:
    assert given(expand_checked(one(given={"x": "{{workflow.name}}"})), "a") == (Unknown("workflow.name"),)


def test_artifacts_come_from_steps_from_objects_and_from_the_manifest() -> None:
    template = sh("t", "true", outputs={"artifacts": [{"name": "m", "path": "/tmp/m"}]}) | {
        "inputs": {"artifacts": [{"name": n, "path": f"/tmp/{n}", "optional": n in "ae"} for n in "abcde"]
                   + [{"name": "own", "path": "/tmp/own", "raw": {"data": "own"}}]}
    }  # fmt: skip
    artifacts = [
        {"name": "a", "from": "{{tasks.first.outputs.artifacts.m}}"},
        {"name": "b", "raw": {"data": "hello {{workflow.parameters.w}}"}},
        {"name": "c", "s3": {"key": "data/{{workflow.parameters.w}}"}},
        {"name": "d", "from": "{{tasks.first.outputs.artifacts.m}}", "subPath": "part"},
    ]
    found = expand_checked(workflow(
        dag(task("first", "first"), {"name": "a", "template": "t", "depends": "first", "arguments": {"artifacts": artifacts}}),
        template, sh("first", "true", outputs=template["outputs"]), parameters={"w": "1"},
    ))  # fmt: skip
    query = by_path(found)["a"].query
    assert query
    assert query.artifacts == {
        "a": OutputRef("first", "m"),
        "b": Raw("hello 1"),
        "c": ObjectRef("data/1"),
        "d": Unknown("a subPath of the artifact d"),
        "own": Raw("own"),
    }


@pytest.mark.parametrize(
    ("made", "more", "is_cached"),
    [
        ({"optional": True}, {}, "if its producer is a hit"),
        ({"optional": True}, {"optional": False}, True),
        ({}, {}, True),
        ({}, {"subPath": "part"}, False),
    ],
)
def test_a_step_whose_optional_artifact_may_be_missing_is_cached_only_if_that_is_known_at_submission(
    made: Json, more: Json, is_cached: bool | str
) -> None:
    make = sh("make", "true", outputs={"artifacts": [{"name": "m", "path": "/m", **made}]})
    read = say("read", "1") | {"inputs": {"artifacts": [{"name": "f", "path": "/f"}]}}
    given = [{"name": "f", "from": "{{tasks.make.outputs.artifacts.m}}", "optional": True, **more}]
    call = {"name": "read", "template": "read", "depends": "make", "arguments": {"artifacts": given}}
    found = by_path(expand_checked(workflow(dag(task("make", "make"), call), make, read)))["read"]
    assert (found.query is not None) == bool(is_cached)
    reason = found.uncacheable_reason or found.ungated_reason
    assert is_cached is True or "optional artifact f exists is known only during the run" in reason


def test_the_artifact_arguments_of_a_workflow_are_inputs_of_its_entrypoint() -> None:
    main = dag(
        {"name": "a", "template": "t", "arguments": {"artifacts": [{"name": "i", "from": "{{inputs.artifacts.start}}"}]}},
        inputs={"artifacts": [{"name": "start"}]},
    )  # fmt: skip
    leaf = say("t", "1") | {"inputs": {"artifacts": [{"name": "i", "path": "/tmp/i"}]}}
    manifest = workflow(main, leaf, arguments={"artifacts": [{"name": "start", "s3": {"key": "k"}}]})
    query = by_path(expand_checked(manifest))["a"].query
    assert query
    assert query.artifacts == {"i": ObjectRef("k")}


def test_an_entrypoint_that_is_a_container_template_is_one_step() -> None:
    found = expand_checked(workflow(say("only", "$x", "x"), parameters={"x": "1"}))
    assert [call.path for call in found.calls] == ["only"]
    assert given(found, "only") == (Literal("1"),)
    assert found.parameters == {"o": (OutputRef("only", "o"),)}


def test_a_dag_with_a_target_has_only_the_target_and_its_ancestors() -> None:
    main = dag(task("a", "t"), task("b", "t", depends="a"), task("c", "t"))
    main["dag"]["target"] = "b"
    assert [call.path for call in expand_checked(workflow(main, say("t", "1"))).calls] == ["a", "b"]


def test_a_recursion_is_expanded_once() -> None:
    loop = steps([task("work", "t")], [task("again", "loop", when="1 == 2")], name="loop")
    found = expand_checked(workflow(dag(task("l", "loop")), loop, say("t", "1")))
    assert [call.path for call in found.calls] == ["l", "l.work", "l.again"]
    assert "it is recursive" in by_path(found)["l.again"].uncacheable_reason


def test_a_loop_over_a_template_invocator_is_expanded_once_with_unknown_items() -> None:
    inner = dag(
        task("t", "t", given={"x": "{{inputs.parameters.p}}"}),
        name="inner",
        inputs={"parameters": [{"name": "p"}]},
    )
    found = expand_checked(
        workflow(
            dag(task("l", "inner", withItems=[1, 2], given={"p": "{{item}}"})), inner, say("t", "$x", "x")
        )
    )
    assert [call.path for call in found.calls] == ["l(*)", "l(*).t"]
    assert given(found, "l(*).t") == (Unknown("item"),)


NOT_LOOKED_UP: dict[str, tuple[Json, str]] = {
    "a condition on the item": (one(withItems=[1], when="{{item}} == 1", given={"x": "{{item}}"}), "item to item"),
    "hooks": (one(given={"x": "1"}, hooks={"exit": {"template": "t", "arguments": {"parameters": [{"name": "x", "value": "1"}]}}}), "hooks"),
    "computing with items": (one(withItems=[1], given={"x": "{{=item}}"}), "uses the item"),
    "artifacts by item": (
        workflow(
            dag({"name": "a", "template": "t", "withItems": ["k"],
                 "arguments": {"artifacts": [{"name": "i", "s3": {"key": "in/{{item}}"}}]}}),
            say("t", "1") | {"inputs": {"artifacts": [{"name": "i", "path": "/tmp/i"}]}},
        ),
        "differ from item to item",
    ),
    "no outputs": (workflow(dag(task("a", "t")), sh("t", "true")), "no outputs"),
    "a suspend": (workflow(dag(task("a", "t")), {"name": "t", "suspend": {}}), "suspend template"),
    "another's template": (workflow(dag({"name": "a", "templateRef": {"name": "w", "template": "t"}})), "not part"),
    "who asks for single items": (
        workflow(dag(task("a", "t", withItems=[1, 2], given={"x": "{{item}}"}), task("b", "t", depends="a.AnySucceeded", given={"x": "1"})),
                 say("t", "$x", "x")),
        "single items",
    ),
    "an exit code that others read": (
        workflow(dag(task("a", "t", given={"x": "1"}), task("b", "t", depends="a", given={"x": "{{tasks.a.exitCode}}"})),
                 say("t", "$x", "x")),
        "exitCode",
    ),
}  # fmt: skip


def test_the_pods_of_an_exit_handler_are_counted() -> None:
    def cost(*templates: Json) -> str:
        found = expand_checked(
            workflow(dag(task("a", "a")), say("a", "1"), *templates, onExit="bye")
        ).exit_handler
        assert found is not None
        return found.cost.partition("costs a Workflow and ")[2].partition(";")[0]

    asks = {"name": "bye", "http": {"url": "http://example.com"}}
    both = dag(task("x", "a"), task("y", "a", depends="x"), name="bye")
    assert cost(say("bye", "1")) == "1 pod"
    assert cost(asks) == "0 pods"
    assert cost(both) == "2 pods"
    assert (
        cost(steps([task("x", "both")], [task("y", "both")], name="bye"), {**both, "name": "both"})
        == "4 pods"
    )
    assert cost(dag(task("x", "a", withItems=[1, 2]), name="bye")) == "about 1 pod"
    assert cost(dag(task("x", "a"), task("y", "bye", when="1 == 2"), name="bye")) == "about 1 pod"


@pytest.mark.parametrize("case", NOT_LOOKED_UP)
def test_a_step_that_is_not_looked_up_has_a_reason(case: str) -> None:
    manifest, why = NOT_LOOKED_UP[case]
    call = by_path(expand_checked(manifest))["a"]
    assert call.query is None
    assert why in call.uncacheable_reason


def test_with_hooks_the_steps_do_not_decide_all() -> None:
    plain = workflow(dag(task("a", "inner")), dag(task("t", "t"), name="inner"), say("t", "1"))
    assert expand_checked(plain).steps_decide_all
    for hooks in ({"onExit": "t"}, {"hooks": {"exit": {"template": "t"}}}):
        handled = expand_checked({**plain, "spec": plain["spec"] | hooks})
        assert handled.steps_decide_all
        assert handled.exit_handler is not None
        assert handled.exit_handler.templates == ("t",)
    during = {"hooks": {"x": {"template": "t", "expression": "true"}}}
    assert not expand_checked({**plain, "spec": plain["spec"] | during}).steps_decide_all
    hooked = workflow(
        dag(task("a", "inner", hooks={"exit": {"template": "t"}})), *plain["spec"]["templates"][1:]
    )
    assert not expand_checked(hooked).steps_decide_all


def test_a_workflow_with_a_template_reference_has_no_calls() -> None:
    manifest = {
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"generateName": "x-"},
        "spec": {"workflowTemplateRef": {"name": "elsewhere"}},
    }  # fmt: skip
    found = expand_checked(manifest)
    assert (found.calls, found.steps_decide_all) == ((), False)


def test_a_workflow_with_too_many_calls_is_not_expanded() -> None:
    levels = [dag(*(task(f"t{k}", f"l{n + 1}") for k in range(2)), name=f"l{n}") for n in range(13)]
    found = expand_checked(workflow(*levels, say("l13", "1")))
    assert (found.calls, found.steps_decide_all) == ((), False)
    assert "l13" in found.templates
    assert "more than 10000 calls" in found.warnings[0]


def test_tags_in_the_value_of_a_parameter_are_text() -> None:
    manifest = workflow(
        dag(task("a", "t", given={"x": "{{workflow.parameters.w}}"})),
        say("t", "$x", "x"),
        parameters={"w": ""},
    )
    assert given(expand_checked(manifest, w="{{a}} and {{=b}}"), "a") == (Literal("{{a}} and {{=b}}"),)


def test_the_target_of_a_dag_can_be_a_parameter() -> None:
    chosen = dag(task("a", "t"), task("b", "t"), task("c", "t", depends="b"))
    chosen["dag"]["target"] = "{{workflow.parameters.target}}"
    manifest = workflow(chosen, say("t", "1"))
    manifest["spec"]["arguments"] = {"parameters": [{"name": "target", "value": "c"}]}
    assert [call.path for call in expand_checked(manifest).calls] == ["b", "c"]


def test_a_loop_of_which_others_read_all_parameters_is_not_cached() -> None:
    many = task("many", "t", withItems=[1, 2])
    reads = task("reads", "u", depends="many", given={"x": "{{tasks.many.outputs.parameters}}"})
    manifest = workflow(dag(many, reads), say("t", "1"), say("u", "$x", "x"))
    call = by_path(expand_checked(manifest))["many"]
    assert call.uncacheable_reason == "others read its outputs.parameters"


@pytest.mark.parametrize("text", ["""f'{{"w": {w}}}'""", "{{ x | y }}", "{{ .Values.a }}", "{{}}"])
def test_braces_of_an_argument_that_argo_leaves_as_they_are_are_known_text(text: str) -> None:
    manifest = one(given={"x": text + "={{workflow.parameters.w}}"})
    manifest["spec"]["arguments"] = {"parameters": [{"name": "w", "value": "1"}]}
    assert given(expand_checked(manifest), "a") == (Literal(text + "=1"),)


def test_outputs_of_a_step_that_is_not_cached_are_unknown_to_the_steps_that_use_them() -> None:
    """The cache refuses a query that refers to a step which is not in the request."""
    secret = say("a", "1")
    secret["container"]["env"] = [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]
    secret["outputs"]["artifacts"] = [{"name": "m", "path": "/tmp/m"}]
    reads = say("b", "$x", "x")
    reads["inputs"]["artifacts"] = [{"name": "i", "path": "/tmp/i"}]
    use = task("b", "b", depends="a", given={"x": "<{{tasks.a.outputs.parameters.o}}>"})
    use["arguments"]["artifacts"] = [{"name": "i", "from": "{{tasks.a.outputs.artifacts.m}}"}]
    manifest = workflow(
        dag(task("z", "z"), task("a", "a"), use, outputs=shows("tasks.a.outputs.parameters.o")),
        say("z", "1"),
        secret,
        reads,
    )
    found = expand_checked(manifest)
    query = by_path(found)["b"].query
    assert query is not None
    assert query.parameters == {"x": (Literal("<"), Unknown("a.outputs.parameters.o"), Literal(">"))}
    assert query.artifacts == {"i": Unknown("a.outputs.artifacts.m")}
    assert by_path(found)["z"].query is not None
    asked = {call.path for call in found.calls if call.query is not None}
    assert asked == {"z", "b"}
    assert (found.parameters, found.steps_decide_all) == ({}, False), (
        "the workflow's output is not known either"
    )


@pytest.mark.parametrize(
    "value",
    [
        "{{workflow.name}}", "a {{workflow.uid}}", "{{workflow.creationTimestamp}}", "{{=sprig.now()}}",
        "{{=sprig.randAlphaNum(5)}}", "{{=workflow.name}}",
    ],
)  # fmt: skip
def test_an_input_that_differs_from_run_to_run_is_named_in_a_warning(value: str) -> None:
    through = dag(
        task("deep", "t", given={"x": "{{inputs.parameters.p}}"}),
        name="inner",
        inputs={"parameters": [{"name": "p"}]},
    )
    found = expand_checked(
        workflow(
            dag(task("a", "t", given={"x": value}), task("b", "inner", given={"p": value})),
            through,
            say("t", "$x", "x"),
        )
    )
    what = value.removeprefix("a ").strip("{}").removeprefix("=")
    (warning,) = found.warnings
    assert warning == (
        f"a, b.deep: input x has {what}, which differs from run to run, so that no result is served: annotate "
        "periplus.dev/ignore-inputs: x if it does not change the result"
    )


def test_volatile_content_of_an_artifact_is_named_and_a_day_or_an_ignored_input_is_not() -> None:
    template = say("t", "$x", "x")
    template["inputs"]["artifacts"] = [{"name": "d", "path": "/tmp/d"}]
    day, ignored = "{{workflow.creationTimestamp.d}}", {"periplus.dev/ignore-inputs": "x"}

    def warned(x: str, content: str, annotations: Json) -> list[str]:
        given = {
            "parameters": [{"name": "x", "value": x}],
            "artifacts": [{"name": "d", "raw": {"data": content}}],
        }
        called = {**task("a", "t"), "arguments": given}
        annotated = {**template, "metadata": {"annotations": annotations}}
        return [
            each.partition(" has ")[0] for each in expand_checked(workflow(dag(called), annotated)).warnings
        ]

    assert warned("1", "in {{workflow.uid}}", {}) == ["a: input d"]
    assert warned("{{workflow.name}}", day, {}) == ["a: input x"]
    assert warned(day, day, {}) == []
    assert warned("{{workflow.name}}", "1", ignored) == []
