"""The values of inputs as far as they are known: texts joined from their parts, and content digests of artifacts."""

from collections.abc import Mapping
from dataclasses import dataclass

from periplus_cache.content import Content, Unreadable
from periplus_common import digest
from periplus_model.queries import ArtifactSource, Item, Literal, OutputRef, Raw, Text
from periplus_model.steps import ObjectRef, Outputs


@dataclass(frozen=True, slots=True)
class Unresolved:
    """Why a value is not known. `permanent`: it does not become known during the run, either."""

    reason: str
    permanent: bool = False


class InputValues:
    """The contents of objects, and the outputs of the steps that were resolved so far."""

    def __init__(self, contents: Mapping[ObjectRef, Content | Unreadable]) -> None:
        self._contents = contents
        self.outputs: dict[str, Outputs | Unresolved] = {}

    def text(self, text: Text, scope: Mapping[str, str]) -> str | Unresolved:
        """The text with the values of its parts. `scope` has the item of a fan-out and its members."""
        values = []
        for part in text:
            if isinstance(part, Literal):
                values.append(part.text)
                continue
            if isinstance(part, OutputRef):
                value = self._output(part)
            elif isinstance(part, Item):
                name = f"item.{part.member}" if part.member else "item"
                value = scope.get(name, Unresolved(f"an item has no member {part.member!r}", permanent=True))
            else:
                value = Unresolved(part.description)
            if isinstance(value, Unresolved):
                return value
            values.append(value)
        return "".join(values)

    def artifact(self, source: ArtifactSource) -> str | Unresolved | None:
        """A content digest. None for an artifact that its step did not write: it is not part of the key."""
        if isinstance(source, Raw):
            return digest.of_bytes(source.text.encode())
        if isinstance(source, ObjectRef):
            content = self._contents[source]
            if isinstance(content, Unreadable):
                return Unresolved(content.reason, permanent=True)
            return content.digest
        if isinstance(source, OutputRef):
            outputs = self.outputs[source.step]
            if isinstance(outputs, Unresolved):
                return outputs
            artifact = outputs.artifact(source.name)
            return artifact.digest if artifact else None
        return Unresolved(source.description)

    def _output(self, ref: OutputRef) -> str | Unresolved:
        outputs = self.outputs[ref.step]
        if isinstance(outputs, Unresolved):
            return outputs
        value = output_value(outputs, ref)
        if value is None:
            return Unresolved(f"{ref.step} has no {output_name(ref)}", permanent=True)
        return value


def output_value(outputs: Outputs, ref: OutputRef) -> str | None:
    """The parameter or the result that the reference names; None if there is none."""
    return outputs.result if ref.result else outputs.parameters.get(ref.name)


def output_name(ref: OutputRef) -> str:
    """The output's name in sentences."""
    return "result" if ref.result else f"output {ref.name!r}"
