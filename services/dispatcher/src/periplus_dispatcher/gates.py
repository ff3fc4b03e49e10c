"""The templates that are written into a manifest: gates that start no pod, and what stands in for a hit.

Seen on a real Argo (4.1): a suspend template whose outputs are supplied is a node without a pod; `?.` and `??`
keep a run going when a person resumes a gate and so gives no outputs; a `duration` lets the step run when nobody
answers.
"""

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from periplus_dispatcher.domain import Template

Json = dict[str, Any]

HIT = "periplus-hit"
TODO = "periplus-todo"
ITEMS = "periplus-items"
RESULT = "periplus-result"
NEVER = "periplus-never"
PLACES = frozenset(
    {"s3", "raw", "http", "git", "gcs", "oss", "azure", "hdfs", "artifactory", "plugin"}
)  # where an artifact may lie by itself


def parameter_of(name: str) -> str:
    """The parameter that carries an output parameter of a hit."""
    return f"periplus-p-{name}"


def artifact_of(name: str) -> str:
    """The parameter or artifact that carries an output artifact of a hit."""
    return f"periplus-a-{name}"


@dataclass(frozen=True)
class Shape:
    """What a leaf template takes and gives, as its wrappers must take and give it."""

    name: str
    inputs: Json
    outputs: tuple[str, ...]
    """Names of its output parameters, and `periplus-result` where others read its result."""
    artifacts: tuple[str, ...]

    @property
    def carried(self) -> list[str]:
        """The parameters that carry all of a hit's outputs."""
        return [parameter_of(n) for n in self.outputs] + [artifact_of(n) for n in self.artifacts]


def shape(
    template: Json, described: Template, given: Iterable[str], *, result: bool, looped: bool = False
) -> Shape:
    """The shape of a template at a call that gives these artifacts.

    Only what is given can be passed on, and what has a place of its own. The artifacts of a loop are nobody's.
    """
    inputs = template.get("inputs") or {}
    parameters = [
        {k: copy.deepcopy(p[k]) for k in ("name", "value", "default", "valueFrom") if k in p}
        for p in inputs.get("parameters") or ()
    ]
    names = set(given)
    artifacts = [
        {"name": a["name"], **{k: copy.deepcopy(a[k]) for k in sorted(PLACES & set(a))}}
        for a in inputs.get("artifacts") or ()
        if a["name"] in names or PLACES & set(a)
    ]
    outputs = (*described.parameters, *((RESULT,) if result else ()))
    return Shape(
        str(template["name"]),
        {"parameters": parameters, "artifacts": artifacts},
        outputs,
        () if looped else described.artifacts,
    )


def never(name: str) -> Json:
    """A template that is called and never runs: a DAG must have a task."""
    return {"name": name, "suspend": {"duration": "0"}}


def hit(name: str, never_name: str, shape: Shape) -> Json:
    """Gives what its arguments carry, and runs nothing."""
    return {
        "name": name,
        "inputs": {
            "parameters": [{"name": parameter_of(n)} for n in shape.outputs],
            "artifacts": [{"name": artifact_of(n)} for n in shape.artifacts],
        },
        "dag": {"tasks": [{"name": "run", "template": never_name, "when": "false"}]},
        "outputs": {
            "parameters": [
                {"name": n, "valueFrom": {"expression": f"inputs.parameters['{parameter_of(n)}']"}}
                for n in shape.outputs
            ],
            "artifacts": [
                {"name": n, "fromExpression": f"inputs.artifacts['{artifact_of(n)}']"}
                for n in shape.artifacts
            ],
        },
    }


