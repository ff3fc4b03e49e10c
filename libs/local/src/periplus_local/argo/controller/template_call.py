"""A call of a template: by which step, with which arguments, within which boundary; and its execution."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

from periplus_local.argo.controller.nodes import FAILED, Node
from periplus_local.argo.controller.scope import Scope
from periplus_local.argo.controller.synchronization import Slots
from periplus_local.argo.controller.workflow_run import WorkflowRun
from periplus_local.argo.templates import Template, TemplateSet, kind_of
from periplus_manifest import gotext

FAIL_FAST_MESSAGE = "template has failed or errored children and failFast enabled"
# The types of nodes whose failure triggers `failFast`: not those that only wait, or that did not start.
FAIL_FAST_TYPES = frozenset({"Pod", "Steps", "DAG"})
RESULT_REFERENCE = re.compile(r"""(?:tasks|steps)(?:\.([-\w]+)|\[['"]([-\w]+)['"]\])\.outputs\.result""")
NODE_TYPES = {"container": "Pod", "script": "Pod", "dag": "DAG", "steps": "Steps", "suspend": "Suspend"}


class StepError(Exception):
    """A step could not be started; the message is that of its node."""


@dataclass
class Boundary:
    """The node of the DAG or steps template around a call, and the limits it sets for the calls within."""

    node_id: str
    template: Template
    slots: Slots = field(init=False)
    has_failed_child: bool = False

    def __post_init__(self) -> None:
        """Read the limits of the template."""
        self.slots = Slots(self.template.get("parallelism"))
        text = gotext.json_text(self.template)
        # Argo captures standard output only for the steps whose result the template refers to.
        self.captured_steps = {found[1] or found[2] for found in RESULT_REFERENCE.finditer(text)}

    @property
    def is_failing_fast(self) -> bool:
        """Whether no further step may start, because one failed and the template has `failFast`."""
        return bool(self.template.get("failFast")) and self.has_failed_child

    def child_ended(self, node: Node) -> None:
        """Record how a child has ended; each attempt of a child that retries counts."""
        self.has_failed_child = self.has_failed_child or (
            node["phase"] in FAILED and node["type"] in FAIL_FAST_TYPES
        )


@dataclass(frozen=True)
class TemplateCall:
    """A step, hook or entrypoint that calls a template.

    `reference` has the `template`, `templateRef` or `inline`, which is looked up in the set `caller`. `step` is the
    name of the step and `step_kind` "tasks" or "steps", both empty for the entrypoint. `depth` counts the templates
    within one another.
    """

    node_name: str
    reference: dict[str, Any]
    arguments: dict[str, Any]
    caller: TemplateSet
    boundary: Boundary | None = None
    step: str = ""
    step_kind: str = ""
    in_exit_handler: bool = False
    node_flag: dict[str, Any] | None = None
    depth: int = 1

    def node_fields(self) -> dict[str, Any]:
        """The fields of the call's node that follow from the call."""
        return {
            "templateName": self.reference.get("template"),
            "templateRef": self.reference.get("templateRef"),
            "templateScope": self.caller.scope,
            "boundaryID": self.boundary.node_id if self.boundary else None,
            "nodeFlag": self.node_flag,
        }


ExecuteTemplate = Callable[[WorkflowRun, TemplateCall], Awaitable[Node | None]]


@dataclass(frozen=True)
class TemplateExecution:
    """A call whose template is resolved and filled in, as the kinds of templates run it.

    `templates` is the set in which the template's own steps look up names. `retry_until` (Unix seconds) bounds an
    attempt whose retry strategy has a `maxDuration`. `execute_template` runs the calls that the template makes.
    """

    run: WorkflowRun
    call: TemplateCall
    templates: TemplateSet
    template: Template
    scope: Scope
    execute_template: ExecuteTemplate
    retry_until: float | None = None

    @property
    def kind(self) -> str:
        """The kind of the template."""
        return kind_of(self.template)

    def node(self) -> Node | None:
        """The node of the call, if it has one yet."""
        return self.run.nodes.by_name(self.call.node_name)

    def start_node(self, kind: str, phase: str, **fields: Any) -> Node:
        """Add the node of the call."""
        inputs = self.template.get("inputs") or None
        fields = {**self.call.node_fields(), "inputs": inputs, **fields}
        return self.run.nodes.start(self.call.node_name, kind, phase, **fields)

    def attempt(
        self, node_name: str, template: Template, scope: Scope, retry_until: float | None
    ) -> "TemplateExecution":
        """The same call as one attempt of a retry, with a node of its own."""
        node_flag = {**(self.call.node_flag or {}), "retried": True}
        call = replace(self.call, node_name=node_name, node_flag=node_flag)
        return replace(self, call=call, template=template, scope=scope, retry_until=retry_until)


def set_error(run: WorkflowRun, call: TemplateCall, message: str) -> Node:
    """Set the node of the call to phase Error; add one when there is none."""
    node = run.nodes.by_name(call.node_name)
    if node is not None:
        return run.nodes.set_phase(node, "Error", message)
    return run.nodes.start(call.node_name, "Skipped", "Error", message=message, **call.node_fields())
