"""What is written or told where the cache knows: a hit's arguments, and the answers of gates."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from periplus_dispatcher.domain import Outputs, Resolved, Verdict
from periplus_dispatcher.gates import HIT, RESULT, TODO, Shape, artifact_of, parameter_of

Json = dict[str, Any]
MAX_ANSWER = 100_000  # characters


def hit_arguments(shape: Shape, resolved: Resolved) -> Json:
    """The arguments that carry a hit's outputs."""
    assert resolved.outputs is not None
    values = dict(resolved.outputs.parameters)
    if resolved.outputs.result is not None:
        values[RESULT] = resolved.outputs.result
    places = {a.name: a.object for a in resolved.outputs.artifacts}
    return {
        "parameters": [{"name": parameter_of(n), "value": values.get(n, "")} for n in shape.outputs],
        "artifacts": [
            {
                "name": artifact_of(n),
                "s3": {
                    k: v for k, v in (("key", p.key), ("bucket", p.bucket), ("endpoint", p.endpoint)) if v
                },
            }
            for n, p in places.items()
            if n in shape.artifacts
        ],
    }


def fan_answer(
    shape_outputs: Sequence[str], items: list[Any], verdicts: Iterable[Resolved]
) -> tuple[dict[str, str], list[int]]:
    """What a fan-out's gate is told, and the indices of the items that run, in their order."""
    found = list(verdicts)
    todo = [index for index, verdict in enumerate(found) if verdict.verdict is not Verdict.HIT]
    if len(todo) == len(found):
        return {}, todo
    answer = {TODO: _compact([items[index] for index in todo])}
    place = {index: at for at, index in enumerate(todo)}
    for name in shape_outputs:
        pieces = [
            {"i": place[i]} if i in place else _piece(_value_of(verdict, name), result=name == RESULT)
            for i, verdict in enumerate(found)
        ]
        answer[parameter_of(name)] = _compact(pieces)
    return answer, todo


def _value_of(verdict: Resolved, name: str) -> str:
    assert verdict.outputs is not None
    return (verdict.outputs.result if name == RESULT else verdict.outputs.parameters.get(name)) or ""


def _piece(text: str, *, result: bool) -> Json:
    """A known output as Argo would gather it: a result as the value that it is, else its text, and its value."""
    value = _value(text)
    if result:
        return {"v": text if value is None and text != "null" else value}
    return {"v": text, "j": value} if isinstance(value, dict | list) else {"v": text}


def _value(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def fits(parameters: Mapping[str, str]) -> bool:
    """Whether an answer is small enough for the status of a Workflow, which has 1 MiB for all nodes."""
    return sum(map(len, parameters.values())) <= MAX_ANSWER


def carried(outputs: Outputs) -> dict[str, str]:
    """What the gate of one step is told of a hit."""
    values = {HIT: "true"} | {parameter_of(n): v for n, v in outputs.parameters.items()}
    if outputs.result is not None:
        values[parameter_of(RESULT)] = outputs.result
    return values | {artifact_of(a.name): a.object.key for a in outputs.artifacts}


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
