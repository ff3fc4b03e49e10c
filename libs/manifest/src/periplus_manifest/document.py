"""One YAML document, built from the parser's events so that nothing is expanded before it is judged."""

from __future__ import annotations

from typing import Any

import yaml

from .errors import ManifestError, join
from .gotext import kind
from .scalar import resolve, unfit

DEEPEST = 64
_LONGEST_PATH = 400

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MISSING: Any = object()


def load(source: str) -> Any:
    """Give the value of the one document in a text. Raises ManifestError for all that a manifest may not have."""
    return _Document(source).value()


class _Document:
    """The containers that are open, and the steps that lead to where the parser stands."""

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
                    raise self._refuse(
                        event, f"the alias *{event.anchor}; aliases are not read, write it out"
                    )
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
        if (found := unfit(text)) is not None:
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
        elif (found := unfit(text)) is not None:
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
    return (
        "nested too deeply"
        if isinstance(error, RecursionError)
        else f"not YAML: {str(error).splitlines()[0]}"
    )