def cached(name: str, gate_name: str, select_name: str, shape: Shape) -> Json:
    """The wrapper of one step: ask, then run or reuse."""
    given = passed(shape)
    answer = "tasks.gate.outputs?.parameters?.['{}'] ?? '{}'"
    return {
        "name": name,
        "inputs": copy.deepcopy(shape.inputs),
        "dag": {
            "tasks": [
                {"name": "gate", "template": gate_name, "arguments": given},
                {
                    "name": "sel",
                    "template": select_name,
                    "depends": "gate",
                    "arguments": {
                        "parameters": [
                            *copy.deepcopy(given["parameters"]),
                            {"name": HIT, "value": "{{=" + answer.format(HIT, "false") + "}}"},
                            *(
                                {
                                    "name": parameter_of(n),
                                    "value": "{{=" + answer.format(parameter_of(n), "") + "}}",
                                }
                                for n in shape.outputs
                            ),
                        ],
                        "artifacts": [
                            *copy.deepcopy(given["artifacts"]),
                            # Not optional: an object that vanished after the answer must fail, not be left out.
                            *(
                                {
                                    "name": artifact_of(n),
                                    "s3": {"key": "{{=" + answer.format(artifact_of(n), "") + "}}"},
                                }
                                for n in shape.artifacts
                            ),
                        ],
                    },
                },
            ]
        },
        "outputs": {
            "parameters": [
                {"name": n, "valueFrom": {"parameter": "{{tasks.sel.outputs.parameters." + n + "}}"}}
                for n in shape.outputs
            ],
            "artifacts": [
                {"name": n, "from": "{{tasks.sel.outputs.artifacts." + n + "}}"} for n in shape.artifacts
            ],
        },
    }


def gate(name: str, inputs: Json, supplied: Iterable[str], seconds: int) -> Json:
    """The gate: no pod, its inputs in the status for us to read, its outputs ours to supply."""
    outputs = [{"name": n, "valueFrom": {"supplied": {}, "default": ""}} for n in supplied]
    plain = {
        "parameters": [{k: v for k, v in p.items() if k == "name"} for p in inputs["parameters"]],
        "artifacts": [{"name": a["name"]} for a in inputs["artifacts"]],
    }
    return {
        "name": name,
        "inputs": plain,
        "suspend": {"duration": f"{seconds}s"},
        "outputs": {"parameters": outputs},
    }


def select(name: str, shape: Shape) -> Json:
    """Run the user's template unless it was a hit, and give the one's outputs or the other's."""
    chosen = f"inputs.parameters['{HIT}'] == 'true' ? "
    return {
        "name": name,
        "inputs": {
            "parameters": [
                *({"name": p["name"]} for p in shape.inputs["parameters"]),
                {"name": HIT},
                *({"name": parameter_of(n), "default": ""} for n in shape.outputs),
            ],
            "artifacts": [
                *({"name": a["name"]} for a in shape.inputs["artifacts"]),
                *({"name": artifact_of(n), "optional": True} for n in shape.artifacts),
            ],
        },
        "dag": {
            "tasks": [
                {
                    "name": "run",
                    "template": shape.name,
                    "when": "{{inputs.parameters." + HIT + "}} != true",
                    "arguments": passed(shape),
                }
            ]
        },
        "outputs": {
            "parameters": [
                {
                    "name": n,
                    "valueFrom": {
                        "expression": f"{chosen}inputs.parameters['{parameter_of(n)}'] : {of_run(n)}"
                    },
                }
                for n in shape.outputs
            ],
            "artifacts": [
                {
                    "name": n,
                    "fromExpression": f"{chosen}inputs.artifacts['{artifact_of(n)}'] : tasks.run.outputs.artifacts['{n}']",
                }
                for n in shape.artifacts
            ],
        },
    }


def of_run(name: str) -> str:
    """What the wrapped step gave, inside an expression."""
    return "tasks.run.outputs.result" if name == RESULT else f"tasks.run.outputs.parameters['{name}']"


def passed(shape: Shape) -> Json:
    return {
        "parameters": [pass_parameter(p["name"]) for p in shape.inputs["parameters"]],
        "artifacts": [pass_artifact(a["name"]) for a in shape.inputs["artifacts"]],
    }


def pass_parameter(name: str) -> Json:
    return {"name": name, "value": "{{inputs.parameters." + name + "}}"}


def pass_artifact(name: str) -> Json:
    return {"name": name, "from": "{{inputs.artifacts." + name + "}}"}
