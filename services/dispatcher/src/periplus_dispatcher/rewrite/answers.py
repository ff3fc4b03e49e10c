"""Outputs of hits as values: the arguments of a call that is a hit, and the answers to gates."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from periplus_dispatcher.domain import Json
from periplus_dispatcher.rewrite.gates import TemplateSignature
from periplus_dispatcher.rewrite.generated import (
    IS_HIT,
    REMAINING_ITEMS,
    RESULT,
    artifact_of,
    parameter_of,
)
from periplus_model.queries import StepVerdict
from periplus_model.steps import Outputs, Verdict

MAX_ANSWER_CHARACTERS = 100_000
"""The status of a Workflow has 1 MiB for all its nodes."""


def hit_arguments(signature: TemplateSignature, verdict: StepVerdict) -> Json:
    """The arguments that carry the outputs of a hit."""
    assert verdict.outputs is not None
    values = dict(verdict.outputs.parameters)
    if verdict.outputs.result is not None:
        values[RESULT] = verdict.outputs.result
    objects = {a.name: a.object for a in verdict.outputs.artifacts}
    return {
        "parameters": [{"name": parameter_of(n), "value": values.get(n, "")} for n in signature.outputs],
        "artifacts": [
            {
                "name": artifact_of(n),
                "s3": {
                    k: v for k, v in (("key", o.key), ("bucket", o.bucket), ("endpoint", o.endpoint)) if v
                },
            }
            for n, o in objects.items()
            if n in signature.artifacts
        ],
    }


def hit_answer(outputs: Outputs) -> dict[str, str]:
    """The output parameters of a gate whose step is a hit."""
    values = {IS_HIT: "true"} | {parameter_of(n): v for n, v in outputs.parameters.items()}
    if outputs.result is not None:
        values[parameter_of(RESULT)] = outputs.result
    return values | {artifact_of(a.name): a.object.key for a in outputs.artifacts}


def fan_out_answer(
    outputs: Sequence[str], items: list[Any], verdicts: Iterable[StepVerdict]
) -> tuple[dict[str, str], list[int]]:
    """The output parameters of a fan-out's gate, and the indices of the items that run, in order.

    The parameters are empty if no item is a hit.
    """
    found = list(verdicts)
    remaining = [index for index, verdict in enumerate(found) if verdict.verdict is not Verdict.HIT]
    if len(remaining) == len(found):
        return {}, remaining
    answer = {REMAINING_ITEMS: _compact([items[index] for index in remaining])}
    position = {index: at for at, index in enumerate(remaining)}
    for name in outputs:
        pieces = [
            {"i": position[i]} if i in position else _piece(_output(verdict, name), is_result=name == RESULT)
            for i, verdict in enumerate(found)
        ]
        answer[parameter_of(name)] = _compact(pieces)
    return answer, remaining


def is_small_enough(parameters: Mapping[str, str]) -> bool:
    """Whether the status of a Workflow has room for an answer."""
    return sum(map(len, parameters.values())) <= MAX_ANSWER_CHARACTERS


def _output(verdict: StepVerdict, name: str) -> str:
    assert verdict.outputs is not None
    return (verdict.outputs.result if name == RESULT else verdict.outputs.parameters.get(name)) or ""


def _piece(text: str, *, is_result: bool) -> Json:
    """A cached output as Argo would aggregate it: see `fan_outs`."""
    value = _json_value(text)
    if is_result:
        return {"v": text if value is None and text != "null" else value}
    return {"v": text, "j": value} if isinstance(value, dict | list) else {"v": text}


def _json_value(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return None


def _refuse_constant(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
