"""What a step gets that no input declares: a key has a version of it, or the step is not cached and the reason names what mends it."""

import json
from typing import Any

import pytest
from manifests import PROCESSES, gives, sh, workflow

from periplus_common.errors import Invalid
from periplus_dispatcher.domain import ConfigObject, ConfigRef, ConfigVersion, ContainerTemplate
from periplus_dispatcher.manifest import read as manifests
from periplus_dispatcher.manifest.config import getting_config, ignored_warnings
from periplus_dispatcher.manifest.uncacheable import NOT_READ, StepEnvironment

Json = dict[str, Any]
MOUNT = {"name": "v", "mountPath": "/v"}
PLACES = ("container", "initContainers", "sidecars", "defaults", "default sidecars", "patch", "template patch", "default patch")  # fmt: skip


def placed(place: str, container: Json, volume: Json | None = None, **annotations: str) -> Json:
    """A workflow of one step, in which a container at a place has these fields, and the pod the volume."""
    template = sh("main", "echo > /tmp/o", outputs=gives("o"))
    spec: Json = {}
    volumes = {"volumes": [{"name": "v", **volume}]} if volume else {}
    named = {"name": "c", "image": "busybox", **container}
    patch = json.dumps({"containers": [{"name": "main", **container}], **volumes})
    if place == "container":
        template = {**template, "container": {**template["container"], **container}, **volumes}
    elif place in ("initContainers", "sidecars"):
        template = {**template, place: [named], **volumes}
    elif place == "defaults":
        spec["templateDefaults"] = {"container": container, **volumes}
    elif place == "default sidecars":
        spec |= {"templateDefaults": {"sidecars": [named]}, **volumes}
    elif place == "patch":
        spec["podSpecPatch"] = patch
    elif place == "template patch":
        template["podSpecPatch"] = patch
    else:
        spec["templateDefaults"] = {"podSpecPatch": patch}
    if annotations:
        named_annotations = {
            f"periplus.dev/{name.replace('_', '-')}": value for name, value in annotations.items()
        }
        template["metadata"] = {"annotations": named_annotations}
    return workflow(template, **spec)


def described(manifest: Json, environment: StepEnvironment = PROCESSES) -> ContainerTemplate:
    return manifests.read(json.dumps(manifest), {}).expand(environment).templates["main"]


def reason(manifest: Json, environment: StepEnvironment = PROCESSES) -> str:
    return described(manifest, environment).step.uncacheable_reason


def variable(**source: Json) -> Json:
    return {"env": [{"name": "N", "valueFrom": source}]}


