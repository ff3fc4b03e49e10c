"""Fan-outs as Argo runs them: the items of a list, the values that tags of an item have, and the joined outputs."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from periplus_common.errors import Invalid
from periplus_manifest import loops
from periplus_manifest.errors import ManifestError
from periplus_manifest.gotext import json_text
from periplus_model.steps import Outputs

_STRING_OR_SPACE = re.compile(r'("(?:[^"\\]|\\.)*")|[ \t\r\n]+')
_HTML = re.compile("[<>&\u2028\u2029]")  # Go escapes these; in JSON only strings contain them


def scopes(text: str) -> tuple[list[Mapping[str, str]], str]:
    """The values of each item of a JSON array ("item", "item.<member>"), and the array as compact JSON.

    Raises `Invalid` if it is no array, or has more items than a loop may have.
    """
    try:
        items = loops.items({"withParam": text})
    except ManifestError as error:
        raise Invalid(error.message) from error
    if items is None:
        raise Invalid("an empty text is no JSON list")
    return [loops.item_scope(item) for item in items], json_text(items)


def joined(all_outputs: Iterable[Outputs]) -> Outputs:
    """The outputs of a fan-out from those of its items: parameters and results as JSON arrays.

    As in Argo, a parameter is an array of texts, or of values if every text is a JSON object or array. In the array of
    results, a result that is JSON keeps its text and any other is a string.
    """
    parameters: dict[str, list[str]] = {}
    results: list[str] = []
    for outputs in all_outputs:
        for name, value in outputs.parameters.items():
            parameters.setdefault(name, []).append(value)
        if outputs.result is not None:
            results.append(outputs.result)
    return Outputs(
        parameters={name: _joined_parameter(texts) for name, texts in parameters.items()},
        result=f"[{','.join(map(_result_element, results))}]" if results else None,
    )


def _joined_parameter(texts: list[str]) -> str:
    try:
        values = [_parse(text) for text in texts]
        if all(isinstance(value, dict | list) for value in values):
            return json_text(values)
    except (ValueError, RecursionError):
        pass
    return json_text(texts)


def _result_element(result: str) -> str:
    try:
        _parse(result)
    except (ValueError, RecursionError):
        return json_text(result)
    compact = _STRING_OR_SPACE.sub(lambda match: match[1] or "", result)
    return _HTML.sub(lambda match: f"\\u{ord(match[0]):04x}", compact)


def _parse(text: str) -> Any:
    return json.loads(text, parse_constant=_refuse_constant)


def _refuse_constant(constant: str) -> Any:
    raise ValueError(constant)
