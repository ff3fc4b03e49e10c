"""Checking: what Argo refuses at submit is refused, with the path of the field, and the rest is not."""

import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from periplus_manifest.check import check
from periplus_manifest.errors import ManifestError
from periplus_manifest.read import read


def outcome(call):
    """Return what a call returns, or its ManifestError; any other error fails the test."""
    try:
        return call()
    except ManifestError as error:
        return error


GOOD = """
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {generateName: good-, labels: {team: ml}}
spec:
  entrypoint: main
  arguments: {parameters: [{name: rows, value: 100}, {name: xs, value: "[1, 2]"}]}
  templates:
  - name: main
    inputs: {parameters: [{name: rows}]}
    dag:
      tasks:
      - {name: prep, template: prep, arguments: {parameters: [{name: n, value: "{{inputs.parameters.rows}}"}]}}
      - name: train
        template: train
        depends: prep
        withParam: "{{=toJson(filter(fromJSON(workflow.parameters.xs), # > 0))}}"
        arguments:
          parameters: [{name: n, value: "{{item}}"}, {name: m, value: "{{tasks.prep.outputs.result}}"}]
          artifacts: [{name: data, from: "{{tasks.prep.outputs.artifacts.data}}"}]
      - {name: pick, template: pick, depends: "train.AnySucceeded && prep", when: "{{tasks.prep.status}} == Succeeded",
         arguments: {parameters: [{name: all, value: "{{tasks.train.outputs.parameters.acc}}"}]}}
    outputs: {parameters: [{name: best, valueFrom: {expression: "tasks.pick.outputs?.parameters?.best ?? 'none'"}}]}
  - name: prep
    inputs: {parameters: [{name: n}]}
    script: {image: "python:3.11", command: [python3], source: "print({{inputs.parameters.n}}, '{{workflow.labels.team}}')"}
    outputs: {artifacts: [{name: data, path: /tmp/data}]}
  - name: train
    inputs: {parameters: [{name: n}, {name: m}], artifacts: [{name: data, path: /tmp/in}]}
    retryStrategy: {limit: 2, retryPolicy: OnFailure, expression: "asInt(lastRetry.exitCode) > 1"}
    container: {image: "busybox", command: [sh, -c], args: ["echo {{retries}} {{pod.name}} {{inputs.artifacts.data.path}} > /tmp/acc"]}
    outputs: {parameters: [{name: acc, valueFrom: {path: /tmp/acc}, globalName: acc}]}
  - name: pick
    inputs: {parameters: [{name: all}]}
    steps:
    - - {name: one, template: wait}
      - {name: two, template: prep, arguments: {parameters: [{name: n, value: "{{inputs.parameters.all}}"}]}, continueOn: {failed: true}}
    - - {name: three, template: prep, when: "{{steps.two.outputs.result}} != ''", withItems: [{a: 1}, {a: 2}],
         arguments: {parameters: [{name: n, value: "{{item.a}}-{{steps.one.outputs.parameters.go}}"}]}}
    outputs: {parameters: [{name: best, valueFrom: {parameter: "{{steps.two.outputs.result}}"}}]}
  - name: wait
    suspend: {duration: "10"}
    outputs: {parameters: [{name: go, valueFrom: {supplied: {}, default: "yes"}}]}
"""
MAIN, PREP, TRAIN, PICK, WAIT = range(5)


def changed(change) -> dict:
    document = read(GOOD)
    change(document)
    return document


def put(document: dict, path: str, value: object) -> None:
    """Set, or with `...` delete, what lies at a path such as spec.templates[1].name."""
    steps = [
        int(step) if step.isdigit() else step for step in path.replace("]", "").replace("[", ".").split(".")
    ]
    place = document
    for step in steps[:-1]:
        place = place[step]
    if value is ...:
        del place[steps[-1]]
    elif isinstance(place, list) and steps[-1] == len(place):
        place.append(value)
    else:
        place[steps[-1]] = value


def test_a_valid_manifest_is_accepted_as_yaml_and_as_json():
    check(read(GOOD))
    check(read(json.dumps(read(GOOD))))


