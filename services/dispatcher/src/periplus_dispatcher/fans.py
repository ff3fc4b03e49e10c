"""The wrapper of a fan-out: its loop goes over what is not known, and its outputs are all items' in order."""

from typing import Any

from periplus_dispatcher.gates import (
    ITEMS,
    RESULT,
    TODO,
    Shape,
    of_run,
    parameter_of,
    pass_artifact,
    pass_parameter,
)

Json = dict[str, Any]


def fan(name: str, shape: Shape, inputs: Json, arguments: Json, gate_name: str | None) -> Json:
    """A fan-out of which the items that are known are left out: by one gate's answer, or as given at the start.

    `inputs` are what the call passes in besides the items, `arguments` what each item's run is given.
    """
    carried = [parameter_of(n) for n in shape.outputs]
    answers = "tasks.gate.outputs?.parameters?.['{}']" if gate_name else "inputs.parameters['{}']"
    todo = answers.format(TODO)
    asked = [{"name": ITEMS}] if gate_name else [{"name": TODO}, *({"name": n} for n in carried)]
    tasks: list[Json] = []
    run: Json = {"name": "run", "template": shape.name, "arguments": arguments}
    if gate_name:
        passed = {
            "parameters": [pass_parameter(p["name"]) for p in (*asked, *inputs["parameters"])],
            "artifacts": [pass_artifact(a["name"]) for a in inputs["artifacts"]],
        }
        tasks.append({"name": "gate", "template": gate_name, "arguments": passed})
        run["depends"] = "gate"
        run["withParam"] = (
            "{{=(" + todo + " ?? '') == '' ? inputs.parameters['" + ITEMS + "'] : " + todo + "}}"
        )
    else:
        run["withParam"] = "{{inputs.parameters." + TODO + "}}"
    return {
        "name": name,
        "inputs": {"parameters": [*asked, *inputs["parameters"]], "artifacts": inputs["artifacts"]},
        "dag": {"tasks": [*tasks, run]},
        "outputs": {
            "parameters": [
                {"name": n, "valueFrom": {"expression": _merged(answers.format(parameter_of(n)), n)}}
                for n in shape.outputs
            ]
        },
    }


def _merged(known: str, name: str) -> str:
    """The outputs of all items in order: those known, and those of the run between them.

    A piece has `i`, its place in the run, or `v`, its text, and `j`, its value, where it may be gathered as a
    value. Argo gathers a loop's parameters as values where each text is a JSON object or list, else as texts;
    its results always as values.
    """
    ran, pieces = of_run(name), f"fromJSON({known})"
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
    return f"({known} ?? '') == '' ? {ran} : ({joined})"
