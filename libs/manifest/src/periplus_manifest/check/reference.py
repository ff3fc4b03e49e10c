"""Whether what {{tags}} and expressions refer to can be there when they are replaced."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from periplus_manifest import expression, tags
from periplus_manifest.errors import ManifestError

# Tags that begin otherwise are not Argo's, and stay as they are.
ROOTS = ("item.", "steps.", "inputs.", "outputs.", "pod.", "workflow.", "tasks.")

# Known only while a workflow runs, wherever they stand.
_LATE = (
    "outputs.",
    "workflow.creationTimestamp",
    "workflow.scheduledTime",
    "workflow.duration",
    "tasks.name",
    "steps.name",
)

# Texts in which {{= may be another language's, and which Argo hands on when it cannot evaluate them.
_FOREIGN = ("script.source", "resource.manifest", "raw.data")


_LONGEST_BEGINNING = 400
# Parsing takes a second or two for so many; a manifest of two thousand gated tasks has not half of them.
_MOST_READ = 1 << 19


class Scope:
    """The names that can be referred to at some place, on top of those of an outer scope."""

    def __init__(self, outer: Scope | None = None) -> None:
        self._outer = outer
        self._names: set[str] = set()
        self._read = 0
        self._open: set[str] = set()

    def add(self, *names: str) -> None:
        """Add names."""
        self._names.update(names)

    def admit(self, *beginnings: str) -> None:
        """Add every name below such a beginning ("item."), because what is there is not known yet."""
        self._open.update(beginnings)

    def has(self, name: str) -> bool:
        """Say whether a name can be referred to."""
        if name in self._names or (self._open and not self._open.isdisjoint(_beginnings(name))):
            return True
        return self._outer is not None and self._outer.has(name)

    def read(self, characters: int, path: str) -> None:
        """Count the characters of an expression towards what the expressions of a manifest may have in all."""
        if self._outer is not None:
            self._outer.read(characters, path)
            return
        self._read += characters
        if self._read > _MOST_READ:
            raise ManifestError(path, f"the manifest has more than {_MOST_READ} characters of expressions")


def _beginnings(name: str) -> list[str]:
    """Give "a." and "a.b." for "a.b.c"."""
    head = name[:_LONGEST_BEGINNING]
    return [head[: place + 1] for place, character in enumerate(head) if character == "."]


def check(value: Any, path: str, scope: Scope) -> None:
    """Check every tag in nested maps and lists. Raises ManifestError with the path of its text."""
    for place, text in tags.texts(value, path):
        end = 0
        for tag in tags.spans(text):
            end = tag.end
            if tag.is_expression:
                if not place.endswith(_FOREIGN):
                    check_expression(tag.name, place, scope)
            else:
                _simple(tag.body, place, scope)
        rest = text.find("{{", end)
        if rest >= 0 and text[rest + 2 :].lstrip().startswith(ROOTS):
            raise ManifestError(place, f"failed to resolve {text[rest : rest + 60]!r}: its }}}} is missing")


def _simple(body: str, path: str, scope: Scope) -> None:
    # A name that another tag is to complete, {{inputs.parameters.{{item}}}}, is one that Argo does not know.
    name = body.strip()
    if name.startswith(ROOTS) and not scope.has(name) and not name.startswith(_LATE):
        raise ManifestError(path, f"failed to resolve {{{{{name[:120]}}}}}")


def check_expression(text: str, path: str, scope: Scope) -> None:
    """Check an expression's syntax and functions, and the names that it cannot do without."""
    if "{{" in text:
        return
    scope.read(len(text), path)
    try:
        compiled = expression.compile(text)
    except ManifestError as error:
        raise ManifestError(path, f"bad expression: {error.message}") from None
    for name in sorted(compiled.required):
        if (missing := _missing(name, scope)) is not None:
            raise ManifestError(path, f"failed to resolve {missing} in the expression {text[:120]!r}")


def _missing(name: str, scope: Scope) -> str | None:
    """Give the part of a dotted name that nothing can stand for, if there is one."""
    parts = name.split(".")
    if parts[0] in ("tasks", "steps") and len(parts) > 1:
        node = ".".join(parts[:2])
        return None if scope.has(f"{node}.id") else node
    if parts[0] in ("inputs", "workflow") and len(parts) > 2 and parts[1] in ("parameters", "artifacts"):
        item = ".".join(parts[:3])
        return None if scope.has(item) or item.endswith(".json") else item
    return None


def names(root: str, items: Iterable[dict[str, Any]]) -> set[str]:
    """Give `root`.name for each named item."""
    return {f"{root}.{item.get('name')}" for item in items}
