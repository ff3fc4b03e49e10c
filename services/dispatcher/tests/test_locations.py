"""Which keys a manifest may name: those of its project, and shared ones."""

from pathlib import Path
from typing import Any

import pytest

from periplus_common.errors import Invalid
from periplus_common.object_key import MAX_KEY_BYTES
from periplus_dispatcher.manifest.known_values import MAX_VALUES
from periplus_dispatcher.manifest.locations import SharedKeys, check_locations

LAPTOP = SharedKeys("s3:9000", "artifacts", writable=("*",))
TEAM = SharedKeys(
    "s3:9000",
    "artifacts",
    readable=("datasets/", "models/base.bin", "s3://public/", "s3://lake@lake.example/raw/"),
    writable=("exchange/",),
)


def manifest(role: str, **s3: Any) -> dict[str, Any]:
    artifacts = {"artifacts": [{"name": "a", "path": "/tmp/a", "s3": s3}]}
    return {"spec": {"templates": [{"name": "t", role: artifacts}]}}


def is_allowed(shared: SharedKeys, role: str, parameters: dict[str, str] | None = None, **s3: Any) -> bool:
    try:
        check_locations(manifest(role, **s3), parameters or {}, "mine", shared)
    except Invalid:
        return False
    return True


@pytest.mark.parametrize(
    ("key", "laptop", "team"),  # who may: r reads, w writes
    [
        ("projects/mine/data.csv", "rw", "rw"),
        ("projects/mine/", "rw", "rw"),
        ("projects/mine/{{inputs.parameters.p}}", "rw", "rw"),
        ("projects/{{workflow.labels.periplus.dev/project}}/data.csv", "rw", "rw"),
        ("code/mine/sha256/aa/bb/aabb.tgz", "r", "r"),
        ("projects/other/data.csv", "", ""),
        ("projects/mine-too/data.csv", "", ""),
        ("projects/minedata.csv", "", ""),
        ("projects/mine", "", ""),
        ("projects", "", ""),
        ("projects/", "", ""),
        # What no setting shares is known only during the run: where everything is shared, the run checks it.
        ("projects/{{inputs.parameters.p}}/data.csv", "rw", ""),
        ("projects/mi{{inputs.parameters.p}}/data.csv", "rw", ""),
        ("projects/miner{{inputs.parameters.p}}/data.csv", "", ""),
        ("projects/other/{{inputs.parameters.p}}", "", ""),
        ("code/{{inputs.parameters.p}}", "r", ""),
        ("snapshots/{{inputs.parameters.p}}", "", ""),
        ("{{inputs.parameters.p}}", "rw", ""),
        ("{{inputs.parameters.p}}/data.csv", "rw", ""),
        ("{{=inputs.parameters.p}}", "rw", ""),
        ("pro{{inputs.parameters.p}}", "rw", ""),
        ("code/other/sha256/aa/bb/aabb.tgz", "", ""),
        ("snapshots/sha256/aa/bb/aabb", "", ""),
        ("snapshots", "", ""),
        ("datasets/iris.csv", "rw", "r"),
        ("datasets/{{item}}.csv", "rw", "r"),
        ("datasets-private/x.csv", "rw", ""),
        ("data{{item}}/x.csv", "rw", ""),
        ("models/base.bin", "rw", "r"),
        ("models/base.bin.bak", "rw", ""),
        ("models/base.bin{{item}}", "rw", ""),
        ("exchange/a", "rw", "rw"),
        ("train-abcdefgh/pod/model.tgz", "rw", ""),
        ("pro", "rw", ""),
    ],
)
def test_a_key_is_of_the_project_or_shared(key: str, laptop: str, team: str) -> None:
    for shared, allowed in ((LAPTOP, laptop), (TEAM, team)):
        assert is_allowed(shared, "inputs", key=key) is ("r" in allowed)
        assert is_allowed(shared, "outputs", key=key) is ("w" in allowed)