TASKS = f"spec.templates[{MAIN}].dag.tasks"
STEPS = f"spec.templates[{PICK}].steps"
CASES = [
    # what it is
    ("kind", "Pod", "kind", "must be Workflow"),
    ("apiVersion", "v1", "apiVersion", "argoproj.io"),
    ("spec", ..., "spec", "required"),
    ("metadata.name", "x" * 64, "metadata.name", "63"),
    # where it starts
    ("spec.entrypoint", ..., "spec.entrypoint", "required"),
    ("spec.entrypoint", "nowhere", "spec.entrypoint", "template name 'nowhere' undefined"),
    ("spec.onExit", "nowhere", "spec.onExit", "undefined"),
    ("spec.arguments.parameters[0].name", "columns", "spec.arguments.parameters", "inputs.parameters.rows was not supplied"),
    ("spec.arguments.parameters[0].value", ..., "spec.arguments.parameters[0]", "value or valueFrom"),
    ("spec.arguments.parameters[2]", {"name": "rows", "value": 1}, "spec.arguments.parameters[2].name", "not unique"),
    ("spec.arguments.parameters[0].enum", ["1", "2"], "spec.arguments.parameters[0].value", "enum"),
    ("spec.podGC", {"strategy": "Never"}, "spec.podGC.strategy", "Never"),
    ("spec.hooks", {"running": {"template": "wait"}}, "spec.hooks.running.expression", "required"),
    # templates
    ("spec.templates[4].name", "prep", "spec.templates[4].name", "not unique"),
    ("spec.templates[4].name", "a_b", "spec.templates[4].name", "invalid"),
    ("spec.templates[4].name", ..., "spec.templates[4].name", "required"),
    ("spec.templates[4].suspend", ..., "spec.templates[4]", "unspecified"),
    ("spec.templates[4].container", {"image": "x"}, "spec.templates[4]", "multiple template types"),
    ("spec.templates[1].script.image", ..., "spec.templates[1].script.image", "empty"),
    ("spec.templates[2].container.image", "", "spec.templates[2].container.image", "empty"),
    ("spec.templates[2].retryStrategy.retryPolicy", "Sometimes", "spec.templates[2].retryStrategy.retryPolicy", "Sometimes"),
    ("spec.templates[2].retryStrategy.expression", "1 +", "spec.templates[2].retryStrategy.expression", "bad expression"),
    ("spec.templates[2].retryStrategy.expression", "nope()", "spec.templates[2].retryStrategy.expression", "unknown function nope"),
    ("spec.templates[2].timeout", "30", "spec.templates[2].timeout", "30s"),
    ("spec.templates[0].timeout", "30s", "spec.templates[0].timeout", "not supported"),
    ("spec.templates[0].activeDeadlineSeconds", 5, "spec.templates[0].activeDeadlineSeconds", "leaf"),
    ("spec.templates[1].activeDeadlineSeconds", -5, "spec.templates[1].activeDeadlineSeconds", "positive"),
    ("spec.templates[1].parallelism", 2, "spec.templates[1].parallelism", "steps and dag"),
    ("spec.templates[1].inputs.parameters[1]", {"name": "n"}, "spec.templates[1].inputs.parameters[1].name", "not unique"),
    ("spec.templates[1].inputs.parameters[1]", {"name": "a b", "value": "1"}, "spec.templates[1].inputs.parameters[1].name", "invalid"),
    ("spec.templates[2].inputs.artifacts[0].path", ..., "spec.templates[2].inputs.artifacts[0].path", "path"),
    ("spec.templates[2].inputs.artifacts[0].path", "/tmp/x/../../etc", "spec.templates[2].inputs.artifacts[0].path", "traversal"),
    ("spec.templates[2].inputs.artifacts[0].from", "{{x}}", "spec.templates[2].inputs.artifacts[0].from", "inputs"),
    ("spec.templates[2].container.volumeMounts", [{"name": "v", "mountPath": "/tmp/in"}], "spec.templates[2].inputs.artifacts[0].path", "already mounted"),
    ("spec.templates[2].sidecars", [{"name": "wait", "image": "x"}], "spec.templates[2].sidecars[0].name", "Argo's own"),
    ("spec.templates[2].metrics", {"prometheus": [{"name": "a.b", "help": "h"}]}, "spec.templates[2].metrics.prometheus[0].name", "invalid"),
    # references
    ("spec.templates[1].script.source", "{{inputs.parameters.nope}}", "spec.templates[1].script.source", "failed to resolve {{inputs.parameters.nope}}"),
    ("spec.templates[1].script.source", "{{workflow.labels.nope}}", "spec.templates[1].script.source", "failed to resolve"),
    ("spec.templates[1].script.source", "{{inputs.parameters.n", "spec.templates[1].script.source", "missing"),
    ("spec.templates[2].container.args[0]", "{{tasks.prep.outputs.result}}", "spec.templates[2].container.args[0]", "failed to resolve"),
    ("spec.templates[2].container.args[0]", "{{workflow.failures}}", "spec.templates[2].container.args[0]", "failed to resolve"),
    ("spec.templates[2].container.args[0]", "{{=inputs.parameters.nope}}", "spec.templates[2].container.args[0]", "inputs.parameters.nope"),
    ("spec.templates[2].container.args[0]", "{{=1 +}}", "spec.templates[2].container.args[0]", "bad expression"),
    ("spec.templates[2].container.env", [{"name": "E", "value": "{{item.x}}"}], "spec.templates[2].container.env[0].value", "failed to resolve"),
    (f"{TASKS}[0].arguments.parameters[0].value", "{{tasks.nope.outputs.result}}", f"{TASKS}[0].arguments.parameters[0].value", "failed to resolve {{tasks.nope"),
    (f"{TASKS}[0].arguments.parameters[0].value", "{{tasks.train.outputs.parameters.acc}}", f"{TASKS}[0].arguments.parameters[0].value", "missing dependency 'train'"),
    (f"{TASKS}[0].arguments.parameters[0].value", "{{=tasks.nope.outputs.result}}", f"{TASKS}[0].arguments.parameters[0].value", "tasks.nope"),
    (f"{TASKS}[0].arguments.parameters[0].value", "{{=nope(1)}}", f"{TASKS}[0].arguments.parameters[0].value", "unknown function nope"),
    (f"{TASKS}[1].when", "{{tasks.pick.status}} == Succeeded", f"{TASKS}[1].when", "failed to resolve"),
    (f"{TASKS}[1].arguments.parameters[1].value", "{{tasks.prep.outputs.parameters.nope}}", f"{TASKS}[1].arguments.parameters[1].value", "failed to resolve"),
    (f"{STEPS}[0][1].arguments.parameters[0].value", "{{steps.three.outputs.result}}", f"{STEPS}[0][1].arguments.parameters[0].value", "failed to resolve"),
    (f"{STEPS}[1][0].arguments.parameters[0].value", "{{item.b}}", f"{STEPS}[1][0].arguments.parameters[0].value", "failed to resolve"),
    ("spec.templates[0].outputs.parameters[0].valueFrom.expression", "tasks.nope.outputs.parameters.x", "spec.templates[0].outputs.parameters[0].valueFrom.expression", "tasks.nope"),
    ("spec.templates[3].outputs.parameters[0].valueFrom.parameter", "{{steps.nope.outputs.result}}", "spec.templates[3].outputs.parameters[0].valueFrom.parameter", "failed to resolve"),
    (f"{TASKS}[0].arguments.parameters[0].value", "{{inputs.parameters.{{item}}}}", f"{TASKS}[0].arguments.parameters[0].value", "failed to resolve"),
    # calls
    (f"{TASKS}[0].template", "{{inputs.parameters.rows}}", f"{TASKS}[0].template", "undefined"),
    (f"{TASKS}[0].template", "{{workflow.parameters.rows}}", f"{TASKS}[0].template", "template name '100' undefined"),
    (f"{STEPS}[0][0].name", "one-{{item}}", f"{STEPS}[0][0].name", "invalid"),
    (f"{STEPS}[0][0].hooks", {"run": {"template": "wait"}}, f"{STEPS}[0][0].hooks.run.expression", "required"),
    ("spec.templates[2].container.resources", {"limits": {"cpu": "lots"}}, "spec.templates[2].container.resources.limits.cpu", "quantity"),
    (f"{TASKS}[1].arguments.artifacts[0]", {"name": "data", "s3": {"bucket": "b"}}, f"{TASKS}[1].arguments.artifacts[0]", "location"),
    (f"{TASKS}[0].template", "nowhere", f"{TASKS}[0].template", "template name 'nowhere' undefined"),
    (f"{STEPS}[0][0].template", "nowhere", f"{STEPS}[0][0].template", "undefined"),
    (f"{TASKS}[0].template", ..., f"{TASKS}[0].template", "required"),
    (f"{TASKS}[0].templateRef", {"name": "a", "template": "b"}, f"{TASKS}[0].template", "templateRef"),
    (f"{TASKS}[0].arguments", ..., f"{TASKS}[0].arguments.parameters", "inputs.parameters.n was not supplied"),
    (f"{TASKS}[1].arguments.artifacts", ..., f"{TASKS}[1].arguments.artifacts", "inputs.artifacts.data was not supplied"),
    (f"{STEPS}[0][1].arguments", {}, f"{STEPS}[0][1].arguments.parameters", "was not supplied"),
    (f"{TASKS}[0].arguments.parameters[0].value", ..., f"{TASKS}[0].arguments.parameters[0]", "value or valueFrom"),
    (f"{TASKS}[1].arguments.artifacts[0].from", ..., f"{TASKS}[1].arguments.artifacts[0]", "location"),
    (f"{TASKS}[1].withItems", [1], f"{TASKS}[1].withParam", "only one of"),
    (f"{TASKS}[0].withSequence", {"count": 1, "end": 2}, f"{TASKS}[0].withSequence", "only one of count or end"),
    (f"{TASKS}[0].withSequence", {"start": 1}, f"{TASKS}[0].withSequence", "neither end nor count"),
    (f"{TASKS}[0].when", "a =", f"{TASKS}[0].when", "when"),
    (f"{STEPS}[0][1].name", "one", f"{STEPS}[0][1].name", "not unique"),
    (f"{STEPS}[0][1].name", ..., f"{STEPS}[0][1].name", "required"),
    (f"{STEPS}[0][1].nmae", "x", f"{STEPS}[0][1].nmae", "no such field"),
    # the graph
    (TASKS, [], TASKS, "at least one task"),
    (f"{TASKS}[0].depends", "pick", TASKS, "cycle detected: "),
    (f"{TASKS}[0].depends", "prep", TASKS, "prep->prep"),
    (f"{TASKS}[0].depends", "nope", f"{TASKS}[0].depends", "dependency 'nope' not defined"),
    (f"{TASKS}[1].depends", "prep.Nope", f"{TASKS}[1].depends", "task result 'Nope'"),
    (f"{TASKS}[1].depends", "prep &&", f"{TASKS}[1].depends", "expected a task"),
    (f"{TASKS}[1].depends", "prep.AnySucceeded", f"{TASKS}[1].depends", "no items"),
    (f"{TASKS}[0].dependencies", ["train"], f"{TASKS}[0].dependencies", "cannot use both"),
    (f"{TASKS}[0].continueOn", {"failed": True}, f"{TASKS}[0].continueOn", "task.Failed"),
    (f"{TASKS}[0].name", "1prep", f"{TASKS}[0].name", "begin with a digit"),
    (f"{TASKS}[0].name", "prep2", f"{TASKS}[1].depends", "not defined"),
    (f"{TASKS}[2].name", "train", f"{TASKS}[2].name", "not unique"),
    ("spec.templates[0].dag.target", "nope", "spec.templates[0].dag.target", "target 'nope'"),
    # outputs
    ("spec.templates[2].outputs.parameters[0].valueFrom", {"parameter": "x"}, "spec.templates[2].outputs.parameters[0].valueFrom", "path must be specified"),
    ("spec.templates[0].outputs.parameters[0].valueFrom", {"path": "/x"}, "spec.templates[0].outputs.parameters[0].valueFrom", "parameter or expression"),
    ("spec.templates[2].outputs.parameters[0].valueFrom", ..., "spec.templates[2].outputs.parameters[0]", "valueFrom or value"),
    ("spec.templates[2].outputs.parameters[0].valueFrom.jqFilter", "x", "spec.templates[2].outputs.parameters[0].valueFrom", "multiple"),
    ("spec.templates[2].outputs.parameters[0].globalName", "a b", "spec.templates[2].outputs.parameters[0].globalName", "invalid"),
    ("spec.templates[1].outputs.artifacts[0].path", ..., "spec.templates[1].outputs.artifacts[0].path", "path"),
    ("spec.templates[0].outputs.artifacts", [{"name": "a", "path": "/x"}], "spec.templates[0].outputs.artifacts[0].path", "only valid"),
    ("spec.templates[0].outputs.artifacts", [{"name": "a", "fromExpression": "1 +"}], "spec.templates[0].outputs.artifacts[0].fromExpression", "bad expression"),
    # what fields hold
    ("spec.templates", {"a": 1}, "spec.templates", "must be a list, not a map"),
    ("spec.templates[0]", "main", "spec.templates[0]", "must be a map, not a string"),
    ("spec.templates[0]", None, "spec.templates[0]", "null"),
    ("spec.entrypoint", ["main"], "spec.entrypoint", "must be a text"),
    ("spec.templates[2].container.command", "sh", "spec.templates[2].container.command", "must be a list"),
    ("spec.templates[2].container.args[0]", 5, "spec.templates[2].container.args[0]", "put it in quotes"),
    ("spec.templates[2].container.env", [{"name": "E", "value": 5}], "spec.templates[2].container.env[0].value", "put it in quotes"),
    ("spec.templates[4].suspend.duration", 10, "spec.templates[4].suspend.duration", "put it in quotes"),
    (f"{TASKS}[0].when", True, f"{TASKS}[0].when", "must be a text"),
    (f"{TASKS}[0].depends", ["a"], f"{TASKS}[0].depends", "must be a text"),
    (f"{TASKS}[0].withItems", "{{x}}", f"{TASKS}[0].withItems", "must be a list"),
    (f"{TASKS}[0].withParam", [1], f"{TASKS}[0].withParam", "must be a text"),
    (f"{TASKS}[0].arguments.parameters[0].value", {"a": 1}, f"{TASKS}[0].arguments.parameters[0].value", "must be a text, a number"),
    (f"{STEPS}[0]", {"name": "x"}, f"{STEPS}[0]", "must be a list"),
    ("metadata.labels", {"team": 1}, "metadata.labels.team", "must be a text"),
]  # fmt: skip


