"""A container template: its document, its policy, and why it can not be cached."""

import json
from datetime import timedelta
from typing import Any

import pytest
from manifests import PROCESSES, gives, sh

from periplus_common.errors import Invalid
from periplus_dispatcher.manifest.pod_template import CommonSpec
from periplus_dispatcher.manifest.read import read
from periplus_dispatcher.manifest.template import describe_template
from periplus_dispatcher.manifest.uncacheable import StepEnvironment
from periplus_model.steps import CacheMode, CachePolicy, StepTemplate

Json = dict[str, Any]
CODE = "periplus.dev/code"


def described(
    template: Json,
    annotations: Json | None = None,
    environment: StepEnvironment = PROCESSES,
    **constants: str,
) -> StepTemplate:
    named = {f"workflow.parameters.{name}": value for name, value in constants.items()}
    return describe_template(template, "spec.templates[0]", named, annotations or {}, environment).step


def train(**more: Any) -> Json:
    return sh("train", "echo $x > /tmp/o", "x", outputs=gives("o"), **more)


def changed(**container: Any) -> Json:
    template = train()
    template["container"] |= container
    return template


SAME = {
    "name": train() | {"name": "other"},
    "retries": train(retryStrategy={"limit": "3"}),
    "deadline": train(activeDeadlineSeconds=5),
    "labels": train(metadata={"labels": {"a": "b"}}),
    "resources": changed(resources={"limits": {"cpu": "1"}}),
    "pull policy": changed(imagePullPolicy="Always"),
    "node": train(nodeSelector={"gpu": "yes"}),
    "the default of an input": train() | {"inputs": {"parameters": [{"name": "x", "value": "1"}]}},
    "nothing where nothing is": changed(workingDir="", env=train()["container"]["env"]),
    "its annotations without effect": train(metadata={"annotations": {"periplus.dev/ttl": "7d"}}),
}

OTHER = {
    "image": changed(image="busybox:2"),
    "command": changed(command=["bash", "-c"]),
    "args": changed(args=["echo other"]),
    "working directory": changed(workingDir="/srv"),
    "a variable's value": changed(env=[{"name": "x", "value": "1"}]),
    "a variable's name": changed(env=[{"name": "y", "value": "{{inputs.parameters.x}}"}]),
    "outputs": train() | {"outputs": gives("o", "p")},
    "an output's path": train()
    | {"outputs": {"parameters": [{"name": "o", "valueFrom": {"path": "/tmp/p"}}]}},
    "an output's default": train()
    | {"outputs": {"parameters": [{"name": "o", "valueFrom": {"path": "/tmp/o", "default": "1"}}]}},
    "an input artifact": train()
    | {"inputs": {"parameters": [{"name": "x"}], "artifacts": [{"name": "a", "path": "/tmp/a"}]}},
    "a hook of its container": changed(lifecycle={"postStart": {"exec": {"command": ["true"]}}}),
    "a user of its container": changed(securityContext={"runAsUser": 5}),
    "a user of its pod": train(securityContext={"runAsUser": 5}),
    "the host names of its pod": train(hostAliases=[{"ip": "10.0.0.1", "hostnames": ["db"]}]),
    "a sidecar": train(sidecars=[{"name": "s", "image": "redis"}]),
    "an init container": train(initContainers=[{"name": "s", "image": "busybox", "command": ["true"]}]),
    "a patch of its pod": train(podSpecPatch='{"containers": [{"name": "main", "image": "x"}]}'),
    "its code": train(metadata={"annotations": {CODE: '{"train.py": "sha256:1"}'}}),
}


@pytest.mark.parametrize("case", SAME)
def test_a_change_that_does_not_affect_what_a_step_does_leaves_its_document(case: str) -> None:
    assert described(SAME[case]).document == described(train()).document


@pytest.mark.parametrize("case", OTHER)
def test_a_change_of_what_a_step_does_changes_its_document(case: str) -> None:
    assert described(OTHER[case]).document != described(train()).document


def test_a_workflow_parameter_in_a_template_is_part_of_its_document() -> None:
    template = changed(image="{{workflow.parameters.image}}")
    one, two = described(template, image="a:1"), described(template, image="a:2")
    assert json.loads(one.document)["container"]["image"] == "a:1"
    assert one.document != two.document
    assert not one.uncacheable_reason


def test_the_environment_and_the_workflows_defaults_are_part_of_the_document() -> None:
    documents = {
        described(train()).document,
        described(train(), environment=StepEnvironment(runs_images=False, digest="sha256:1")).document,
        describe_template(
            train(), "", {}, {}, PROCESSES, CommonSpec({"defaults": {"container": {"workingDir": "/srv"}}})
        ).step.document,
    }
    assert len(documents) == 3


