"""Whether two refusals of a manifest are the same: in status, in code, and in what of the manifest they name."""

import json
import re
from typing import Any

Plain = dict[str, Any]
WORD = re.compile(r"[A-Za-z0-9][\w-]*")
STEP = re.compile(r"\[(\d+)\]|([^.\[\]]+)")


def missing(recorded: str | None, seen: str | None, manifest: Plain) -> list[str]:
    """What a recorded refusal says and the one that was seen does not; nothing when they are the same.

    Each Argo words it in its own way, but both must name the same fields, templates, tasks, parameters and
    references: every word of the recorded message that stands in the manifest, as a field or in a value, must
    be in the message of the other, or be the name of a thing that lies on the path of the field it names.
    """
    if recorded is None or seen is None:
        return [] if recorded == seen else [f"recorded {recorded!r}, seen {seen!r}"]
    (status, _, body), (now, _, told) = recorded.partition(" "), seen.partition(" ")
    asked, said = json.loads(body), json.loads(told)
    found = [] if now == status else [f"status {status}"]
    found += [] if said["code"] == asked["code"] else [f"code {asked['code']}"]
    words = _words(asked["message"]) & _known(manifest)
    path, _, _ = said["message"].partition(":")
    return found + sorted(words - _words(said["message"]) - _on_the_way(path, manifest))


def _words(text: str) -> set[str]:
    """The words of a text but for numbers; one of several ("tasks") and many are the same word."""
    return {word.lower().rstrip("s") or word for word in WORD.findall(text) if not word.isdigit()}


def _known(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set[str]().union(*(_words(key) | _known(item) for key, item in value.items()))
    if isinstance(value, list):
        return set[str]().union(*map(_known, value))
    return _words(value) if isinstance(value, str) else set()


def _on_the_way(path: str, manifest: Plain) -> set[str]:
    """The names of what lies on the way to a field, and of the templates that are called there."""
    found: set[str] = set()
    value: Any = manifest
    for index, field in STEP.findall(path):
        try:
            value = value[int(index)] if index else value[field]
        except (KeyError, IndexError, TypeError):
            break
        for key in ("name", "template") if index and isinstance(value, dict) else ():
            found |= {key} | _words(value[key]) if isinstance(value.get(key), str) else set()
    return found