@pytest.mark.parametrize(("where", "value", "path", "words"), CASES, ids=lambda it: str(it)[:60])
def test_what_argo_refuses_is_refused_with_the_path_of_the_field(where, value, path, words):
    document = changed(lambda it: put(it, where, value))
    with pytest.raises(ManifestError) as caught:
        check(document)
    assert (caught.value.path, words in caught.value.message) == (path, True), str(caught.value)


FINE = [
    (f"{STEPS}[1][0].name", "three-{{inputs.parameters.all}}"),
    ("spec.templates[2].container.resources", {"limits": {"cpu": "500m", "memory": "1.5Gi"}, "requests": {"cpu": 1}}),
    (f"{TASKS}[1].arguments.artifacts[0]", {"name": "data", "raw": {"data": ""}}),
    (f"{TASKS}[0].hooks", {"run": {"template": "wait"}}),
    ("spec.templates[2].inputs.artifacts[0].s3", {"key": "{{inputs.parameters.nope}}"}),
    ("spec.templates[2].container.args[0]", "{{unknown}} {{ .Values.x }} {{user.thing}} {{workflow.creationTimestamp.s}} {{workflow.outputs.parameters.acc}}"),
    ("spec.templates[1].script.source", "{{= this is another language }} {{ range .x }}{{ end }} a{{b"),
    ("spec.templates[2].container.args[0]", "{{=inputs.parameters.nope ?? 'x'}} {{=sprig.date('2006', workflow.creationTimestamp)}}"),
    ("spec.templates[1].activeDeadlineSeconds", "{{inputs.parameters.n}}"),
    (f"{TASKS}[0].withItems", [[1, 2], "x", {"k": 1}]),
    (f"{TASKS}[0].withSequence", {"count": "{{inputs.parameters.rows}}"}),
    (f"{TASKS}[2].inline", {"inputs": {"parameters": [{"name": "all"}]}, "container": {"image": "x", "args": ["{{inputs.parameters.all}}"]}}),
    ("spec.templates[1].inputs.parameters[0].default", "1"),
    ("spec.templates[0].parallelism", 2),
    ("spec.templates[0].dag.target", "prep train"),
    ("spec.onExit", "wait"),
    ("spec.someFieldOfTomorrow", {"a": 1}),
    (f"{TASKS}[0].hooks", {"exit": {"template": "wait"}, "run": {"template": "wait", "expression": "tasks.prep.status == 'Running'"}}),
]  # fmt: skip


