"""What following a manifest gives: its steps as it plans them, and what its leaf templates do."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from periplus_dispatcher.domain import Query, Source, Template, Text
from periplus_manifest.depends import Depends


@dataclass(frozen=True)
class Call:
    """One step of the run as the manifest plans it.

    `query` is absent where the cache is not asked; `obstacle` says why. `condition` is the text of its `when`.
    """

    path: str
    template: str
    depends_on: tuple[str, ...] = ()
    condition: Text | None = None
    per_item_condition: bool = False
    query: Query | None = None
    obstacle: str = ""
    waits_for: Depends | None = None
    siblings: Mapping[str, str] = field(default_factory=dict)
    """Paths of the tasks that `waits_for` may name."""
    result_used: bool = False
    """Whether others read its standard output."""
    nested: bool = False
    """Whether it calls a DAG or steps template; its own steps follow it."""


@dataclass(frozen=True)
class Walk:
    """A manifest's steps, in an order in which they could run, and what its leaf templates do."""

    calls: tuple[Call, ...]
    templates: Mapping[str, Template]
    parameters: Mapping[str, Text]
    """Output parameters of the entrypoint; those that only Argo can tell are left out."""
    artifacts: Mapping[str, Source]
    simple: bool
    """Whether the steps are all there is: no exit handler, no hooks, no outputs that only Argo can tell."""
