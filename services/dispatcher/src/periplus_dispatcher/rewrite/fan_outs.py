"""The wrapper of a fan-out: its loop runs the items that are no hits, and its outputs are those of all items in order."""

from periplus_dispatcher.domain import Json
from periplus_dispatcher.rewrite.gates import (
    TemplateSignature,
    pass_artifact,
    pass_parameter,
    run_output,
)
from periplus_dispatcher.rewrite.generated import (
    ASK,
    ITEMS,
    NOTHING,
    REMAINING_ITEMS,
    REST,
    RESULT,
    VERDICT,
    parameter_of,
)

_GATES = "tasks.gate.outputs?.parameters?.['{0}']"
_CALLS = "inputs.parameters['{0}']"
"""The answer in an expression: of the wrapper's own gate, or in the arguments of its call."""


def fan_out_template(
    name: str,
    signature: TemplateSignature,
    inputs: Json,
    arguments: Json,
    gate: str | None,
    *,
    is_stretched: bool = False,
) -> Json:
    """The wrapper of a fan-out.

    `inputs` are the arguments of the call besides the items, `arguments` those of one item. With a gate, its answer says
    which items run; without, the arguments of the call do. In a stretch they do as well, unless the verdict is ASK.
    """
    carriers = [parameter_of(n) for n in signature.outputs]
    given = [{"name": n} for n in (REMAINING_ITEMS, *carriers)]
    if is_stretched:
        own_inputs = [{"name": ITEMS}, {"name": VERDICT}, *given, {"name": REST, "default": NOTHING}]
        answer = f"(inputs.parameters['{VERDICT}'] == '{ASK}' ? {_GATES} : {_CALLS})"
    else:
        own_inputs, answer = ([{"name": ITEMS}], _GATES) if gate else (given, _CALLS)
    remaining = answer.format(REMAINING_ITEMS)
    tasks: list[Json] = []
    run: Json = {"name": "run", "template": signature.name, "arguments": arguments}
    if gate:
        passed = {
            "parameters": [pass_parameter(n) for n in (ITEMS, *(p["name"] for p in inputs["parameters"]))],
            "artifacts": [pass_artifact(a["name"]) for a in inputs["artifacts"]],
        }
        condition = {"when": "{{inputs.parameters." + VERDICT + "}} == " + ASK} if is_stretched else {}
        tasks.append({"name": "gate", "template": gate, **condition, "arguments": passed})
        run["depends"] = "gate"
        run["withParam"] = (
            "{{=(" + remaining + " ?? '') == '' ? inputs.parameters['" + ITEMS + "'] : " + remaining + "}}"
        )
    else:
        run["withParam"] = "{{inputs.parameters." + REMAINING_ITEMS + "}}"
    rest = f"{answer.format(REST)} ?? '{NOTHING}'"
    return {
        "name": name,
        "inputs": {"parameters": [*own_inputs, *inputs["parameters"]], "artifacts": inputs["artifacts"]},
        "dag": {"tasks": [*tasks, run]},
        "outputs": {
            "parameters": [
                {"name": n, "valueFrom": {"expression": _aggregate(answer.format(parameter_of(n)), n)}}
                for n in signature.outputs
            ]
            + ([{"name": REST, "valueFrom": {"expression": rest}}] if is_stretched else [])
        },
    }


def _aggregate(cached: str, name: str) -> str:
    """An expression for the outputs of all items in order, the cached ones and those of the items that ran.

    `cached` is the expression of a JSON array with an object for each item: `i` is the index among the items that ran;
    or `v` is the cached text, and `j` its JSON value if that is an object or array. Argo aggregates the parameters of a
    loop as values if every text is a JSON object or array, else as texts, and the results always as values.
    """
    ran, pieces = run_output(name), f"fromJSON({cached})"
    fresh = f"fromJSON({ran})[int(.i)]"
    if name == RESULT:
        joined = f"toJson(map({pieces}, .i == nil ? .v : {fresh}))"
    else:
        texts = (
            f"(any({pieces}, .i == nil && .j == nil)"
            f" || (any({pieces}, .i != nil) && type(fromJSON({ran})[0]) == 'string'))"
        )
        joined = (
            f"{texts} ? toJson(map({pieces}, .i == nil ? .v"
            f" : (type({fresh}) == 'string' ? {fresh} : toJson({fresh}))))"
            f" : toJson(map({pieces}, .i == nil ? .j : {fresh}))"
        )
    return f"({cached} ?? '') == '' ? {ran} : ({joined})"
