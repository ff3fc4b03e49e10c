"""The templates that a rewrite adds: gates, which start no pod, and what is called instead of a step that is a hit.

How they behave on a real Argo (4.1): a suspend template with `supplied` outputs is a node without a pod. With `?.` and
`??` a run goes on when a person resumes a gate, which then has no outputs. After `duration` a gate that nobody answered
ends, and its step runs.
"""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from periplus_dispatcher.domain import ContainerTemplate, Json
from periplus_dispatcher.manifest.scope import ARTIFACT_LOCATIONS
from periplus_dispatcher.rewrite.generated import (
    ASK,
    IS_HIT,
    NOTHING,
    REST,
    RESULT,
    RUN,
    SERVED,
    VERDICT,
    artifact_of,
    member_output,
    parameter_of,
)


@dataclass(frozen=True)
class TemplateSignature:
    """Inputs and outputs of a container template, which its wrappers must have as well.

    `outputs` are names of output parameters, and `periplus-result` if others read the result. `optional` are the output
    artifacts that a step need not write.
    """

    name: str
    inputs: Json
    outputs: tuple[str, ...]
    artifacts: tuple[str, ...]
    optional: tuple[str, ...] = ()

    @property
    def supplied(self) -> list[str]:
        """The parameters that carry all outputs of a hit."""
        return [parameter_of(n) for n in self.outputs] + [artifact_of(n) for n in self.artifacts]


def signature_of(
    template: Json,
    described: ContainerTemplate,
    arguments: Iterable[str],
    *,
    result_used: bool,
    is_fan_out: bool = False,
) -> TemplateSignature:
    """The signature of a template at a call with these artifact arguments.

    An input artifact without an argument is part of it only if the template says where the artifact is stored. A
    fan-out has no output artifacts, as Argo does not aggregate them.
    """
    inputs = template.get("inputs") or {}
    parameters = [
        {k: copy.deepcopy(p[k]) for k in ("name", "value", "default", "valueFrom") if k in p}
        for p in inputs.get("parameters") or ()
    ]
    names = set(arguments)
    artifacts = [
        {"name": a["name"], **{k: copy.deepcopy(a[k]) for k in sorted(ARTIFACT_LOCATIONS & set(a))}}
        for a in inputs.get("artifacts") or ()
        if a["name"] in names or ARTIFACT_LOCATIONS & set(a)
    ]
    outputs = (*described.parameters, *((RESULT,) if result_used else ()))
    return TemplateSignature(
        str(template["name"]),
        {"parameters": parameters, "artifacts": artifacts},
        outputs,
        () if is_fan_out else described.artifacts,
        () if is_fan_out else described.optional,
    )


def no_op_template(name: str) -> Json:
    """A template that is never run: a DAG must have a task."""
    return {"name": name, "suspend": {"duration": "0"}}


def hit_template(name: str, no_op: str, signature: TemplateSignature) -> Json:
    """A template whose outputs are its inputs, and which runs nothing."""
    return {
        "name": name,
        "inputs": {
            "parameters": [{"name": parameter_of(n)} for n in signature.outputs],
            "artifacts": [
                {"name": artifact_of(n), **({"optional": True} if n in signature.optional else {})}
                for n in signature.artifacts
            ],
        },
        "dag": {"tasks": [{"name": "run", "template": no_op, "when": "false"}]},
        "outputs": {
            "parameters": [
                {"name": n, "valueFrom": {"expression": f"inputs.parameters['{parameter_of(n)}']"}}
                for n in signature.outputs
            ],
            "artifacts": [
                # Argo leaves out an optional artifact that a reference does not find; an expression would fail.
                {"name": n, "from": "{{inputs.artifacts." + artifact_of(n) + "}}", "optional": True}
                if n in signature.optional
                else {"name": n, "fromExpression": f"inputs.artifacts['{artifact_of(n)}']"}
                for n in signature.artifacts
            ],
        },
    }