@pytest.mark.parametrize(("where", "value"), FINE, ids=lambda it: str(it)[:60])
def test_what_argo_accepts_is_accepted(where, value):
    check(changed(lambda it: put(it, where, value)))


@pytest.mark.parametrize(
    "action", ["get", "create", "apply", "delete", "replace", "patch", "{{inputs.parameters.n}}"]
)
def test_the_actions_of_a_resource_are_those_of_argo(action):
    resource = {"action": action, "manifest": "kind: ConfigMap"}
    document = changed(lambda it: put(it, "spec.templates[1].script", ...))
    put(document, "spec.templates[1].resource", resource)
    put(document, "spec.templates[1].outputs", ...)
    put(document, "spec.entrypoint", "wait")
    put(document, "spec.templates[0]", {"name": "main", "suspend": {}})
    put(document, "spec.templates[3]", {"name": "pick", "suspend": {}})
    check(document)
    put(document, "spec.templates[1].resource.action", "remove")
    with pytest.raises(ManifestError, match="must be one of: get, create, apply, delete, replace, patch"):
        check(document)


def test_a_global_output_with_a_tag_in_its_name_may_be_referred_to():
    document = changed(
        lambda it: put(it, "spec.templates[2].container.args[0]", "{{workflow.outputs.parameters.acc-7}}")
    )
    with pytest.raises(ManifestError, match="failed to resolve"):
        check(document)
    put(document, "spec.templates[2].outputs.parameters[0].globalName", "acc-{{inputs.parameters.n}}")
    check(document)


