"""Argo's tags, {{inputs.parameters.x}} and {{=expression}}: find, list and replace them in texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from . import expression
from .bounds import MAX_FILLED_CHARACTERS, MAX_TEXT_CHARACTERS
from .errors import BoundError, ExpressionError, ManifestError, join
from .gotext import json_text

Lookup = Callable[[str], str | None]

# Variables that exist only while a node runs. A pass that leaves unknown tags in place leaves expressions with these
# in place too, even where ?? would already give them a value.
_RUNTIME_VARIABLES = frozenset(
    (
        "item",
        "retries",
        "lastRetry.exitCode",
        "lastRetry.status",
        "lastRetry.duration",
        "lastRetry.message",
        "workflow.status",
        "workflow.failures",
    )
)


# What the name of each of Argo's variables begins with, and the two names that have no dot. Those of metrics alone
# (status, duration, exitCode, resourcesDuration.…) are left out: elsewhere Argo does not replace them.
_VARIABLE_PREFIXES = (
    "inputs.",
    "outputs.",
    "item.",
    "steps.",
    "tasks.",
    "workflow.",
    "pod.",
    "node.",
    "lastRetry.",
    "cronworkflow.",
)
_BARE_VARIABLES = ("item", "retries")


@dataclass(frozen=True, slots=True)
class Tag:
    """One {{…}} in a text: `text[start:end]`, its braces included; `body` is what stands between them."""

    start: int
    end: int
    body: str
    is_expression: bool

    @property
    def name(self) -> str:
        """The reference of a simple tag, or the source of an expression, without blanks around it."""
        return (self.body[1:] if self.is_expression else self.body).strip()


def find(text: str) -> list[Tag]:
    """List the tags of a text that Argo may replace, in order: expressions, and names of Argo's variables.

    All else between {{ and }} (an f-string's {{"w": {w}}}, Jinja's {{ x | y }}) is text to Argo, and is not listed.
    Of {{"w": {{item}} }} the inner tag is listed alone. Where a name is completed by an inner tag, as in
    {{inputs.parameters.{{item}}}}, one tag is listed for both: its body is `inputs.parameters.{{item`.
    """
    return [tag for span in spans(text) if (tag := _argo_tag(span)) is not None]


def spans(text: str) -> list[Tag]:
    """Split off every {{…}} of a text as Argo does, whatever stands in it.

    Each ends at the first }} after its {{, also inside an expression: write {{=f({"a": g} )}} with a blank
    between two closing braces. An {{ without an end is plain text.
    """
    found = []
    start = text.find("{{")
    while start >= 0:
        end = text.find("}}", start + 2)
        if end < 0:
            break
        body = text[start + 2 : end]
        found.append(Tag(start, end + 2, body, body.startswith("=")))
        start = text.find("{{", end + 2)
    return found


def _argo_tag(span: Tag) -> Tag | None:
    """Return the part of a span that Argo may replace; None where the span is text."""
    if span.is_expression or _is_variable(span.name):
        return span
    outer, braces, inner = span.body.rpartition("{{")
    if not braces or not _is_variable(inner.strip()):
        return None
    if _may_begin_variable(outer.lstrip()):
        return span
    return Tag(span.start + 2 + len(outer), span.end, inner, is_expression=False)


def _is_variable(name: str) -> bool:
    return name in _BARE_VARIABLES or name.startswith(_VARIABLE_PREFIXES)


def _may_begin_variable(text: str) -> bool:
    """Say whether more text behind this one can make it the name of a variable."""
    return text.startswith(_VARIABLE_PREFIXES) or any(
        name.startswith(text) for name in (*_VARIABLE_PREFIXES, *_BARE_VARIABLES)
    )


def substitute(
    text: str,
    lookup: Lookup,
    env: Mapping[str, Any] | None = None,
    *,
    strict: bool = True,
    final: bool = False,
) -> str:
    """Replace every tag of a text.

    `lookup` gives the text of a simple reference, or None where it is unknown. `env` holds what expressions
    may name, as nested maps: {"inputs": {"parameters": {…}}, "tasks": {…}}. A strict call raises ManifestError
    for every tag that is unknown, also one that is not Argo's, and ExpressionError for an expression that fails;
    another leaves such tags as they are. With `final`, which says that no later pass knows more outputs of tasks and steps, it raises
    ExpressionError for an expression without a value, unless one of its other variables is still unknown.
    Raises BoundError when the text would be longer than a text may be.
    """
    if "{{" not in text:
        return text
    out: list[str] = []
    position = characters = 0
    for tag in spans(text):
        if tag.start < position:
            continue
        end, value = tag.end, None
        if tag.is_expression:
            value = _evaluated(tag, env or {}, strict=strict, final=final)
        elif tag.body.rfind("{{") > 0:
            end, value = _nested(text, tag, lookup, strict=strict)
        else:
            value = _simple(tag.body, lookup, strict=strict)
        value = text[tag.start : end] if value is None else value
        out += (text[position : tag.start], value)
        characters += len(value)
        if characters > MAX_TEXT_CHARACTERS:
            raise BoundError(
                "", f"the text has more than {MAX_TEXT_CHARACTERS} characters once its tags are replaced"
            )
        position = end
    return "".join((*out, text[position:]))


def _simple(body: str, lookup: Lookup, *, strict: bool) -> str | None:
    value = lookup(body.strip())
    if value is None and strict:
        raise ManifestError("", f"failed to resolve {{{{{body}}}}}")
    return value


def _nested(text: str, tag: Tag, lookup: Lookup, *, strict: bool) -> tuple[int, str | None]:
    """Replace the inner tag of {{a.{{b}}}}, and then the outer one, where the two make the name of a variable."""
    outer, _, inner = tag.body.rpartition("{{")
    value = lookup(inner)  # Argo does not strip an inner name
    if value is None:
        return tag.end, _simple(tag.body, lookup, strict=strict)
    end = text.find("}}", tag.end)
    completed = outer + value + text[tag.end : end]
    if end >= 0:
        replaced = _simple(completed, lookup, strict=strict and _is_variable(completed.strip()))
        if replaced is not None:
            return end + 2, replaced
    return tag.end, "{{" + outer + value


def _evaluated(tag: Tag, env: Mapping[str, Any], *, strict: bool, final: bool) -> str | None:
    undefined: list[str] = []
    try:
        compiled = expression.compile(tag.name)
        undefined = [name for name in compiled.variables if not _is_defined(name, env)]
        has_runtime_variable = not _RUNTIME_VARIABLES.isdisjoint(undefined)
        undefined = [name for name in undefined if name in compiled.required]
        if has_runtime_variable and not strict and not (final and _names_step_output(undefined)):
            return None
        value = compiled.evaluate(env)
        if value is None:
            raise ExpressionError("", f"the expression {tag.name!r} gives no value")
        return as_text(value)
    except ExpressionError as error:
        if strict:
            raise
        if final and (not undefined or _names_step_output(undefined)):
            raise ExpressionError(
                "", f'failed to evaluate expression "{tag.name}": {error.message}'
            ) from None
        return None


def _names_step_output(undefined: list[str]) -> bool:
    """Say whether one of the names is an output of a task or step."""
    return any(name.startswith(("tasks.", "steps.")) for name in undefined)


def _is_defined(name: str, env: Mapping[str, Any]) -> bool:
    value: Any = env
    for part in name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return False
        value = value[part]
    return True


def as_text(value: Any) -> str:
    """Write an expression's value as Argo inserts it into a text: a text as it is, all else as JSON.

    Raises ExpressionError for what JSON cannot hold.
    """
    if isinstance(value, str):
        return value
    try:
        return json_text(value)
    except ValueError as error:
        raise ExpressionError("", f"the expression's value cannot be written: {error}") from None


def substitute_all(
    value: Any,
    lookup: Lookup,
    env: Mapping[str, Any] | None = None,
    *,
    strict: bool = True,
    final: bool = False,
) -> Any:
    """Replace the tags of every text in nested maps and lists, keys included; return a new value.

    Raises as `substitute` does, with the path of the text below `value`.
    """
    characters = 0

    def replace(text: str) -> str:
        nonlocal characters
        replaced = substitute(text, lookup, env, strict=strict, final=final)
        characters += len(replaced)
        if characters > MAX_FILLED_CHARACTERS:
            raise BoundError(
                "",
                f"the texts have more than {MAX_FILLED_CHARACTERS} characters once their tags are replaced",
            )
        return replaced

    return _substituted(value, "", replace)


def _substituted(value: Any, path: str, replace: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        if "{{" not in value:
            return value
        try:
            return replace(value)
        except ManifestError as error:
            raise error.under(path) from None
    if isinstance(value, dict):
        return {
            _substituted(key, path, replace): _substituted(item, join(path, key), replace)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_substituted(item, f"{path}[{index}]", replace) for index, item in enumerate(value)]
    return value


def texts(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield the path and the text of each text with {{ in nested maps and lists, keys included."""
    if isinstance(value, str):
        if "{{" in value:
            yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            if "{{" in key:
                yield path, key
            if isinstance(item, (str, dict, list)):
                yield from texts(item, join(path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from texts(item, f"{path}[{index}]")


def references(value: Any) -> set[str]:
    """Collect what the tags of nested maps and lists that Argo may replace refer to, as dotted names.

    A simple tag adds its own text ("tasks.a.outputs.parameters.x"); an expression adds every variable that it
    reads, with its path as far as it is constant. An expression that does not parse adds nothing.
    """
    found: set[str] = set()
    for _, text in texts(value):
        for tag in find(text):
            if not tag.is_expression:
                found.update(part.strip() for part in tag.body.split("{{") if part.strip())
                continue
            try:
                found |= expression.compile(tag.name).variables
            except ExpressionError:
                continue
    return found


def volatile_functions(value: Any) -> set[str]:
    """Collect the functions whose value differs at each call, as "sprig.now", that the expressions of nested maps and
    lists call. An expression that does not parse adds nothing.
    """
    found: set[str] = set()
    for _, text in texts(value):
        for tag in spans(text):
            if tag.is_expression:
                with suppress(ExpressionError):
                    found |= expression.compile(tag.name).volatile
    return found
