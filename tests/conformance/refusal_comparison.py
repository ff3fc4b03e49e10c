"""Whether two refusals of a manifest are the same: in status, in code, and in what of the manifest they name."""

import json
import re
from typing import Any

Json = dict[str, Any]
WORD = re.compile(r"[A-Za-z0-9][\w-]*")
PATH_ELEMENT = re.compile(r"\[(\d+)\]|([^.\[\]]+)")


def missing_words(recorded: str | None, actual: str | None, manifest: Json) -> list[str]:
    """What a recorded refusal says and the actual one does not; empty when they are the same.

    Each Argo has messages of its own, but both must name the same fields, templates, tasks, parameters and
    references: every word of the recorded message that is in the manifest, as a field or in a value, must be in the
    actual message, or be the name of a thing on the path of the field that the actual message names.
    """
    if recorded is None or actual is None:
        return [] if recorded == actual else [f"recorded {recorded!r}, actual {actual!r}"]
    recorded_status, _, recorded_body = recorded.partition(" ")
    actual_status, _, actual_body = actual.partition(" ")
    expected, answer = json.loads(recorded_body), json.loads(actual_body)
    differences = [] if actual_status == recorded_status else [f"status {recorded_status}"]
    differences += [] if answer["code"] == expected["code"] else [f"code {expected['code']}"]
    words = _words(expected["message"]) & _words_of_manifest(manifest)
    path, _, _ = answer["message"].partition(":")
    return differences + sorted(words - _words(answer["message"]) - _names_on_path(path, manifest))


def _words(text: str) -> set[str]:
    """The words of a text without numbers; singular and plural ("tasks") are the same word."""
    return {word.lower().rstrip("s") or word for word in WORD.findall(text) if not word.isdigit()}


def _words_of_manifest(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set[str]().union(*(_words(key) | _words_of_manifest(item) for key, item in value.items()))
    if isinstance(value, list):
        return set[str]().union(*map(_words_of_manifest, value))
    return _words(value) if isinstance(value, str) else set()


def _names_on_path(path: str, manifest: Json) -> set[str]:
    """The names of the items on the path of a field, and of the templates that they call."""
    found: set[str] = set()
    value: Any = manifest
    for index, field in PATH_ELEMENT.findall(path):
        try:
            value = value[int(index)] if index else value[field]
        except (KeyError, IndexError, TypeError):
            break
        for key in ("name", "template") if index and isinstance(value, dict) else ():
            found |= {key} | _words(value[key]) if isinstance(value.get(key), str) else set()
    return found
