"""One call of a template: who calls, with what, and within which boundary."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

from periplus_local.argo.limits import Slots
from periplus_local.argo.nodes import FAILED, Node
from periplus_local.argo.run import Run
from periplus_local.argo.scope import Scope
from periplus_local.argo.templates import Source, Template, kind_of
from periplus_manifest import gotext

HELD_BACK = "template has failed or errored children and failFast enabled"
# Only these count for `parallelism` and `failFast`: what merely waits, or never began, does not.
COUNTED = frozenset({"Pod", "Steps", "DAG"})
RESULT = re.compile(r"""(?:tasks|steps)(?:\.([-\w]+)|\[['"]([-\w]+)['"]\])\.outputs\.result""")
NODE_TYPES = {"container": "Pod", "script": "Pod", "dag": "DAG", "steps": "Steps", "suspend": "Suspend"}


class StepError(Exception):
    """A call could not be made or came to nothing; its node says why, as the text does."""


@dataclass
class Boundary:
    """The DAG or steps around a call: its node, and what it allows the calls within."""

    node_id: str
    template: Template
    slots: Slots = field(init=False)
    failed: bool = False

    def __post_init__(self) -> None:
        """Read what the template says."""
        self.slots = Slots(self.template.get("parallelism"))
        text = gotext.json_text(self.template)
        self.captured = {found[1] or found[2] for found in RESULT.finditer(text)}

    @property
    def closed(self) -> bool:
        """Whether nothing further may start, because a child failed and the template is to fail fast."""
        return bool(self.template.get("failFast")) and self.failed

    def note(self, node: Node) -> None:
        """Take in how a child has ended; of one that retries, each attempt is a child."""
        self.failed = self.failed or (node["phase"] in FAILED and node["type"] in COUNTED)


@dataclass(frozen=True)
class Call:
    """What is called (`holder` is the step or task), under which node name, with which arguments."""

    name: str
    holder: dict[str, Any]
    arguments: dict[str, Any]
    source: Source
    boundary: Boundary | None = None
    step: str = ""
    kind: str = ""
    exit_part: bool = False
    flag: dict[str, Any] | None = None
    depth: int = 1

    def node_fields(self) -> dict[str, Any]:
        """What the node of this call says of it."""
        reference = self.holder.get("templateRef")
        return {
            "templateName": self.holder.get("template"),
            "templateRef": reference,
            "templateScope": self.source.scope,
            "boundaryID": self.boundary.node_id if self.boundary else None,
            "nodeFlag": self.flag,
        }


Execute = Callable[[Run, Call], Awaitable[Node | None]]


@dataclass(frozen=True)
class Frame:
    """A call whose template is ready: what the kinds of templates work with."""

    run: Run
    call: Call
    source: Source
    template: Template
    scope: Scope
    execute: Execute
    until: float | None = None

    @property
    def kind(self) -> str:
        """Which kind of template it is."""
        return kind_of(self.template)

    def node(self) -> Node | None:
        """The node of the call, if it has one yet."""
        return self.run.nodes.named(self.call.name)

    def start(self, kind: str, phase: str, **fields: Any) -> Node:
        """Make the node of the call."""
        inputs = self.template.get("inputs") or None
        fields = {**self.call.node_fields(), "inputs": inputs, **fields}
        return self.run.nodes.start(self.call.name, kind, phase, **fields)

    def attempt(self, name: str, template: Template, scope: Scope, until: float | None) -> "Frame":
        """The same call once more, as one attempt of a retry under a name of its own."""
        flag = {**(self.call.flag or {}), "retried": True}
        call = replace(self.call, name=name, flag=flag)
        return replace(self, call=call, template=template, scope=scope, until=until)


def error_node(run: Run, call: Call, message: str) -> Node:
    """Mark the node of the call as Error; make one when there is none."""
    node = run.nodes.named(call.name)
    if node is not None:
        return run.nodes.mark(node, "Error", message)
    return run.nodes.start(call.name, "Skipped", "Error", message=message, **call.node_fields())
