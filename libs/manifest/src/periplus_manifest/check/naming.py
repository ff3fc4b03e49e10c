"""Names inside a manifest: what they may be made of, and that no two of a list are the same."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from periplus_manifest import tags
from periplus_manifest.errors import ManifestError

_FIELD = re.compile(r"[a-zA-Z0-9][-a-zA-Z0-9]*", re.ASCII)
_PARAMETER = re.compile(r"[-a-zA-Z0-9_]+", re.ASCII)
_LONGEST = 128

FIELD_RULE = "must consist of letters, digits or '-', and begin with a letter or digit"
PARAMETER_RULE = "must consist of letters, digits, '_' or '-'"


# What is replaced in a template before its names are judged.
_EARLY = ("inputs.", "workflow.")


def untagged(text: str) -> str:
    """Put a letter in the place of each tag that is replaced early, to judge what stands around it."""
    out: list[str] = []
    position = 0
    for tag in tags.find(text):
        known = tag.is_expression or tag.name.startswith(_EARLY)
        out += (text[position : tag.start], "x" if known else text[tag.start : tag.end])
        position = tag.end
    return "".join((*out, text[position:]))


def is_tagged(text: str) -> bool:
    """Say whether a text is, at least in part, a tag that is known only later."""
    return "{{" in text


def check_field(name: Any, path: str) -> None:
    """Check the name of a template, step, task or container."""
    if not name:
        raise ManifestError(path, "is required")
    plain = untagged(name)
    if len(plain) > _LONGEST or not _FIELD.fullmatch(plain):
        raise ManifestError(
            path, f"'{name[:140]}' is invalid: it {FIELD_RULE}, and have at most {_LONGEST} characters"
        )


def check_parameter(name: Any, path: str, *, may_be_tagged: bool = False) -> None:
    """Check the name of a parameter or artifact."""
    if not name:
        raise ManifestError(path, "is required")
    if not _PARAMETER.fullmatch(untagged(name) if may_be_tagged else name):
        raise ManifestError(path, f"'{name[:140]}' is invalid: it {PARAMETER_RULE}")


def check_parameters(items: Iterable[Mapping[str, Any]], path: str, *, may_be_tagged: bool = False) -> None:
    """Check the names in a list of parameters or artifacts, each of which may be there once.

    The names of outputs may have tags in them, which are replaced before anyone asks for them.
    """
    seen: set[str] = set()
    for index, item in enumerate(items):
        name = item.get("name")
        check_parameter(name, f"{path}[{index}].name", may_be_tagged=may_be_tagged)
        _once(name, seen, f"{path}[{index}].name")


def check_fields(items: Iterable[Mapping[str, Any]], path: str) -> None:
    """Check the names in a list of templates, tasks or containers, each of which may be there once."""
    seen: set[str] = set()
    for index, item in enumerate(items):
        name = item.get("name")
        check_field(name, f"{path}[{index}].name")
        _once(name, seen, f"{path}[{index}].name")


def _once(name: Any, seen: set[str], path: str) -> None:
    if name in seen:
        raise ManifestError(path, f"'{name}' is not unique")
    seen.add(name)
