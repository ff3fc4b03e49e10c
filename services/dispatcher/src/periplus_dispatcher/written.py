"""What a rewritten manifest is made of: our templates in it, and the fan-outs whose loops they hold."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from periplus_dispatcher.domain import Object, Raw, Source

Json = dict[str, Any]


@dataclass(frozen=True)
class Generated:
    """A template of ours: what it is for, and which of the user's templates it stands for."""

    kind: str  # hit, cached, gate, select, fan, fan-gate, part, copy, never
    template: str
    supplied: tuple[str, ...] = ()
    """Of a gate: the parameters that an answer may give."""


@dataclass(frozen=True)
class Fan:
    """How the items of a rewritten fan-out are asked for: the arguments of one item, and what is passed in."""

    arguments: Json
    todo: tuple[int, ...] | None = None
    """Of a part: the indices of the items that run."""
    parameters: Mapping[str, str] = field(default_factory=dict)
    """What each item is given that the call does not say: the template's defaults."""
    objects: Mapping[str, Object] = field(default_factory=dict)
    raws: Mapping[str, Raw] = field(default_factory=dict)
    """Artifacts likewise, where they have a place or bytes of their own."""

    @property
    def artifacts(self) -> dict[str, Source]:
        """All artifacts that the call does not say."""
        return {**self.objects, **self.raws}


@dataclass(frozen=True)
class Rewritten:
    """The manifest for Argo, and what our templates in it mean."""

    manifest: Json
    generated: Mapping[str, Generated] = field(default_factory=dict)
    fans: Mapping[str, Fan] = field(default_factory=dict)
    """By the path of the fan-out."""
