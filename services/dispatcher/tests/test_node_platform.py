"""A result of one architecture is not served on another: what a pod chooses is in its key, and a pod that chooses nothing is not cached
on a mixed cluster.
"""

import json
from typing import Any

import pytest
from manifests import PROCESSES, gives, sh, workflow

from periplus_dispatcher.domain import ContainerTemplate
from periplus_dispatcher.manifest import read as manifests
from periplus_dispatcher.manifest.uncacheable import StepEnvironment

Json = dict[str, Any]
MIXED = StepEnvironment(immutable_image_prefixes=("busybox",), node_platforms=("linux/amd64", "linux/arm64"))
ONE = StepEnvironment(immutable_image_prefixes=("busybox",), node_platforms=("linux/amd64",))
UNKNOWN = StepEnvironment(immutable_image_prefixes=("busybox",))


def selects(arch: str = "arm64") -> Json:
    return {"nodeSelector": {"kubernetes.io/arch": arch}}


def requires(*architectures: str, operator: str = "In") -> Json:
    terms = [
        {"matchExpressions": [{"key": "kubernetes.io/arch", "operator": operator, "values": [each]}]}
        for each in architectures
    ]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    return {"affinity": {"nodeAffinity": required}}


def described(place: str, chosen: Json, environment: StepEnvironment) -> ContainerTemplate:
    template, spec = sh("main", "uname -m > /tmp/o", outputs=gives("o")), {}
    if place == "template":
        template |= chosen
    elif place == "spec":
        spec = chosen
    elif place == "defaults":
        spec = {"templateDefaults": chosen}
    else:
        template["podSpecPatch"] = json.dumps(chosen)
    return manifests.read(json.dumps(workflow(template, **spec)), {}).expand(environment).templates["main"]


@pytest.mark.parametrize("place", ["template", "spec", "defaults", "patch"])
@pytest.mark.parametrize("choose", [selects, requires], ids=["selector", "affinity"])
def test_the_architecture_that_a_pod_chooses_is_part_of_the_key(place: str, choose: Any) -> None:
    keys = [
        described(place, chosen, environment).step.document
        for environment in (UNKNOWN, ONE, MIXED)
        for chosen in ({}, choose("arm64"), choose("amd64"))
    ]
    assert keys[:3] == keys[3:6] == keys[6:]
    assert len(set(keys[:3])) == 3
    assert not described(place, choose("arm64"), MIXED).step.uncacheable_reason


@pytest.mark.parametrize(
    "chosen",
    [
        {},
        {"nodeSelector": {"pool": "batch"}},
        requires("amd64", "arm64"),
        requires("arm64", operator="NotIn"),
        {"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1}]}}},
        {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{}]}}}},
    ],
    ids=["nothing", "a pool", "either", "another", "preferred", "an empty term"],
)  # fmt: skip
def test_a_pod_that_may_run_on_several_is_not_cached_on_a_mixed_cluster(chosen: Json) -> None:
    reason = described("template", chosen, MIXED).step.uncacheable_reason
    assert reason.startswith("its pod may run on linux/amd64 or linux/arm64 (DISPATCHER_NODE_PLATFORMS)")
    assert "nodeSelector: {kubernetes.io/arch: amd64}" in reason
    assert not described("template", chosen, ONE).step.uncacheable_reason


def test_a_selector_of_the_template_replaces_that_of_the_workflow() -> None:
    template = sh("main", "uname -m > /tmp/o", outputs=gives("o"), nodeSelector={"pool": "batch"})
    manifest = json.dumps(workflow(template, **selects()))
    assert (
        "may run on" in manifests.read(manifest, {}).expand(MIXED).templates["main"].step.uncacheable_reason
    )


def test_other_labels_and_processes_have_the_keys_that_they_had() -> None:
    pool = {"nodeSelector": {"pool": "batch"}}
    for chosen, environment in ((pool, UNKNOWN), (selects(), PROCESSES)):
        document = described("template", chosen, environment).step.document
        assert document == described("template", {}, environment).step.document
