"""Names in a manifest: their characters, and that they are unique in their list."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from periplus_manifest import tags
from periplus_manifest.errors import ManifestError

_FIELD = re.compile(r"[a-zA-Z0-9][-a-zA-Z0-9]*", re.ASCII)
_PARAMETER = re.compile(r"[-a-zA-Z0-9_]+", re.ASCII)
_MAX_FIELD_CHARACTERS = 128

FIELD_RULE = "must consist of letters, digits or '-', and begin with a letter or digit"
PARAMETER_RULE = "must consist of letters, digits, '_' or '-'"


# Argo replaces these tags before it checks names.
_REPLACED_FIRST = ("inputs.", "workflow.")


def without_tags(text: str) -> str:
    """Replace the tags that Argo replaces before its check of names by a letter, to check the text around them."""
    out: list[str] = []
    position = 0
    for tag in tags.find(text):
        is_replaced = tag.is_expression or tag.name.startswith(_REPLACED_FIRST)
        out += (text[position : tag.start], "x" if is_replaced else text[tag.start : tag.end])
        position = tag.end
    return "".join((*out, text[position:]))


def is_tagged(text: str) -> bool:
    """Say whether a text contains a tag."""
    return "{{" in text


def check_field(name: Any, path: str) -> None:
    """Check the name of a template, step, task or container."""
    if not name:
        raise ManifestError(path, "is required")
    untagged_name = without_tags(name)
    if len(untagged_name) > _MAX_FIELD_CHARACTERS or not _FIELD.fullmatch(untagged_name):
        raise ManifestError(
            path,
            f"'{name[:140]}' is invalid: it {FIELD_RULE}, and have at most {_MAX_FIELD_CHARACTERS} characters",
        )


def check_parameter(name: Any, path: str, *, may_be_tagged: bool = False) -> None:
    """Check the name of a parameter or artifact."""
    if not name:
        raise ManifestError(path, "is required")
    if not _PARAMETER.fullmatch(without_tags(name) if may_be_tagged else name):
        raise ManifestError(path, f"'{name[:140]}' is invalid: it {PARAMETER_RULE}")


def check_parameters(items: Iterable[Mapping[str, Any]], path: str, *, may_be_tagged: bool = False) -> None:
    """Check the names in a list of parameters or artifacts, each of which may be there once.

    With `may_be_tagged` (outputs) a name may contain tags.
    """
    names: set[str] = set()
    for index, item in enumerate(items):
        name = item.get("name")
        check_parameter(name, f"{path}[{index}].name", may_be_tagged=may_be_tagged)
        _check_unique(name, names, f"{path}[{index}].name")


def check_fields(items: Iterable[Mapping[str, Any]], path: str) -> None:
    """Check the names in a list of templates, tasks or containers, each of which may be there once."""
    names: set[str] = set()
    for index, item in enumerate(items):
        name = item.get("name")
        check_field(name, f"{path}[{index}].name")
        _check_unique(name, names, f"{path}[{index}].name")


def _check_unique(name: Any, names: set[str], path: str) -> None:
    if name in names:
        raise ManifestError(path, f"'{name}' is not unique")
    names.add(name)
