"""Builds YAML documents from the parser's events, so that limits are checked before anything is expanded."""

from __future__ import annotations

from typing import Any

import yaml

from .bounds import MAX_NESTING
from .errors import ManifestError, join
from .gotext import kind
from .scalar import invalid_text_reason, resolve

_MAX_PATH_CHARACTERS = 400

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_UNSET: Any = object()


def load(source: str) -> Any:
    """Return the value of the one document in a text. Raises ManifestError for what a manifest may not contain."""
    return _Document(source).value()


def load_all(source: str) -> list[Any]:
    """Return the values of all documents in a text, without empty ones. Raises ManifestError as `load`."""
    return _Document(source, may_be_several=True).values()


class _Document:
    """The containers that are not closed yet, and the path to the parser's position."""

    def __init__(self, source: str, *, may_be_several: bool = False) -> None:
        self._source = source
        self._may_be_several = may_be_several
        self._outer_containers: list[Any] = []
        self._steps: list[str | int | None] = []
        self._container: Any = None
        self._key: Any = _UNSET
        self._root: Any = _UNSET

    def value(self) -> Any:
        """Return the document's value."""
        found = self.values()
        if not found:
            raise ManifestError("", "the document is empty")
        return found[0]

    def values(self) -> list[Any]:
        """Return the values of the documents."""
        loader = _Loader(self._source)
        documents, found = 0, []
        try:
            while (event := loader.get_event()) is not None:
                name = type(event)
                if name is yaml.ScalarEvent:
                    self._scalar(event)
                elif name is yaml.MappingStartEvent:
                    self._begin_container({}, event)
                elif name is yaml.SequenceStartEvent:
                    self._begin_container([], event)
                elif name is yaml.MappingEndEvent or name is yaml.SequenceEndEvent:
                    self._container, self._key = self._outer_containers.pop(), _UNSET
                    self._steps.pop()
                elif name is yaml.DocumentStartEvent:
                    documents += 1
                    if documents > 1 and not self._may_be_several:
                        raise self._refuse(event, "more than one document; split the file at its ---")
                elif name is yaml.DocumentEndEvent:
                    if self._root is not None or not self._may_be_several:
                        found.append(self._root)
                    self._root = _UNSET
                elif name is yaml.AliasEvent:
                    raise self._refuse(
                        event, f"the alias *{event.anchor}; aliases are not read; repeat the value"
                    )
        except (yaml.YAMLError, RecursionError) as error:
            raise ManifestError(self._path(), _parser_message(error)) from None
        finally:
            loader.dispose()
        return found

    def _scalar(self, event: Any) -> None:
        text: str = event.value
        plain = not event.style
        if event.anchor is not None or event.tag is not None:
            self._refuse_markers(event)
        if self._container.__class__ is dict and self._key is _UNSET:
            self._begin_key(event, text, plain)
            return
        if plain:
            try:
                self._add_value(resolve(text), event)
            except ValueError as error:
                raise self._refuse(event, str(error)) from None
            return
        if (found := invalid_text_reason(text)) is not None:
            raise self._refuse(event, found)
        self._add_value(text, event)

    def _begin_key(self, event: Any, text: str, plain: bool) -> None:
        if plain:
            try:
                key = resolve(text)
            except ValueError:
                key = None
            if not isinstance(key, str):
                quoted = text if len(text) <= 40 else text[:40] + "…"
                raise self._refuse(event, f"the key {quoted} is not a text; write it in quotes")
            if text == "<<":
                raise self._refuse(event, "the merge key <<; merges are not read; repeat the values")
        elif (found := invalid_text_reason(text)) is not None:
            raise self._refuse(event, found)
        is_duplicate = text in self._container
        self._key = text
        if is_duplicate:
            raise self._refuse(event, "the key occurs twice")

    def _begin_container(self, new: Any, event: Any) -> None:
        if event.anchor is not None or event.tag is not None:
            self._refuse_markers(event)
        if self._container.__class__ is dict and self._key is _UNSET:
            raise self._refuse(event, f"{kind(new)} as a key")
        if len(self._outer_containers) >= MAX_NESTING:
            raise self._refuse(event, f"nested deeper than {MAX_NESTING}")
        outer, step = self._container, self._step()
        self._add_value(new, event)
        self._outer_containers.append(outer)
        self._steps.append(step)
        self._container, self._key = new, _UNSET

    def _step(self) -> str | int | None:
        if self._container.__class__ is list:
            return len(self._container)
        return None if self._key is _UNSET else str(self._key)

    def _add_value(self, value: Any, event: Any) -> None:
        outer = self._container
        if outer.__class__ is dict:
            outer[self._key] = value
            self._key = _UNSET
        elif outer is not None:
            outer.append(value)
        elif self._root is _UNSET:
            self._root = value
        else:
            raise self._refuse(event, "more than one value in the document")

    def _refuse_markers(self, event: Any) -> None:
        if event.anchor is not None:
            raise self._refuse(event, f"the anchor &{event.anchor}; anchors are not read; remove it")
        if event.tag != "!":
            raise self._refuse(event, f"the tag {event.tag}; tags are not read")

    def _refuse(self, event: Any, message: str) -> ManifestError:
        path = self._path()
        if len(path) > _MAX_PATH_CHARACTERS:
            path = path[:_MAX_PATH_CHARACTERS] + "…"
        return ManifestError(path, f"{message} (line {event.start_mark.line + 1})")

    def _path(self) -> str:
        path = ""
        for step in [*self._steps, self._step()]:
            if step is not None:
                path = join(path, f"[{step}]" if isinstance(step, int) else step)
        return path


def _parser_message(error: yaml.YAMLError | RecursionError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        what = ", ".join(part for part in (error.context, error.problem) if part)
        return f"not YAML: {what} (line {error.problem_mark.line + 1})"
    return (
        "nested too deeply"
        if isinstance(error, RecursionError)
        else f"not YAML: {str(error).splitlines()[0]}"
    )
