"""The spec of a workflow with workflowTemplateRef is merged as Argo merges it."""

from typing import Any

import pytest

from periplus_manifest.merge import merged_spec

REF = {"workflowTemplateRef": {"name": "t"}}


@pytest.mark.parametrize(
    ("own", "template", "expected"),
    [
        ({"entrypoint": "b"}, {"entrypoint": "a", "onExit": "x"}, {"entrypoint": "b", "onExit": "x"}),
        ({"entrypoint": ""}, {"entrypoint": "a"}, {"entrypoint": "a"}),
        ({"nodeSelector": {"k": "1"}}, {"nodeSelector": {"k": "0", "l": "2"}}, {"nodeSelector": {"k": "1", "l": "2"}}),
        (
            {"volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Gi"}}, {"name": "w"}]},
            {"volumes": [{"name": "u"}, {"name": "v", "emptyDir": {"medium": "Memory"}}]},
            {
                "volumes": [
                    {"name": "u"},
                    {"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
                    {"name": "w"},
                ]
            },
        ),
        (
            {"hooks": {"exit": {"template": "mine"}}},
            {"hooks": {"exit": {"template": "its", "arguments": {}}, "running": {"template": "r"}}},
            {"hooks": {"exit": {"template": "mine"}, "running": {"template": "r"}}},
        ),
        (
            {"workflowMetadata": {"labels": {"a": "1"}}},
            {"workflowMetadata": {"labels": {"a": "0", "b": "2"}, "labelsFrom": {"c": {"expression": "x"}}}},
            {"workflowMetadata": {"labels": {"a": "1", "b": "2"}, "labelsFrom": {"c": {"expression": "x"}}}},
        ),
        ({}, {"suspend": True}, {}),
        ({"suspend": True}, {}, {"suspend": True}),
        ({"parallelism": 0}, {"parallelism": 4}, {"parallelism": 0}),
        ({}, {"workflowTemplateRef": {"name": "other"}, "entrypoint": "a"}, {"entrypoint": "a"}),
        (
            {"templateDefaults": {"container": {"env": [{"name": "A", "value": "1"}]}}},
            {"templateDefaults": {"timeout": "1m", "container": {"env": [{"name": "B", "value": "2"}]}}},
            {
                "templateDefaults": {
                    "timeout": "1m",
                    "container": {"env": [{"name": "B", "value": "2"}, {"name": "A", "value": "1"}]},
                }
            },
        ),
    ],
)  # fmt: skip
def test_a_field_of_the_workflow_wins_and_maps_and_lists_with_keys_are_merged(
    own: dict[str, Any], template: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert merged_spec(own | REF, template) == expected


def parameters(*found: dict[str, Any]) -> dict[str, Any]:
    return {"arguments": {"parameters": list(found)}}


def test_a_parameter_with_a_value_is_taken_as_a_whole() -> None:
    own = parameters({"name": "p", "value": "mine"}, {"name": "q"}, {"name": "new", "value": "n"})
    template = parameters(
        {"name": "o", "value": "o"},
        {"name": "p", "value": "its", "enum": ["its"], "description": "d"},
        {"name": "q", "default": "7"},
        {"name": "r"},
    )
    assert merged_spec(own | REF, template)["arguments"]["parameters"] == [
        {"name": "o", "value": "o"},
        {"name": "p", "value": "mine"},
        {"name": "q", "default": "7"},
        {"name": "r"},
        {"name": "new", "value": "n"},
    ]


def test_an_artifact_of_the_same_store_keeps_the_fields_that_it_does_not_set() -> None:
    def artifact(**location: Any) -> dict[str, Any]:
        return {"arguments": {"artifacts": [{"name": "a", **location}]}}

    template = artifact(s3={"bucket": "b", "key": "old"}, mode=420)
    same = merged_spec(artifact(s3={"key": "new"}) | REF, template)["arguments"]["artifacts"]
    assert same == [{"name": "a", "s3": {"bucket": "b", "key": "new"}}]
    other = merged_spec(artifact(raw={"data": "x"}) | REF, template)["arguments"]["artifacts"]
    assert other == [{"name": "a", "raw": {"data": "x"}}]


def test_what_is_merged_is_not_changed_by_its_users() -> None:
    template = {"templates": [{"name": "a", "container": {"image": "i"}}]}
    found = merged_spec(REF, template)
    found["templates"][0]["name"] = "changed"
    assert template["templates"][0]["name"] == "a"
