"""From text to a manifest: one YAML or JSON document, strictly, with the field named where it is refused."""

from __future__ import annotations

import json
from typing import Any

import yaml

from .errors import ManifestError, join
from .gotext import kind
from .scalar import resolve

LARGEST = 1 << 20
DEEPEST = 64
_LONGEST_PATH = 400

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MISSING: Any = object()


def read(text: str | bytes) -> dict[str, Any]:
    """Read one Workflow, WorkflowTemplate, CronWorkflow… from YAML or JSON.

    Values come out as Argo would have them: plain dates are texts, 0755 is 493, yes is true. Raises
    ManifestError for more than 1 MiB, more than one document, aliases, anchors, tags, duplicate or
    non-string keys, NaN and infinities, NUL characters, and nesting deeper than 64.
    """
    source = _text(text)
    value = _json(source) if source.lstrip()[:1] == "{" else _MISSING
    if value is _MISSING:
        value = _Document(source).value()
    if not isinstance(value, dict):
        raise ManifestError("", f"the document is {kind(value)}, but a manifest is a map")
    return value


def _text(text: str | bytes) -> str:
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if len(raw) > LARGEST:
        raise ManifestError("", f"the manifest has {len(raw)} bytes; {LARGEST} is the most that is read")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ManifestError("", f"byte {error.start} is not UTF-8") from None


def _json(source: str) -> Any:
    """Read JSON the fast way; whatever is odd about it is left to the YAML reader, which names the field."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("duplicate key")
        return found

    try:
        value = json.loads(source, object_pairs_hook=unique, parse_constant=_Constant)
    except (ValueError, RecursionError):
        return _MISSING
    _plain(value, "", 0)
    return value


class _Constant:
    """NaN, Infinity or -Infinity, kept until the walk knows the field it stands in."""

    def __init__(self, text: str) -> None:
        self.text = text


def _plain(value: Any, path: str, depth: int) -> None:
    if isinstance(value, str):
        if (found := _unfit(value)) is not None:
            raise ManifestError(path, found)
    elif isinstance(value, (dict, list)):
        if depth >= DEEPEST:
            raise ManifestError(path, f"nested deeper than {DEEPEST}")
        if isinstance(value, dict):
            for key, item in value.items():
                _plain(item, join(path, key) if key else path, depth + 1)
        else:
            for index, item in enumerate(value):
                _plain(item, f"{path}[{index}]", depth + 1)
    elif isinstance(value, _Constant):
        raise ManifestError(path, f"{value.text} is not a number that JSON can hold")
    elif isinstance(value, float) and value - value != 0:
        raise ManifestError(path, "the number is too large")


def _unfit(text: str) -> str | None:
    if "\0" in text:
        return "the text has a NUL character"
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        return "the text has half of a surrogate pair"
    return None


class _Document:
    """One YAML document, built from the parser's events so that nothing is expanded before it is judged."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._outer: list[Any] = []
        self._steps: list[str | int | None] = []
        self._holder: Any = None
        self._key: Any = _MISSING
        self._root: Any = _MISSING

    def value(self) -> Any:
        """Give the document's value."""
        loader = _Loader(self._source)
        documents = 0
        try:
            while (event := loader.get_event()) is not None:
                name = type(event)
                if name is yaml.ScalarEvent:
                    self._scalar(event)
                elif name is yaml.MappingStartEvent:
                    self._open({}, event)
                elif name is yaml.SequenceStartEvent:
                    self._open([], event)
                elif name is yaml.MappingEndEvent or name is yaml.SequenceEndEvent:
                    self._holder, self._key = self._outer.pop(), _MISSING
                    self._steps.pop()
                elif name is yaml.DocumentStartEvent:
                    documents += 1
                    if documents > 1:
                        raise self._refuse(event, "more than one document; split the file at its ---")
                elif name is yaml.AliasEvent:
                    raise self._refuse(event, f"the alias *{event.anchor}; aliases are not read, write it out")
        except (yaml.YAMLError, RecursionError) as error:
            raise ManifestError(self._path(), _parser_words(error)) from None
        finally:
            loader.dispose()
        if self._root is _MISSING:
            raise ManifestError("", "the document is empty")
        return self._root

    def _scalar(self, event: Any) -> None:
        text: str = event.value
        plain = not event.style
        if event.anchor is not None or event.tag is not None:
            self._unmarked(event)
        if self._holder.__class__ is dict and self._key is _MISSING:
            self._begin_key(event, text, plain)
            return
        if plain:
            try:
                self._place(resolve(text), event)
            except ValueError as error:
                raise self._refuse(event, str(error)) from None
            return
        if (found := _unfit(text)) is not None:
            raise self._refuse(event, found)
        self._place(text, event)

    def _begin_key(self, event: Any, text: str, plain: bool) -> None:
        if plain:
            try:
                key = resolve(text)
            except ValueError:
                key = None
            if not isinstance(key, str):
                shown = text if len(text) <= 40 else text[:40] + "…"
                raise self._refuse(event, f"the key {shown} is not a text; write it in quotes")
            if text == "<<":
                raise self._refuse(event, "the merge key <<; merges are not read, write it out")
        elif (found := _unfit(text)) is not None:
            raise self._refuse(event, found)
        twice = text in self._holder
        self._key = text
        if twice:
            raise self._refuse(event, "the key is there twice")

    def _open(self, container: Any, event: Any) -> None:
        if event.anchor is not None or event.tag is not None:
            self._unmarked(event)
        if self._holder.__class__ is dict and self._key is _MISSING:
            raise self._refuse(event, f"{kind(container)} as a key")
        if len(self._outer) >= DEEPEST:
            raise self._refuse(event, f"nested deeper than {DEEPEST}")
        holder, step = self._holder, self._step()
        self._place(container, event)
        self._outer.append(holder)
        self._steps.append(step)
        self._holder, self._key = container, _MISSING

    def _step(self) -> str | int | None:
        if self._holder.__class__ is list:
            return len(self._holder)
        return None if self._key is _MISSING else str(self._key)

    def _place(self, value: Any, event: Any) -> None:
        holder = self._holder
        if holder.__class__ is dict:
            holder[self._key] = value
            self._key = _MISSING
        elif holder is not None:
            holder.append(value)
        elif self._root is _MISSING:
            self._root = value
        else:
            raise self._refuse(event, "more than one value in the document")

    def _unmarked(self, event: Any) -> None:
        if event.anchor is not None:
            raise self._refuse(event, f"the anchor &{event.anchor}; anchors are not read, write it out")
        if event.tag != "!":
            raise self._refuse(event, f"the tag {event.tag}; tags are not read")

    def _refuse(self, event: Any, message: str) -> ManifestError:
        path = self._path()
        if len(path) > _LONGEST_PATH:
            path = path[:_LONGEST_PATH] + "…"
        return ManifestError(path, f"{message} (line {event.start_mark.line + 1})")

    def _path(self) -> str:
        path = ""
        for step in [*self._steps, self._step()]:
            if step is not None:
                path = join(path, f"[{step}]" if isinstance(step, int) else step)
        return path


def _parser_words(error: yaml.YAMLError | RecursionError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        what = ", ".join(part for part in (error.context, error.problem) if part)
        return f"not YAML: {what} (line {error.problem_mark.line + 1})"
    return "nested too deeply" if isinstance(error, RecursionError) else f"not YAML: {str(error).splitlines()[0]}"