def test_the_values_of_a_run_are_checked():
    document = changed(lambda it: put(it, "spec.arguments.parameters[0].value", ...))
    check(document, parameters={"rows": "5"})
    check(changed(lambda it: put(it, "spec.arguments.parameters", ...)), parameters={"rows": "5", "xs": "[]"})
    document = changed(lambda it: put(it, "spec.arguments.parameters[0].enum", ["5", "100"]))
    check(document)
    with pytest.raises(ManifestError, match="enum"):
        check(document, parameters={"rows": "6"})


def test_a_template_of_another_object_is_not_checked():
    ref = {"name": "shared", "template": "t"}
    document = changed(lambda it: put(it, f"{TASKS}[0]", {"name": "prep", "templateRef": ref}))
    check(document)
    with pytest.raises(ManifestError, match=r"templateRef\.name: is required"):
        check(changed(lambda it: put(it, f"{TASKS}[0]", {"name": "prep", "templateRef": {"template": "t"}})))


def test_a_workflow_from_a_workflow_template_has_no_templates_of_its_own():
    document = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "spec": {
            "workflowTemplateRef": {"name": "shared"},
            "arguments": {"parameters": [{"name": "a", "value": "1"}]},
        },
    }
    check(document)
    document["spec"]["templates"] = [{"name": "a", "suspend": {}}]
    with pytest.raises(ManifestError, match=r"spec\.templates: cannot"):
        check(document)