def gated_template(name: str, gate: str, selection: str, signature: TemplateSignature) -> Json:
    """The wrapper of a step: a gate, then a selection of the cached or the new outputs."""
    arguments = pass_inputs(signature)
    answer = "tasks.gate.outputs?.parameters?.['{}'] ?? '{}'"
    return {
        "name": name,
        "inputs": copy.deepcopy(signature.inputs),
        "dag": {
            "tasks": [
                {"name": "gate", "template": gate, "arguments": arguments},
                {
                    "name": "sel",
                    "template": selection,
                    "depends": "gate",
                    "arguments": {
                        "parameters": [
                            *copy.deepcopy(arguments["parameters"]),
                            {"name": IS_HIT, "value": "{{=" + answer.format(IS_HIT, "false") + "}}"},
                            *(
                                {
                                    "name": parameter_of(n),
                                    "value": "{{=" + answer.format(parameter_of(n), "") + "}}",
                                }
                                for n in signature.outputs
                            ),
                        ],
                        "artifacts": [
                            *copy.deepcopy(arguments["artifacts"]),
                            # Not optional: if the object is deleted after the answer, the step must fail.
                            *(
                                {
                                    "name": artifact_of(n),
                                    "s3": {"key": "{{=" + answer.format(artifact_of(n), "") + "}}"},
                                }
                                for n in signature.artifacts
                            ),
                        ],
                    },
                },
            ]
        },
        "outputs": {
            "parameters": [
                {"name": n, "valueFrom": {"parameter": "{{tasks.sel.outputs.parameters." + n + "}}"}}
                for n in signature.outputs
            ],
            "artifacts": [
                {"name": n, "from": "{{tasks.sel.outputs.artifacts." + n + "}}"} for n in signature.artifacts
            ],
        },
    }


def give_rest(gated: Json, gate: Json) -> None:
    """Let the wrapper of a step, which a member of a stretch calls, give what its gate answers for others."""
    given = f"tasks.gate.outputs?.parameters?.['{REST}'] ?? '{NOTHING}'"
    gated["outputs"]["parameters"].append({"name": REST, "valueFrom": {"expression": given}})
    gate["outputs"]["parameters"].append({"name": REST, "valueFrom": {"supplied": {}, "default": NOTHING}})


def gate_template(name: str, inputs: Json, defaults: Mapping[str, str], timeout: timedelta) -> Json:
    """A suspend node: its inputs are in the Workflow's status, and its outputs are set by the answer.

    At its timeout the outputs have their defaults, and the step runs. An empty text would be no operand of a `when` that
    reads it, and the run would end with an error.
    """
    outputs = [{"name": n, "valueFrom": {"supplied": {}, "default": value}} for n, value in defaults.items()]
    declared = {
        "parameters": [{k: v for k, v in p.items() if k == "name"} for p in inputs["parameters"]],
        "artifacts": [{"name": a["name"]} for a in inputs["artifacts"]],
    }
    return {
        "name": name,
        "inputs": declared,
        "suspend": {"duration": f"{timeout.total_seconds():.0f}s"},
        "outputs": {"parameters": outputs},
    }


def member_arguments(
    gate: str, task: str, before: Sequence[str], parameters: Iterable[str], artifacts: Iterable[str] = ()
) -> Json:
    """The arguments that carry the answer of a stretch's gate to one of its members.

    Where the answer is to ask, a member that it waits for (`before`) may have asked for it as well.
    """

    def output(task: str, name: str) -> str:
        return f"tasks['{task}'].outputs?.parameters?.['{name}']"

    rests = [f"{output(other, REST)} ?? '{NOTHING}'" for other in before]
    verdict = f"({output(gate, member_output(task, VERDICT))} ?? '{RUN}')"

    def answer(carrier: str) -> str:
        name = member_output(task, carrier)
        given = f"{output(gate, name)} ?? '{RUN if carrier == VERDICT else ''}'"
        if not rests:
            return "{{=" + given + "}}"
        later = " ?? ".join(f"fromJSON({rest})['{name}']" for rest in rests)
        default = ASK if carrier == VERDICT else ""
        return "{{=" + f"{verdict} != '{ASK}' ? ({given}) : ({later} ?? '{default}')" + "}}"

    rest = rests[-1] if rests else ""
    for other in reversed(rests[:-1]):
        rest = f"({other}) != '{NOTHING}' ? ({other}) : ({rest})"
    return {
        "parameters": [
            *({"name": n, "value": answer(n)} for n in parameters),
            *([{"name": REST, "value": "{{=" + rest + "}}"}] if rests else ()),
        ],
        "artifacts": [{"name": n, "s3": {"key": answer(n)}} for n in artifacts],
    }


