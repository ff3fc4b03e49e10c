"""A manifest that is read again: the cached result is not changed by callers, and volatile values are not cached."""

import json

import pytest
from manifests import PROCESSES

from periplus_common.errors import Invalid
from periplus_dispatcher.manifest import read as manifest_reading
from periplus_dispatcher.manifest.uncacheable import StepEnvironment
from periplus_model.queries import literal_text


def manifest(value: str) -> str:
    """A manifest with one step and its argument."""
    return json.dumps(
        {
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "Workflow",
            "metadata": {"generateName": "again-"},
            "spec": {
                "entrypoint": "main",
                "arguments": {"parameters": [{"name": "p", "value": "1"}]},
                "templates": [
                    {
                        "name": "main",
                        "dag": {
                            "tasks": [
                                {
                                    "name": "a",
                                    "template": "leaf",
                                    "arguments": {"parameters": [{"name": "x", "value": value}]},
                                }
                            ]
                        },
                    },
                    {
                        "name": "leaf",
                        "inputs": {"parameters": [{"name": "x"}]},
                        "outputs": {"parameters": [{"name": "y", "valueFrom": {"path": "/tmp/y"}}]},
                        "container": {"image": "i", "command": ["true"]},
                    },
                ],
            },
        }
    )


def given(text: str, **parameters: str) -> str | None:
    """The argument of the step."""
    query = manifest_reading.read(text, parameters).expand(PROCESSES).calls[0].query
    assert query is not None
    return literal_text(query.parameters["x"])


def test_a_caller_that_changes_a_manifest_does_not_change_it_for_the_next() -> None:
    text = manifest("0")
    first = manifest_reading.read(text, {})
    first.manifest["spec"]["templates"].clear()
    first.parameters["p"] = "changed"
    again = manifest_reading.read(text, {})
    assert len(again.manifest["spec"]["templates"]) == 2
    assert again.parameters == {"p": "1"}
    assert again.expand(PROCESSES) == first.expand(PROCESSES)


def test_the_same_manifest_with_other_parameters_is_read_anew() -> None:
    text = manifest("{{workflow.parameters.p}}")
    assert [given(text), given(text, p="2"), given(text)] == ["1", "2", "1"]


def test_another_environment_gives_another_document() -> None:
    read = manifest_reading.read(manifest("0"), {})
    documents = [
        read.expand(StepEnvironment(runs_images=False, digest=environment)).templates["leaf"].step.document
        for environment in ("", "e1", "e2", "")
    ]
    assert documents[0] == documents[3]
    assert len(set(documents)) == 3


@pytest.mark.parametrize("expression", ["{{=sprig.uuidv4()}}", "{{=string(now())}}"])
def test_an_expression_with_the_time_or_chance_is_evaluated_each_time(expression: str) -> None:
    text = manifest(expression)
    found = [given(text) for _ in range(2)]
    assert found[0] != found[1] or found == [None, None]


def test_a_refused_manifest_is_refused_again() -> None:
    text = manifest("{{tasks.nobody.outputs.result}}")
    for _ in range(2):
        with pytest.raises(Invalid) as refused:
            manifest_reading.read(text, {})
        assert refused.value.field == (
            "spec.manifest.spec.templates[0].dag.tasks[0].arguments.parameters[0].value"
        )
