"""The values of inputs: texts joined from pieces, and content digests of artifacts, as far as they are known."""

from collections.abc import Mapping
from dataclasses import dataclass

from periplus_cache.domain import Outputs, Place
from periplus_cache.plan import Item, Literal, Object, OutputRef, Raw, Source, Text
from periplus_common import digest


@dataclass(frozen=True, slots=True)
class Unresolved:
    """A value that is not known, and why. Where `never`, no later answer makes it known."""

    why: str
    never: bool = False


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An object without a content digest, and why."""

    why: str


Content = str | Unreadable


class Values:
    """What is known during a walk: the contents of objects, and what steps gave as far as the walk is."""

    def __init__(self, contents: Mapping[Place, Content]) -> None:
        self._contents = contents
        self.given: dict[str, Outputs | Unresolved] = {}

    def text(self, text: Text, scope: Mapping[str, str]) -> str | Unresolved:
        """A text with its pieces joined. `scope` is what the item of a fan-out stands for."""
        pieces = []
        for part in text:
            if isinstance(part, Literal):
                pieces.append(part.text)
                continue
            if isinstance(part, OutputRef):
                value = self._output(part)
            elif isinstance(part, Item):
                name = f"item.{part.member}" if part.member else "item"
                value = scope.get(name, Unresolved(f"an item has no member {part.member!r}", never=True))
            else:
                value = Unresolved(part.what)
            if isinstance(value, Unresolved):
                return value
            pieces.append(value)
        return "".join(pieces)

    def _output(self, ref: OutputRef) -> str | Unresolved:
        given = self.given[ref.step]
        if isinstance(given, Unresolved):
            return given
        value = given.result if ref.result else given.parameter(ref.name)
        if value is None:
            return Unresolved(f"{ref.step} gave no {ref.called()}", never=True)
        return value

    def artifact(self, source: Source) -> str | Unresolved | None:
        """A content digest. None for an artifact that its step did not make: such an input is left out."""
        if isinstance(source, Raw):
            return digest.of_bytes(source.text.encode())
        if isinstance(source, Object):
            content = self._contents[source.place]
            return Unresolved(content.why, never=True) if isinstance(content, Unreadable) else content
        if isinstance(source, OutputRef):
            given = self.given[source.step]
            if isinstance(given, Unresolved):
                return given
            artifact = given.artifact(source.name)
            return artifact.digest if artifact else None
        return Unresolved(source.what)