def stretched_template(name: str, gated: str, signature: TemplateSignature) -> Json:
    """A member of a stretch: by the verdict it returns the outputs of a hit, runs the user's template, or calls `gated`."""
    verdict = "inputs.parameters['" + VERDICT + "']"

    def selected(cached: str, asked: str, ran: str) -> str:
        return f"{verdict} == '{SERVED}' ? {cached} : {verdict} == '{ASK}' ? {asked} : {ran}"

    def call(task: str, template: str, verdict: str) -> Json:
        condition = "{{inputs.parameters." + VERDICT + "}} == " + verdict
        return {"name": task, "template": template, "when": condition, "arguments": pass_inputs(signature)}

    return {
        "name": name,
        "inputs": {
            "parameters": [
                *copy.deepcopy(signature.inputs["parameters"]),
                {"name": VERDICT},
                *({"name": parameter_of(n), "default": ""} for n in signature.outputs),
                {"name": REST, "default": NOTHING},
            ],
            "artifacts": [
                *copy.deepcopy(signature.inputs["artifacts"]),
                *({"name": artifact_of(n), "optional": True} for n in signature.artifacts),
            ],
        },
        "dag": {"tasks": [call("ask", gated, ASK), call("run", signature.name, RUN)]},
        "outputs": {
            "parameters": [
                {
                    "name": n,
                    "valueFrom": {
                        "expression": selected(
                            f"inputs.parameters['{parameter_of(n)}']",
                            f"tasks.ask.outputs.parameters['{n}']",
                            run_output(n),
                        )
                    },
                }
                for n in signature.outputs
            ]
            + [
                {
                    "name": REST,
                    "valueFrom": {
                        "expression": f"{verdict} == '{ASK}' ? tasks.ask.outputs.parameters['{REST}']"
                        f" : inputs.parameters['{REST}']"
                    },
                }
            ],
            "artifacts": [
                {
                    "name": n,
                    "fromExpression": selected(
                        f"inputs.artifacts['{artifact_of(n)}']",
                        f"tasks.ask.outputs.artifacts['{n}']",
                        f"tasks.run.outputs.artifacts['{n}']",
                    ),
                }
                for n in signature.artifacts
            ],
        },
    }


def selection_template(name: str, signature: TemplateSignature) -> Json:
    """Run the user's template unless the gate's answer was a hit; the outputs are the cached or the new ones."""
    selected = f"inputs.parameters['{IS_HIT}'] == 'true' ? "
    return {
        "name": name,
        "inputs": {
            "parameters": [
                *({"name": p["name"]} for p in signature.inputs["parameters"]),
                {"name": IS_HIT},
                *({"name": parameter_of(n), "default": ""} for n in signature.outputs),
            ],
            "artifacts": [
                *({"name": a["name"]} for a in signature.inputs["artifacts"]),
                *({"name": artifact_of(n), "optional": True} for n in signature.artifacts),
            ],
        },
        "dag": {
            "tasks": [
                {
                    "name": "run",
                    "template": signature.name,
                    "when": "{{inputs.parameters." + IS_HIT + "}} != true",
                    "arguments": pass_inputs(signature),
                }
            ]
        },
        "outputs": {
            "parameters": [
                {
                    "name": n,
                    "valueFrom": {
                        "expression": f"{selected}inputs.parameters['{parameter_of(n)}'] : {run_output(n)}"
                    },
                }
                for n in signature.outputs
            ],
            "artifacts": [
                {
                    "name": n,
                    "fromExpression": f"{selected}inputs.artifacts['{artifact_of(n)}'] : tasks.run.outputs.artifacts['{n}']",
                }
                for n in signature.artifacts
            ],
        },
    }


def run_output(name: str) -> str:
    """An output of the wrapped step, in an expression."""
    return "tasks.run.outputs.result" if name == RESULT else f"tasks.run.outputs.parameters['{name}']"


def pass_inputs(signature: TemplateSignature) -> Json:
    """Arguments that pass every input on."""
    return {
        "parameters": [pass_parameter(p["name"]) for p in signature.inputs["parameters"]],
        "artifacts": [pass_artifact(a["name"]) for a in signature.inputs["artifacts"]],
    }


def pass_parameter(name: str) -> Json:
    return {"name": name, "value": "{{inputs.parameters." + name + "}}"}


def pass_artifact(name: str) -> Json:
    return {"name": name, "from": "{{inputs.artifacts." + name + "}}"}
