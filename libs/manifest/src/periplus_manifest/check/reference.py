"""Checks that tags and expressions refer to variables that exist when they are replaced."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from periplus_manifest import expression, tags
from periplus_manifest.errors import ManifestError

# Argo's validation checks simple tags with these prefixes, and no others.
VALIDATED_PREFIXES = ("item.", "steps.", "inputs.", "outputs.", "pod.", "workflow.", "tasks.")

# Variables that exist only while a workflow runs; Argo does not check them.
_RUNTIME_PREFIXES = (
    "outputs.",
    "workflow.creationTimestamp",
    "workflow.scheduledTime",
    "workflow.duration",
    "tasks.name",
    "steps.name",
)

# Fields in which {{= may belong to another language; Argo leaves it when it cannot evaluate it.
_OTHER_LANGUAGES = ("script.source", "resource.manifest", "raw.data")


_MAX_PREFIX_CHARACTERS = 400
# Parsing so many takes 1 to 2 s; a manifest of two thousand gated tasks has less than half of them.
_MAX_EXPRESSION_CHARACTERS = 1 << 19


class Scope:
    """The variables that a field may refer to, in addition to those of an outer scope."""

    def __init__(self, outer: Scope | None = None) -> None:
        self._outer = outer
        self._names: set[str] = set()
        self._expression_characters = 0
        self._prefixes: set[str] = set()

    def add(self, *names: str) -> None:
        """Add names."""
        self._names.update(names)

    def add_prefix(self, *prefixes: str) -> None:
        """Add every name with one of these prefixes ("item."), where the names are not known yet."""
        self._prefixes.update(prefixes)

    def has(self, name: str) -> bool:
        """Say whether a name can be referred to."""
        if name in self._names or (self._prefixes and not self._prefixes.isdisjoint(_dotted_prefixes(name))):
            return True
        return self._outer is not None and self._outer.has(name)

    def count_expression(self, characters: int, path: str) -> None:
        """Count the characters of an expression towards the limit for a whole manifest."""
        if self._outer is not None:
            self._outer.count_expression(characters, path)
            return
        self._expression_characters += characters
        if self._expression_characters > _MAX_EXPRESSION_CHARACTERS:
            raise ManifestError(
                path, f"the manifest has more than {_MAX_EXPRESSION_CHARACTERS} characters of expressions"
            )


def _dotted_prefixes(name: str) -> list[str]:
    """Return "a." and "a.b." for "a.b.c"."""
    head = name[:_MAX_PREFIX_CHARACTERS]
    return [head[: index + 1] for index, character in enumerate(head) if character == "."]


def check(value: Any, path: str, scope: Scope) -> None:
    """Check every tag in nested maps and lists. Raises ManifestError with the path of its text."""
    for text_path, text in tags.texts(value, path):
        end = 0
        for tag in tags.spans(text):
            end = tag.end
            if tag.is_expression:
                if not text_path.endswith(_OTHER_LANGUAGES):
                    check_expression(tag.name, text_path, scope)
            else:
                _simple(tag.body, text_path, scope)
        unclosed = text.find("{{", end)
        if unclosed >= 0 and text[unclosed + 2 :].lstrip().startswith(VALIDATED_PREFIXES):
            raise ManifestError(
                text_path, f"failed to resolve {text[unclosed : unclosed + 60]!r}: its }}}} is missing"
            )


def _simple(body: str, path: str, scope: Scope) -> None:
    # Argo refuses a name that an inner tag completes, {{inputs.parameters.{{item}}}}.
    name = body.strip()
    if name.startswith(VALIDATED_PREFIXES) and not scope.has(name) and not name.startswith(_RUNTIME_PREFIXES):
        raise ManifestError(path, f"failed to resolve {{{{{name[:120]}}}}}")


def check_expression(text: str, path: str, scope: Scope) -> None:
    """Check an expression's syntax, its functions, and the variables that it requires."""
    if "{{" in text:
        return
    scope.count_expression(len(text), path)
    try:
        compiled = expression.compile(text)
    except ManifestError as error:
        raise ManifestError(path, f"bad expression: {error.message}") from None
    for name in sorted(compiled.required):
        if (missing := _missing(name, scope)) is not None:
            raise ManifestError(path, f"failed to resolve {missing} in the expression {text[:120]!r}")


def _missing(name: str, scope: Scope) -> str | None:
    """Return the prefix of a dotted name that is in no scope; None where there is none."""
    parts = name.split(".")
    if parts[0] in ("tasks", "steps") and len(parts) > 1:
        node = ".".join(parts[:2])
        return None if scope.has(f"{node}.id") else node
    if parts[0] in ("inputs", "workflow") and len(parts) > 2 and parts[1] in ("parameters", "artifacts"):
        item = ".".join(parts[:3])
        return None if scope.has(item) or item.endswith(".json") else item
    return None


def names(root: str, items: Iterable[dict[str, Any]]) -> set[str]:
    """Return `root`.name for each item."""
    return {f"{root}.{item.get('name')}" for item in items}
