"""Fan-outs as Argo does them: the items of a list, what an item stands for, and what becomes of all outputs."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from periplus_cache.domain import Outputs
from periplus_common.errors import Invalid
from periplus_manifest import loops
from periplus_manifest.errors import ManifestError
from periplus_manifest.gotext import WrittenNumber, json_text


def scopes(text: str) -> tuple[list[Mapping[str, str]], str]:
    """What each item of a JSON array stands for ("item", "item.<member>"), and the array as compact JSON.

    Raises `Invalid` for what is no array of at most 100,000 items.
    """
    try:
        items = loops.items({"withParam": text})
    except ManifestError as error:
        raise Invalid(error.message) from error
    if items is None:
        raise Invalid("an empty text is no JSON list")
    return [loops.item_scope(item) for item in items], json_text(items)


def joined(all_outputs: Iterable[Outputs]) -> Outputs:
    """The outputs of a fan-out whose items gave these: parameters and results as arrays.

    A parameter is an array of texts; as Argo has it, where each text is a JSON object or list, one of values.
    """
    parameters: dict[str, list[str]] = {}
    results: list[Any] = []
    for outputs in all_outputs:
        for name, value in outputs.parameters:
            parameters.setdefault(name, []).append(value)
        if outputs.result is not None:
            results.append(_value(outputs.result))
    return Outputs(
        parameters=tuple((name, json_text(_gathered(values))) for name, values in parameters.items()),
        result=json_text(results) if results else None,
    )


def _gathered(texts: list[str]) -> list[Any]:
    """The values that texts stand for if each is a JSON object or list; else the texts."""
    values = [_value(text) for text in texts]
    return values if all(isinstance(value, dict | list) for value in values) else list(texts)


def _value(result: str) -> Any:
    """A result that is JSON stands for its value, any other for its text."""
    try:
        return json.loads(result, parse_float=WrittenNumber, parse_constant=_no_json)
    except (ValueError, RecursionError):
        return result


def _no_json(constant: str) -> Any:
    raise ValueError(constant)
