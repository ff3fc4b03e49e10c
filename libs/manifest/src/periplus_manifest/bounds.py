"""How large a manifest, and a workflow that runs, may be. `docs/limits.md` publishes these values.

The same everywhere: where a manifest is read, checked, planned, submitted, and while it runs. They lie above what Argo
can hold in one Workflow object and below what would fill the memory of a laptop.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_MANIFEST_BYTES = 1 << 20
"""Bytes of a manifest, as Kubernetes bounds the object."""

MAX_NESTING = 64
"""Maps and lists within one another, in the YAML or JSON of a manifest."""

MAX_TEMPLATES = 10_000
"""Templates of a manifest."""

MAX_CALLS = 10_000
"""Steps or tasks of one template."""

MAX_ITEMS = 10_000
"""Items of one loop."""

MAX_DEPTH = 100
"""Templates within one another; a call at this depth is refused, as Argo does."""

MAX_NODES = 20_000
"""Nodes of a workflow: steps, groups, loops, attempts, hooks, exit handlers, also those that are skipped."""

MAX_TEXT_CHARACTERS = 1 << 20
"""Characters of one text after its tags were replaced."""

MAX_FILLED_CHARACTERS = 8 << 20
"""Characters of all texts of one template, or of one step's arguments, after their tags were replaced."""

MAX_STATUS_BYTES = 32 << 20
"""Bytes of `status.nodes` of a workflow, as JSON."""


@dataclass(frozen=True, slots=True)
class RunBounds:
    """What one workflow may hold while it runs."""

    nodes: int = MAX_NODES
    status_bytes: int = MAX_STATUS_BYTES