@pytest.mark.parametrize(
    "key",
    [
        "projects/mine/../other/x", "projects/mine//x", "projects/mine/./x", "/projects/mine/x", "..", ".",
        "projects/mine/x\0", "projects\\other\\x", "projects/mine/..\\..\\other", "datasets/../projects/other/x",
        "projects/mine/{{item}}/../../other", "projects/mine/" + "x" * 1024, "projects/mine/" + "ü" * 512, "projects/mine//",
    ],
)  # fmt: skip
@pytest.mark.parametrize("role", ["inputs", "outputs"])
def test_a_key_that_a_store_may_read_as_another_is_refused(role: str, key: str) -> None:
    with pytest.raises(Invalid, match="is no key of an object"):
        check_locations(manifest(role, key=key), {}, "mine", LAPTOP)


def test_the_published_limit_is_the_one_that_is_checked() -> None:
    limits = (Path(__file__).parents[3] / "docs" / "limits.md").read_text()
    assert f"| {MAX_KEY_BYTES:,} bytes |" in limits
    assert f"| values of tags that are followed through a manifest | {MAX_VALUES:,} |" in limits
    assert is_allowed(LAPTOP, "inputs", key="x" * MAX_KEY_BYTES)
    assert not is_allowed(LAPTOP, "inputs", key="x" * (MAX_KEY_BYTES + 1))


@pytest.mark.parametrize(
    ("s3", "laptop", "team"),
    [
        ({"bucket": "artifacts", "key": "projects/mine/x"}, "rw", "rw"),
        ({"bucket": "artifacts", "endpoint": "s3:9000", "key": "projects/mine/x"}, "rw", "rw"),
        ({"bucket": "artifacts", "key": "projects/other/x"}, "", ""),
        ({"bucket": "artifacts", "endpoint": "alias:9000", "key": "projects/other/x"}, "", ""),
        ({"bucket": "artifacts", "endpoint": "alias:9000", "key": "projects/mine/x"}, "", ""),
        ({"bucket": "{{inputs.parameters.b}}", "key": "projects/other/x"}, "", ""),
        ({"bucket": "{{inputs.parameters.b}}", "key": "datasets/x"}, "rw", ""),
        ({"bucket": "public", "key": "x"}, "rw", "r"),
        ({"bucket": "public", "endpoint": "elsewhere", "key": "x"}, "rw", ""),
        ({"bucket": "lake", "endpoint": "lake.example", "key": "raw/x"}, "rw", "r"),
        ({"bucket": "lake", "endpoint": "lake.example", "key": "x"}, "rw", ""),
        ({"bucket": "lake", "key": "datasets/x"}, "rw", ""),
    ],
)
def test_another_repository_is_shared_by_its_name(s3: dict[str, str], laptop: str, team: str) -> None:
    for shared, allowed in ((LAPTOP, laptop), (TEAM, team)):
        assert is_allowed(shared, "inputs", **s3) is ("r" in allowed)
        assert is_allowed(shared, "outputs", **s3) is ("w" in allowed)


def test_a_parameter_counts_with_its_value() -> None:
    key = "{{workflow.parameters.folder}}/x"
    assert is_allowed(TEAM, "outputs", {"folder": "projects/mine"}, key=key)
    assert not is_allowed(TEAM, "outputs", {"folder": "projects/other"}, key=key)
    assert not is_allowed(TEAM, "outputs", {"folder": "projects/mine/.."}, key=key)
    assert not is_allowed(TEAM, "outputs", {"folder": "projects/{{inputs.parameters.p}}"}, key=key)
    assert not is_allowed(TEAM, "outputs", key=key)


def test_an_output_without_a_key_gets_one_and_an_input_needs_one() -> None:
    assert is_allowed(TEAM, "outputs", bucket="artifacts")
    assert not is_allowed(TEAM, "inputs", bucket="artifacts")


FOREIGN = {"s3": {"key": "projects/other/x"}}


