"""Fan-outs as Argo does them: the items of a list, what an item stands for, and what becomes of all outputs."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from periplus_cache.domain import Outputs
from periplus_common.errors import Invalid
from periplus_manifest import loops
from periplus_manifest.errors import ManifestError
from periplus_manifest.gotext import json_text

_TOKEN = re.compile(r'("(?:[^"\\]|\\.)*")|[ \t\r\n]+')  # a string, which stays, or white space, which goes
_HTML = re.compile("[<>&\u2028\u2029]")  # as Go writes them, and only strings can hold them


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
    A result that is JSON stands in its array as it is written, any other as its text.
    """
    parameters: dict[str, list[str]] = {}
    results: list[str] = []
    for outputs in all_outputs:
        for name, value in outputs.parameters:
            parameters.setdefault(name, []).append(value)
        if outputs.result is not None:
            results.append(outputs.result)
    return Outputs(
        parameters=tuple((name, _gathered(texts)) for name, texts in parameters.items()),
        result=f"[{','.join(map(_as_written, results))}]" if results else None,
    )


def _gathered(texts: list[str]) -> str:
    try:
        values = [_parsed(text) for text in texts]
        if all(isinstance(value, dict | list) for value in values):
            return json_text(values)
    except (ValueError, RecursionError):
        pass
    return json_text(texts)


def _as_written(result: str) -> str:
    try:
        _parsed(result)
    except (ValueError, RecursionError):
        return json_text(result)
    compact = _TOKEN.sub(lambda found: found[1] or "", result)
    return _HTML.sub(lambda found: f"\\u{ord(found[0]):04x}", compact)


def _parsed(text: str) -> Any:
    return json.loads(text, parse_constant=_no_json)


def _no_json(constant: str) -> Any:
    raise ValueError(constant)