def test_a_document_is_the_same_whatever_the_order_of_fields() -> None:
    template = train()
    turned = json.loads(json.dumps(dict(reversed(template.items()))))
    turned["container"] = dict(reversed(template["container"].items()))
    assert described(turned).document == described(template).document


UNCACHEABLE = {
    "side effects": (train(metadata={"annotations": {"periplus.dev/side-effects": "true"}}), "side-effects"),
    "daemon": (train(daemon=True), "daemon"),
    "memoize": (train(memoize={"key": "k"}), "memoize"),
    "a mounted volume": (changed(volumeMounts=[{"name": "v", "mountPath": "/v"}]), "volume v"),
    "a mount of a sidecar": (
        train(sidecars=[{"name": "s", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]),
        "volume v",
    ),
    "envFrom": (changed(envFrom=[{"secretRef": {"name": "s"}}]), "its envFrom comes from the Secret s"),
    "a secret": (
        changed(env=[{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]),
        "KEY comes from",
    ),
    "a label of the pod": (
        changed(env=[{"name": "FLAVOUR", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['flavour']"}}}]),
        "FLAVOUR comes from a field of the pod",
    ),
    "a limit of the container": (
        changed(env=[{"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}]),
        "CPU comes from a field of the pod",
    ),
    "a field of the pod in an init container": (
        train(initContainers=[{"name": "i", "image": "b", "env": [{"name": "N", "valueFrom": {"fieldRef": {}}}]}]),
        "N comes from a field of the pod",
    ),
    "a ConfigMap": (
        changed(env=[{"name": "KEY", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}]),
        "KEY comes from the ConfigMap c",
    ),
    "a secret in a patch of its pod": (
        train(podSpecPatch='{"containers": [{"name": "main", "envFrom": [{"secretRef": {"name": "s"}}]}]}'),
        "its envFrom comes from the Secret s",
    ),
    "a patch of its pod that only the run completes": (train(podSpecPatch="{{inputs.parameters.x}}"), "podSpecPatch"),
    "a global output": (
        train() | {"outputs": {"parameters": [{"name": "o", "globalName": "g", "valueFrom": {"path": "/tmp/o"}}]}},
        "global",
    ),
    "an output with a place": (
        train() | {"outputs": {"artifacts": [{"name": "m", "path": "/tmp/m", "s3": {"key": "models/m"}}]}},
        "output m names the object",
    ),
    "the workflow's name in a hook": (
        changed(lifecycle={"postStart": {"exec": {"command": ["echo", "{{workflow.name}}"]}}}), "workflow.name",
    ),
    "the workflow's name": (changed(args=["echo {{workflow.name}}"]), "workflow.name"),
    "the pod's name": (changed(args=["echo {{pod.name}}"]), "pod.name"),
    "a parameter in an expression": (changed(args=["{{=workflow.parameters.x}}"]), "workflow.parameters.x"),
    "the time": (changed(args=["{{=sprig.date('2006', now())}}"]), "now"),
    "chance": (changed(args=["{{=sprig.uuidv4()}}"]), "uuidv4"),
    "the time on a line of its own": (changed(args=["{{=\n  sprig.now()\n}}"]), "uses now"),
    "the time with a blank": (changed(args=["{{=now ()}}"]), "uses now"),
    "the time since": (changed(args=["{{=sprig.ago(sprig.toDate('2006', '2020'))}}"]), "uses ago"),
    "a text that stands for the present": (changed(args=["{{=sprig.date('2006', inputs.parameters.x)}}"]), "uses date"),
    "a literal that stands for the present": (changed(args=["{{=sprig.htmlDate('today')}}"]), "uses htmlDate"),
    "chance in a predicate": (changed(args=["{{=map([1], {sprig.randAlpha(5)})}}"]), "uses randAlpha"),
    "a block device": (changed(volumeDevices=[{"name": "v", "devicePath": "/v"}]), "volume v"),
}  # fmt: skip


@pytest.mark.parametrize("case", UNCACHEABLE)
def test_an_uncacheable_template_has_a_reason(case: str) -> None:
    template, word = UNCACHEABLE[case]
    assert word in described(template).uncacheable_reason
    assert not described(train()).uncacheable_reason


COMMON: dict[str, tuple[Json, str]] = {
    "a variable of a Secret": (
        {"defaults": {"container": {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}}},
        "A comes from",
    ),
    "a sidecar with a volume": (
        {"defaults": {"sidecars": [{"name": "s", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]}},
        "volume v",
    ),
    "a daemon": ({"defaults": {"daemon": True}}, "daemon"),
    "a field of the pod in a patch": (
        {"patch": "containers: [{name: main, env: [{name: N, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]}]"},
        "N comes from a field of the pod",
    ),
    "the time": ({"defaults": {"container": {"args": ["{{=now()}}"]}}}, "now"),
}  # fmt: skip


@pytest.mark.parametrize("case", COMMON)
def test_template_defaults_and_patches_can_make_a_step_uncacheable(case: str) -> None:
    common, word = COMMON[case]
    described = describe_template(train(), "", {}, {}, PROCESSES, CommonSpec(common))
    assert word in described.step.uncacheable_reason


def test_a_parameter_that_brings_the_time_makes_a_step_uncacheable() -> None:
    template = changed(args=["echo {{workflow.parameters.w}}"])
    assert "uses now" in described(template, w="{{=sprig.now()}}").uncacheable_reason
    assert described(template, w="now()").uncacheable_reason == ""


@pytest.mark.parametrize(
    "expression",
    [
        "sprig.date('2006-01', sprig.toDate('2006-01-02', inputs.parameters.x))",
        "inputs.parameters.x + ' now() '",
        "sprig.date('2006', 0)",
        "sprig.trim(inputs.parameters.x)",
    ],
)
def test_an_expression_whose_value_is_the_same_at_each_call_leaves_a_step_cacheable(expression: str) -> None:
    assert described(changed(args=["{{=" + expression + "}}"])).uncacheable_reason == ""


def test_an_image_that_only_the_run_knows_is_not_cached_and_the_reason_says_what_to_do() -> None:
    for template in (
        changed(image="{{inputs.parameters.x}}"),
        changed(image="i" + DIGEST)
        | {"podSpecPatch": '{"containers": [{"name": "main", "image": "{{inputs.parameters.x}}"}]}'},
    ):
        reason = described(template, environment=IMAGES).uncacheable_reason
        assert "is known only during the run: write it in the template, pinned" in reason
        assert "a parameter of the workflow" in reason


def test_a_patch_of_resources_with_a_parameter_leaves_a_step_cacheable() -> None:
    patch = '{"containers": [{"name": "main", "resources": {"limits": {"memory": "{{inputs.parameters.x}}Mi", "cpu": {{inputs.parameters.x}}}}}]}'
    assert described(train(podSpecPatch=patch)).uncacheable_reason == ""


DIGEST = "@sha256:" + "a" * 64
IMAGES = StepEnvironment(runs_images=True, immutable_image_prefixes=("registry/pinned/", "base:"))
UNPINNED: dict[str, tuple[Json, str]] = {
    "a tag": (changed(image="python:3.11"), "python:3.11"),
    "no tag": (changed(image="busybox"), "busybox"),
    "an init container": (
        changed(image="i" + DIGEST) | {"initContainers": [{"name": "c", "image": "init:1"}]}, "init:1",
    ),
    "a sidecar": (changed(image="i" + DIGEST) | {"sidecars": [{"name": "c", "image": "side:1"}]}, "side:1"),
    "a patch of the pod": (
        changed(image="i" + DIGEST) | {"podSpecPatch": '{"containers": [{"name": "main", "image": "other:1"}]}'},
        "other:1",
    ),
    "a name that only contains the prefix": (changed(image="elsewhere/registry/pinned/x:1"), "elsewhere"),
}  # fmt: skip


@pytest.mark.parametrize("case", UNPINNED)
def test_a_step_whose_image_can_change_under_its_tag_is_not_cached_and_the_reason_says_what_to_do(
    case: str,
) -> None:
    template, image = UNPINNED[case]
    reason = described(template, environment=IMAGES).uncacheable_reason
    assert f"its image {image}" in reason
    assert "@sha256:…" in reason
    assert "DISPATCHER_IMMUTABLE_IMAGE_PREFIXES" in reason
    assert described(template).uncacheable_reason == "", "processes do not use it"


@pytest.mark.parametrize("image", ["busybox" + DIGEST, "busybox:1" + DIGEST, "registry/pinned/x:1", "base:1"])
def test_a_step_whose_images_can_not_change_is_cached(image: str) -> None:
    template = changed(image=image) | {"sidecars": [{"name": "c", "image": "side" + DIGEST}]}
    assert described(template, environment=IMAGES).uncacheable_reason == ""


def test_a_workflow_parameter_can_pin_an_image() -> None:
    template = changed(image="busybox{{workflow.parameters.pin}}")
    assert "busybox:1" in described(template, environment=IMAGES, pin=":1").uncacheable_reason
    assert described(template, environment=IMAGES, pin=DIGEST).uncacheable_reason == ""


def test_an_image_of_the_defaults_of_templates_must_be_pinned_as_well() -> None:
    template = changed(image="")
    assert "names no image" in described(template, environment=IMAGES).uncacheable_reason
    for image, pinned in (("busybox:1", False), ("busybox" + DIGEST, True)):
        common = {"defaults": {"container": {"image": image}}}
        reason = describe_template(template, "", {}, {}, IMAGES, CommonSpec(common)).step.uncacheable_reason
        assert (reason == "") == pinned


@pytest.mark.parametrize(
    ("of_workflow", "of_artifact", "deleted"),
    [
        ("", "", False), ("Never", "", False), ("OnWorkflowDeletion", "", True), ("OnWorkflowCompletion", "", True),
        ("OnWorkflowDeletion", "Never", False), ("", "OnWorkflowCompletion", True), ("Never", "OnWorkflowDeletion", True),
    ],
)  # fmt: skip
def test_a_step_whose_output_is_deleted_by_artifact_gc_is_not_cached(
    of_workflow: str, of_artifact: str, deleted: bool
) -> None:
    artifact = {"name": "m", "path": "/tmp/m"} | (
        {"artifactGC": {"strategy": of_artifact}} if of_artifact else {}
    )
    template = train() | {"outputs": {"artifacts": [artifact]}}
    common = CommonSpec({}, artifact_gc=of_workflow)
    reason = describe_template(template, "", {}, {}, PROCESSES, common).step.uncacheable_reason
    assert bool(reason) == deleted
    assert not deleted or "artifactGC deletes its output m" in reason


def test_a_step_without_output_artifacts_is_cached_in_a_workflow_with_artifact_gc() -> None:
    manifest = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "spec": {
            "entrypoint": "a",
            "artifactGC": {"strategy": "OnWorkflowDeletion"},
            "templates": [
                sh("a", "echo > /tmp/o", outputs=gives("o")),
                sh("b", "echo > /tmp/o", outputs={"artifacts": [{"name": "o", "path": "/tmp/o"}]}),
            ],
        },
    }
    templates = read(json.dumps(manifest), {}).expand(PROCESSES).templates
    assert templates["a"].step.uncacheable_reason == ""
    assert "OnWorkflowDeletion" in templates["b"].step.uncacheable_reason


def test_a_template_overrides_the_policy_of_its_workflow() -> None:
    own = train(metadata={"annotations": {"periplus.dev/cache": "off"}})
    common = {
        "periplus.dev/cache": "read",
        "periplus.dev/ttl": "1h30m",
        "periplus.dev/ignore-inputs": "a, b,",
    }
    assert described(own, common).policy == CachePolicy(
        CacheMode.OFF, timedelta(hours=1.5), frozenset({"a", "b"})
    )
    assert described(train(), common).policy.mode is CacheMode.READ
    assert described(train(metadata={"annotations": None}), common).policy.mode is CacheMode.READ


@pytest.mark.parametrize(
    ("name", "value"),
    [("cache", "sometimes"), ("ttl", "7"), ("ttl", "7 d"), ("ttl", "9999999w"), ("ttl", "9" * 400 + "w"),
     ("ignore-inputs", ",".join(f"i{i}" for i in range(101))), ("ttl", "-1s"), ("side-effects", "maybe"), ("code", "{"),
     ("code", "[]"), ("code", '{"a": 1}')],
)  # fmt: skip
def test_an_invalid_policy_is_refused_with_its_field(name: str, value: str) -> None:
    with pytest.raises(Invalid) as refused:
        described(train(metadata={"annotations": {f"periplus.dev/{name}": value}}))
    assert refused.value.field == f"spec.templates[0].metadata.annotations['periplus.dev/{name}']"


OTHER_SYNTAX = {
    "an f-string": """open("/tmp/m", "w").write(f'{{"w": {w}, "b": {b}}}')""",
    "Jinja": "{% for item in items %}{{ item.name | upper }} {{ loop.index }}{% endfor %}",
    "a Go template": "{{ .Values.image }}{{- if eq $x 1 }}{{ end -}}",
    "LaTeX": "\\frac{{a}}{{b}}",
}


def script(source: str) -> Json:
    return {
        "name": "t",
        "inputs": {"parameters": [{"name": "x"}]},
        "script": {"image": "python", "command": ["python"], "source": source},
        "outputs": gives("o"),
    }


@pytest.mark.parametrize("case", OTHER_SYNTAX)
def test_braces_that_are_no_tags_are_text_in_the_document(case: str) -> None:
    found = described(script(OTHER_SYNTAX[case]))
    assert found.uncacheable_reason == ""
    assert json.loads(found.document)["script"]["source"] == OTHER_SYNTAX[case]


@pytest.mark.parametrize(
    "reference", ["workflow.uid", "pod.name", "retries", "node.name", "lastRetry.exitCode"]
)
@pytest.mark.parametrize("around", [*OTHER_SYNTAX.values(), """f'{{"w": {w}, "id": "REF"}}'""", "{{ {{REF"])
def test_volatile_references_are_found_among_braces_that_are_text(reference: str, around: str) -> None:
    tag = "{{" + reference + "}}"
    source = around.replace("REF", tag) if "REF" in around else around + tag
    assert (
        described(script(source)).uncacheable_reason == f"it uses {reference}, which differs from run to run"
    )