@pytest.mark.parametrize(
    ("field", "spec"),
    [
        ("arguments.artifacts[0]", {"arguments": {"artifacts": [FOREIGN]}}),
        ("templateDefaults.archiveLocation", {"templateDefaults": {"archiveLocation": FOREIGN}}),
        ("templates[0].archiveLocation", {"templates": [{"archiveLocation": FOREIGN}]}),
        (
            "templates[0].data.source.artifactPaths",
            {"templates": [{"data": {"source": {"artifactPaths": FOREIGN}}}]},
        ),
        (
            "templates[0].dag.tasks[0].arguments.artifacts[0]",
            {"templates": [{"dag": {"tasks": [{"arguments": {"artifacts": [FOREIGN]}}]}}]},
        ),
        (
            "templates[0].steps[0][0].hooks.exit.arguments.artifacts[0]",
            {"templates": [{"steps": [[{"hooks": {"exit": {"arguments": {"artifacts": [FOREIGN]}}}}]]}]},
        ),
        (
            "templates[0].dag.tasks[0].inline.outputs.artifacts[0]",
            {"templates": [{"dag": {"tasks": [{"inline": {"outputs": {"artifacts": [FOREIGN]}}}]}}]},
        ),
        (
            "templates[0].resource.manifestFrom.artifact",
            {"templates": [{"resource": {"manifestFrom": {"artifact": FOREIGN}}}]},
        ),
    ],
)
def test_every_place_of_a_location_is_checked(field: str, spec: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as caught:
        check_locations({"spec": spec}, {}, "mine", LAPTOP)
    assert caught.value.field == f"spec.manifest.spec.{field}.s3.key"
    assert caught.value.fix


@pytest.mark.parametrize(
    "text",
    ["../../other/x", "/x", "a//b", "a\\..\\b", "{{inputs.parameters.p}}/../x", "{{workflow.parameters.p}}"],
)
def test_a_sub_path_does_not_leave_its_artifact(text: str) -> None:
    artifact = {"name": "a", "from": "{{tasks.x.outputs.artifacts.y}}", "subPath": text}
    spec = {"templates": [{"dag": {"tasks": [{"arguments": {"artifacts": [artifact]}}]}}]}
    with pytest.raises(Invalid) as caught:
        check_locations({"spec": spec}, {"p": "a/../../b"}, "mine", LAPTOP)
    assert caught.value.field == "spec.manifest.spec.templates[0].dag.tasks[0].arguments.artifacts[0].subPath"
    artifact["subPath"] = "data/{{workflow.parameters.p}}"
    check_locations({"spec": spec}, {"p": "train.csv"}, "mine", LAPTOP)
    artifact["subPath"] = "data/{{inputs.parameters.p}}"
    check_locations({"spec": spec}, {}, "mine", LAPTOP)
    with pytest.raises(Invalid, match="known only during the run"):
        check_locations({"spec": spec}, {}, "mine", TEAM)


PARAMETER = {"name": "key"}
READ = {
    "name": "read",
    "inputs": {
        "parameters": [PARAMETER],
        "artifacts": [{"name": "a", "path": "/tmp/a", "s3": {"key": "{{inputs.parameters.key}}"}}],
    },
}


def call(value: Any, template: str = "read", **more: Any) -> dict[str, Any]:
    return {
        "name": "call",
        "template": template,
        "arguments": {"parameters": [PARAMETER | {"value": value}]},
        **more,
    }


def calling(*tasks: dict[str, Any], templates: tuple[Any, ...] = (), **spec: Any) -> dict[str, Any]:
    main = {"name": "main", "dag": {"tasks": list(tasks)}}
    return {"spec": {"entrypoint": "main", "templates": [main, READ, *templates], **spec}}


def passing(template: str, name: str = "middle") -> dict[str, Any]:
    """A template with the parameter `key`, which it passes on."""
    return {
        "name": name,
        "inputs": {"parameters": [PARAMETER]},
        "steps": [[call("{{inputs.parameters.key}}", template)]],
    }


OBJECTS = [{"folder": "datasets", "file": 1}, {"folder": "projects/mine", "file": "b"}]
WITH_DEFAULT = READ | {
    "inputs": READ["inputs"] | {"parameters": [PARAMETER | {"default": "datasets/a"}]},
}


@pytest.mark.parametrize(
    "workflow",
    [
        calling(call("datasets/a"), call("projects/mine/b")),
        calling(call("{{workflow.parameters.known}}")),
        calling(call("{{item}}", withItems=["datasets/a", "{{workflow.parameters.known}}"])),
        calling(call("{{item.folder}}/{{item.file}}", withItems=OBJECTS)),
        calling(call("{{item}}", withParam='["datasets/a", "datasets/b"]')),
        calling(call("datasets/{{item}}", withSequence={"count": "3"})),
        calling(call("datasets/a", "middle"), templates=(passing("read"),)),
        calling(call("x", "other"), call("datasets/a"), onExit="other", templates=({"name": "other"},)),
        calling({"name": "hooked", "template": "other", "hooks": {"exit": call("datasets/a")}}),
        calling({"name": "inline", "inline": {"steps": [[call("datasets/a")]]}}),
        {"spec": {"entrypoint": "read", "templates": [READ], "arguments": {"parameters": [PARAMETER]}}},
        {"spec": {"entrypoint": "read", "templates": [WITH_DEFAULT]}},
    ],
)
def test_a_key_whose_values_are_all_known_and_allowed_is_allowed(workflow: dict[str, Any]) -> None:
    parameters = {"known": "datasets/x", "key": "datasets/key"}
    check_locations(workflow, parameters, "mine", TEAM)


@pytest.mark.parametrize(
    "workflow",
    [
        calling(call("datasets/a"), call("projects/other/b")),
        calling(call("{{item}}", withItems=["datasets/a", "projects/other/a"])),
        calling(call("{{item}}", withItems=["datasets/a", "{{workflow.name}}"])),
        calling(call("{{item}}", withParam="{{tasks.a.outputs.result}}")),
        calling(call("{{item.none}}", withItems=OBJECTS)),
        calling(call("{{tasks.a.outputs.result}}")),
        calling(call("datasets/a", "middle"), call("private/a", "middle"), templates=(passing("read"),)),
        calling(call("datasets/a", "middle"), templates=(passing("read"), passing("middle", "again"))),
        calling(
            call("datasets/a", "loop"),
            templates=(passing("read", "loop"), passing("loop", "middle"), passing("middle", "loop")),
        ),
        calling(call("datasets/a"), hooks={"exit": call("private/a")}),
        calling(call("datasets/a"), onExit="read"),
        calling(call("datasets/a"), workflowTemplateRef={"name": "theirs"}),
        calling(call("datasets/a"), call("private/a", "{{item}}", withItems=["read"])),
        calling(call("datasets/a"), templateDefaults={"inputs": {"parameters": []}}),
        calling(call("datasets/a"), {"name": "x", "inline": {"steps": [[call("private/a")]]}}),
        calling(call("{{item}}", withItems=[f"datasets/{number}" for number in range(20_001)])),
        {
            "spec": {
                "entrypoint": "read",
                "templates": [WITH_DEFAULT],
                "arguments": {"parameters": [PARAMETER]},
            }
        },
        calling(),
    ],
)
def test_a_key_with_a_value_that_is_unknown_or_foreign_is_refused(workflow: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as caught:
        check_locations(workflow, {}, "mine", TEAM)
    index = [template["name"] for template in workflow["spec"]["templates"]].index("read")
    assert caught.value.field == f"spec.manifest.spec.templates[{index}].inputs.artifacts[0].s3.key"


def test_a_sub_path_of_items_that_are_known_is_allowed() -> None:
    artifact = {"name": "a", "from": "{{tasks.x.outputs.artifacts.y}}", "subPath": "part/{{item}}"}
    task = {"name": "t", "template": "t", "withItems": ["a", "b"], "arguments": {"artifacts": [artifact]}}
    check_locations(calling(task, call("datasets/a")), {}, "mine", TEAM)
    task["withItems"] = ["a", "../../b"]
    with pytest.raises(Invalid, match=r"'part/\.\./\.\./b' begins with a slash, or has a part"):
        check_locations(calling(task, call("datasets/a")), {}, "mine", TEAM)


def test_data_that_looks_like_a_location_is_none() -> None:
    task = {"withItems": [FOREIGN], "arguments": {"parameters": [{"name": "p", "value": FOREIGN}]}}
    check_locations({"spec": {"templates": [{"dag": {"tasks": [task]}}]}}, {}, "mine", TEAM)


@pytest.mark.parametrize("field", ["labels", "labelsFrom"])
def test_a_manifest_does_not_change_its_project(field: str) -> None:
    added = {"workflowMetadata": {field: {"periplus.dev/project": "other"}}}
    with pytest.raises(Invalid, match="only the dispatcher sets") as caught:
        check_locations({"spec": added}, {}, "mine", LAPTOP)
    assert caught.value.field == f"spec.manifest.spec.workflowMetadata.{field}['periplus.dev/project']"