POD_FIELDS = {
    "a label": {"fieldRef": {"fieldPath": "metadata.labels['a']"}},
    "an annotation": {"fieldRef": {"fieldPath": "metadata.annotations['a']"}},
    "the pod's name": {"fieldRef": {"fieldPath": "metadata.name"}},
    "the pod's uid": {"fieldRef": {"fieldPath": "metadata.uid"}},
    "the node": {"fieldRef": {"fieldPath": "spec.nodeName"}},
    "a limit": {"resourceFieldRef": {"resource": "limits.cpu"}},
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("field", POD_FIELDS)
def test_a_field_of_the_pod_is_not_part_of_the_key_and_an_annotation_says_that_it_does_not_matter(
    place: str, field: str
) -> None:
    manifest = placed(place, variable(**POD_FIELDS[field]))
    assert reason(manifest) == (
        "its variable N comes from a field of the pod, which is not part of the key: annotate periplus.dev/ignore-env: N "
        "if it does not change the result"
    )
    ignored = described(placed(place, variable(**POD_FIELDS[field]), ignore_env="N, M"))
    assert ignored.step.uncacheable_reason == ""
    if "patch" not in place:
        assert "valueFrom" not in ignored.step.document


VOLUMES: dict[str, tuple[Json, str]] = {
    "a claim": ({"persistentVolumeClaim": {"claimName": "c"}}, "a persistentVolumeClaim"),
    "the node's disk": ({"hostPath": {"path": "/data"}}, "a hostPath"),
    "fields of the pod": ({"downwardAPI": {"items": []}}, "a downwardAPI"),
    "projected fields of the pod": (
        {"projected": {"sources": [{"downwardAPI": {"items": []}}]}},
        "a projected downwardAPI",
    ),
    "a token": ({"projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}, "a projected serviceAccountToken"),
    "a driver": ({"csi": {"driver": "d"}}, "a csi"),
    "a server": ({"nfs": {"server": "s", "path": "/"}}, "a nfs"),
    "an ephemeral claim": ({"ephemeral": {}}, "a ephemeral"),
    "no kind": ({}, "a nothing"),
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", VOLUMES)
def test_a_volume_whose_content_others_decide_is_not_part_of_the_key(place: str, kind: str) -> None:
    volume, origin = VOLUMES[kind]
    manifest = placed(place, {"volumeMounts": [MOUNT]}, {**volume, "name": "v"})
    assert reason(manifest) == (
        f"its volume v comes from {origin}, which is not part of the key: annotate periplus.dev/ignore-volumes: v "
        "if it does not change the result"
    )
    ignored = described(placed(place, {"volumeMounts": [MOUNT]}, {**volume, "name": "v"}, ignore_volumes="v"))
    assert ignored.step.uncacheable_reason == ""
    if "patch" not in place:
        assert "/v" not in ignored.step.document


def test_a_claim_of_the_workflow_and_a_volume_that_nobody_declares_are_not_part_of_the_key() -> None:
    for more, origin in (
        ({"volumeClaimTemplates": [{"metadata": {"name": "v"}, "spec": {}}]}, "a persistentVolumeClaim"),
        ({"volumes": [{"name": "v", "hostPath": {"path": "/d"}}]}, "a hostPath"),
        ({}, "a volume that the workflow does not declare"),
    ):
        manifest = placed("container", {"volumeMounts": [MOUNT]})
        manifest["spec"] |= more
        assert f"its volume v comes from {origin}, which is not part" in reason(manifest)
    devices = placed("container", {"volumeDevices": [{"name": "v", "devicePath": "/dev/x"}]})
    assert "its volume v comes from a volume that" in reason(devices)


def test_an_empty_folder_is_cacheable_and_where_it_is_mounted_is_part_of_the_key() -> None:
    documents = set()
    for path in ("/scratch", "/other"):
        manifest = placed("container", {"volumeMounts": [{"name": "v", "mountPath": path}]}, {"emptyDir": {}})
        assert reason(manifest) == ""
        documents.add(described(manifest).step.document)
    assert len(documents) == 2
    redefined = placed("patch", {"volumeMounts": [MOUNT]}, {"hostPath": {"path": "/"}})
    redefined["spec"]["volumes"] = [{"name": "v", "emptyDir": {}}]
    assert "a hostPath" in reason(redefined), "the patch makes another volume of it"


def test_a_volume_that_no_container_mounts_changes_nothing() -> None:
    plain = placed("container", {})
    manifest = placed("container", {})
    manifest["spec"]["volumes"] = [{"name": "v", "hostPath": {"path": "/"}}]
    assert described(manifest) == described(plain)


SECRET, CONFIG_MAP = ConfigObject("Secret", "s"), ConfigObject("ConfigMap", "s")
CONFIG: dict[str, tuple[Json, Json | None, list[ConfigRef]]] = {
    "a key of a Secret": (variable(secretKeyRef={"name": "s", "key": "k"}), None, [ConfigRef(SECRET, "k")]),
    "a key of a ConfigMap": (
        variable(configMapKeyRef={"name": "s", "key": "k", "optional": True}),
        None,
        [ConfigRef(CONFIG_MAP, "k", is_optional=True)],
    ),
    "all of a Secret": ({"envFrom": [{"secretRef": {"name": "s"}}]}, None, [ConfigRef(SECRET)]),
    "all of a ConfigMap": ({"envFrom": [{"prefix": "P_", "configMapRef": {"name": "s"}}]}, None, [ConfigRef(CONFIG_MAP)]),
    "a volume of a Secret": ({"volumeMounts": [MOUNT]}, {"secret": {"secretName": "s"}}, [ConfigRef(SECRET)]),
    "keys in a volume": (
        {"volumeMounts": [MOUNT]},
        {"configMap": {"name": "s", "items": [{"key": "a", "path": "x"}, {"key": "b", "path": "y"}]}},
        [ConfigRef(CONFIG_MAP, "a"), ConfigRef(CONFIG_MAP, "b")],
    ),
    "a projected volume": (
        {"volumeMounts": [MOUNT]},
        {"projected": {"sources": [{"secret": {"name": "s", "optional": True}}, {"configMap": {"name": "s"}}]}},
        [ConfigRef(SECRET, is_optional=True), ConfigRef(CONFIG_MAP)],
    ),
}  # fmt: skip


def with_versions(refs: list[ConfigRef], version: str) -> StepEnvironment:
    return StepEnvironment(
        runs_images=False, config=tuple((ref, ConfigVersion(version, "7")) for ref in refs)
    )


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", CONFIG)
def test_the_key_has_the_version_of_what_a_step_gets_of_a_secret_or_a_config_map(
    place: str, kind: str
) -> None:
    fields, volume, refs = CONFIG[kind]
    manifest = placed(place, fields, volume)
    (pod,) = getting_config(manifests.read(json.dumps(manifest), {}))
    assert sorted(pod.config) == sorted(refs)
    one, two = (described(manifest, with_versions(refs, version)) for version in ("one", "two"))
    assert (one.step.uncacheable_reason, two.step.uncacheable_reason) == ("", "")
    assert one.step.document != two.step.document
    assert one.step.document.replace('"one"', '"two"') == two.step.document
    assert set(one.config) == {ref.object.id for ref in refs}
    without = reason(manifest)
    assert f"comes from the {refs[0].object}, {NOT_READ}, or annotate periplus.dev/ignore-" in without


@pytest.mark.parametrize("kind", CONFIG)
def test_what_an_annotation_ignores_is_neither_read_nor_part_of_the_key(kind: str) -> None:
    fields, volume, _ = CONFIG[kind]
    ignored = {"ignore_env": "N", "ignore_env_from": "s", "ignore_volumes": "v"}
    manifest = placed("container", fields, volume, **ignored)
    (pod,) = getting_config(manifests.read(json.dumps(manifest), {}))
    assert pod.config == ()
    plain = described(placed("container", {}))
    assert described(manifest).step.document == plain.step.document
    assert reason(manifest) == ""


def test_a_variable_of_env_from_can_be_ignored_by_its_name() -> None:
    fields = {"envFrom": [{"prefix": "DB_", "secretRef": {"name": "s"}}]}
    (pod,) = getting_config(
        manifests.read(json.dumps(placed("container", fields, ignore_env="DB_token,X")), {})
    )
    assert pod.config == (ConfigRef(SECRET, without=("token",)),)


def test_a_plain_variable_that_is_ignored_may_differ_from_run_to_run() -> None:
    fields = {"env": [{"name": "RUN", "value": "{{workflow.name}}"}, {"name": "A", "value": "1"}]}
    assert "workflow.name" in reason(placed("container", fields))
    ignored = described(placed("container", fields, ignore_env="RUN"))
    assert ignored.step.uncacheable_reason == ""
    plain = placed("container", {"env": [{"name": "A", "value": "1"}]})
    assert ignored.step.document == described(plain).step.document


def test_which_secret_it_is_may_come_from_a_parameter_of_the_workflow_but_not_of_the_run() -> None:
    fields = variable(secretKeyRef={"name": "{{workflow.parameters.of}}-db", "key": "k"})
    manifest = placed("container", fields)
    manifest["spec"]["arguments"] = {"parameters": [{"name": "of", "value": "dev"}]}
    (pod,) = getting_config(manifests.read(json.dumps(manifest), {"of": "prod"}))
    assert pod.config == (ConfigRef(ConfigObject("Secret", "prod-db"), "k"),)
    for place in ("container", "patch"):
        during = placed(place, variable(secretKeyRef={"name": "{{inputs.parameters.of}}", "key": "k"}))
        during["spec"]["templates"][0]["inputs"] = {"parameters": [{"name": "of", "value": "dev"}]}
        (pod,) = getting_config(manifests.read(json.dumps(during), {}))
        assert pod.config == ()
        assert "which Secret its variable N comes from is known only during the run" in reason(during)


def test_an_annotation_that_names_nothing_of_its_steps_is_a_warning() -> None:
    def warnings(manifest: Json) -> list[str]:
        return ignored_warnings(getting_config(manifests.read(json.dumps(manifest), {})))

    manifest = placed("container", variable(secretKeyRef={"name": "s", "key": "k"}), ignore_env="M,N")
    assert warnings(manifest) == ["periplus.dev/ignore-env names M, which no step has to which it applies"]
    of_workflow = placed("container", variable(secretKeyRef={"name": "s", "key": "k"}))
    of_workflow["spec"]["templates"].append(sh("other", "true"))
    of_workflow["metadata"]["annotations"] = {
        "periplus.dev/ignore-env": "N,M",
        "periplus.dev/ignore-env-from": "s",
        "periplus.dev/ignore-volumes": "w",
    }
    assert [each.split(",")[0] for each in warnings(of_workflow)] == [
        "periplus.dev/ignore-env names M",
        "periplus.dev/ignore-env-from names s",
        "periplus.dev/ignore-volumes names w",
    ]
    from_all = placed(
        "patch", {"envFrom": [{"secretRef": {"name": "s"}}]}, ignore_env="ANY", ignore_env_from="s"
    )
    assert warnings(from_all) == []


@pytest.mark.parametrize("name", ["ignore-env", "ignore-env-from", "ignore-volumes"])
def test_an_annotation_with_too_many_names_is_refused_with_its_field(name: str) -> None:
    manifest = placed("container", {}, **{name: ",".join(f"n{i}" for i in range(101))})
    with pytest.raises(Invalid) as refused:
        getting_config(manifests.read(json.dumps(manifest), {}))
    field = f"spec.manifest.spec.templates[0].metadata.annotations['periplus.dev/{name}']"
    assert (refused.value.field, refused.value.message) == (field, "has more than 100 names")


@pytest.mark.parametrize(
    "patch",
    [
        {"containers": "x"},
        {"containers": [1, {"env": 1, "envFrom": {"a": 1}, "volumeMounts": "v"}]},
        {"containers": [{"env": [{"name": "N", "valueFrom": 1}], "envFrom": [{"secretRef": "s"}, 2]}]},
        {"containers": [{"volumeMounts": [MOUNT]}], "volumes": [{"name": "v", "secret": 1, "projected": {"sources": 1}}]},
        {"containers": [{"env": [{"name": "N", "valueFrom": {"secretKeyRef": 1}}]}], "volumes": 7},
    ],
)  # fmt: skip
def test_fields_of_another_type_than_kubernetes_has_are_survived(patch: Json) -> None:
    manifest = placed("container", {})
    manifest["spec"]["podSpecPatch"] = json.dumps(patch)
    getting_config(manifests.read(json.dumps(manifest), {}))
    described(manifest)


@pytest.mark.parametrize("by_parameter", [False, True])
def test_what_a_workflow_adds_to_all_of_its_templates_is_bounded(by_parameter: bool) -> None:
    """It is part of each of their documents: a manifest of 1 MiB would make gigabytes of them."""
    patch = json.dumps({"containers": [{"name": "main", "args": ["secret" * 2000]}]})
    manifest = workflow(*(sh(f"t{number}", "true", outputs=gives("o")) for number in range(1500)))
    manifest["spec"]["podSpecPatch"] = "{{workflow.parameters.p}}" if by_parameter else patch
    manifest["spec"]["arguments"] = {"parameters": [{"name": "p", "value": patch}]}
    checked = manifests.read(json.dumps(manifest), {})
    assert getting_config(checked) == []
    expanded = checked.expand(PROCESSES)
    assert (expanded.calls, dict(expanded.templates)) == ((), {})
    assert expanded.warnings == (
        "no step is planned or cached: podSpecPatch and templateDefaults add more than 16777216 characters to the templates",
    )


def test_many_volumes_of_many_templates_are_found_by_their_names() -> None:
    """Compared one by one, they kept a processor for minutes."""
    mount = {"container": {"image": "b", "volumeMounts": [{"name": "v7", "mountPath": "/x"}]}}
    manifest = workflow(*({"name": f"t{number}", "outputs": gives("o"), **mount} for number in range(3000)))
    manifest["spec"]["volumes"] = [{"name": f"v{number}", "emptyDir": {}} for number in range(8000)]
    (call,) = manifests.read(json.dumps(manifest), {}).expand(PROCESSES).calls
    assert call.query is not None