def test_workflow_templates_need_no_entrypoint_and_no_values():
    document = changed(lambda it: put(it, "kind", "WorkflowTemplate"))
    put(document, "spec.entrypoint", ...)
    put(document, "spec.arguments.parameters[0].value", ...)
    check(document)
    put(document, "spec.templates[2].container.args[0]", "{{workflow.parameters.from-its-user}}")
    check(document)
    put(document, f"{TASKS}[0].template", "nowhere")
    with pytest.raises(ManifestError, match="undefined"):
        check(document)


def test_a_cron_workflow_is_checked_below_its_workflow_spec():
    good = read(GOOD)
    document = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "CronWorkflow",
        "metadata": {"name": "c"},
        "spec": {"schedules": ["* * * * *"], "workflowSpec": good["spec"]},
    }
    document["metadata"]["labels"] = {"team": "ml"}
    check(document)
    broken = copy.deepcopy(document)
    put(broken, "spec.workflowSpec.templates[0].dag.tasks[0].template", "nowhere")
    with pytest.raises(ManifestError) as caught:
        check(broken)
    assert caught.value.path == "spec.workflowSpec.templates[0].dag.tasks[0].template"
    for schedule in (
        "* * * * * *",
        "60 * * * *",
        "a * * * *",
        "5-1 * * * *",
        "*/0 * * * *",
        "@sometimes",
        "",
    ):
        document["spec"]["schedules"] = ["@hourly", schedule]
        with pytest.raises(ManifestError) as caught:
            check(document)
        assert caught.value.path == "spec.schedules[1]"
    document["spec"]["schedules"] = [
        "CRON_TZ=Europe/Berlin 0,30 8-18/2 ? jan-mar mon-fri",
        "*/5 0 1 12 0",
        "@every 1h30m",
    ]
    check(document)
    del document["spec"]["schedules"]
    with pytest.raises(ManifestError, match=r"spec\.schedules"):
        check(document)


def test_a_thousand_tasks_that_wait_for_each_other_are_checked():
    tasks = [
        {"name": f"t{n}", "template": "work", "depends": " && ".join(f"t{m}" for m in range(max(0, n - 20), n)),
         "arguments": {"parameters": [{"name": "n", "value": f"{{{{tasks.t{n // 2}.outputs.result}}}}" if n > 1 else "0"}]}}
        for n in range(1000)
    ]  # fmt: skip
    document = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "spec": {"entrypoint": "main", "templates": [
        {"name": "main", "dag": {"tasks": tasks}},
        {"name": "work", "inputs": {"parameters": [{"name": "n"}]}, "container": {"image": "x"}}]}}  # fmt: skip
    check(document)
    tasks[0]["depends"] = "t999"
    with pytest.raises(ManifestError, match="cycle detected"):
        check(document)


def test_names_with_many_dots_take_little_memory():
    def change(it):
        put(it, f"{TASKS}[2].templateRef", {"name": "a", "template": "b"})
        put(it, f"{TASKS}[2].template", ...)
        put(it, f"{TASKS}[0].arguments.parameters[0].value", "{{tasks" + "." * 500_000 + "}}")

    with pytest.raises(ManifestError, match="failed to resolve"):
        check(changed(change))


def test_names_with_many_braces_take_little_time():
    with pytest.raises(ManifestError):
        check(changed(lambda it: put(it, f"{STEPS}[0][0].name", "{{" * 200_000)))


SHAPES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-2, 2),
        st.sampled_from(["", "a", "main", "prep", "{{item}}", "{{=1", "{{tasks.a.x}}", "a &&", "/x"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2),
        st.dictionaries(
            st.sampled_from(
                [
                    "name",
                    "template",
                    "value",
                    "parameters",
                    "steps",
                    "dag",
                    "tasks",
                    "inputs",
                    "outputs",
                    "container",
                    "x",
                ]
            ),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=6,
)


def places(value: object, path: str = "") -> list[str]:
    if isinstance(value, dict):
        below = [
            place for key, item in value.items() for place in places(item, f"{path}.{key}" if path else key)
        ]
    elif isinstance(value, list):
        below = [place for index, item in enumerate(value) for place in places(item, f"{path}[{index}]")]
    else:
        below = []
    return [*([path] if path else []), *below]


PLACES = places(read(GOOD))


@settings(max_examples=300)
@given(st.sampled_from(PLACES), SHAPES)
def test_any_value_of_a_field_is_accepted_or_refused(place, value):
    found = outcome(lambda: check(changed(lambda it: put(it, place, value))))
    assert found is None or (found.path and found.message)


@settings(max_examples=80)
@given(st.sampled_from(PLACES))
def test_a_manifest_without_a_field_is_accepted_or_refused(place):
    document = read(GOOD)
    put(document, place, ...)
    found = outcome(lambda: check(document))
    assert found is None or found.path


def test_a_check_does_not_change_the_manifest():
    document = read(GOOD)
    before = copy.deepcopy(document)
    check(document, parameters={"rows": "7"})
    assert document == before


def test_a_manifest_with_too_many_expressions_is_refused_in_little_time():
    args = [f"{{{{={'a' * 8_000} + {n}}}}}" for n in range(80)]
    with pytest.raises(ManifestError, match="characters of expressions") as caught:
        check(changed(lambda it: put(it, "spec.templates[2].container.args", args)))
    assert caught.value.path.startswith("spec.templates[2].container.args[")
