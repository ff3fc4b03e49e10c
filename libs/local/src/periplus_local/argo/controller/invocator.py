"""A template invocator (a DAG or steps template) that runs: what its steps share, and how each becomes calls."""

from dataclasses import dataclass, field
from typing import Any

from periplus_local.argo.controller import outputs
from periplus_local.argo.controller import scope as scopes
from periplus_local.argo.controller.node_tree import last_attempt
from periplus_local.argo.controller.nodes import Node
from periplus_local.argo.controller.scope import Scope
from periplus_local.argo.controller.template_call import (
    Boundary,
    ExecuteTemplate,
    TemplateCall,
    TemplateExecution,
)
from periplus_local.argo.controller.workflow_run import WorkflowRun
from periplus_local.argo.errors import ArgoError
from periplus_local.argo.templates import TemplateSet
from periplus_manifest import bounds, condition, loops, measure
from periplus_manifest.errors import BoundError, ManifestError

LOOP_FIELDS = ("withItems", "withParam", "withSequence")
EMPTY_LOOP = "Skipped, empty params"
Step = dict[str, Any]


@dataclass
class Invocator:
    """What the steps of one DAG or steps template share.

    `step_kind` is "tasks" or "steps", by which variables name them. `item_nodes` are the nodes of the items of each
    loop that has ended, by the step's name.
    """

    run: WorkflowRun
    execute_template: ExecuteTemplate
    templates: TemplateSet
    boundary: Boundary
    step_kind: str
    scope: Scope
    depth: int
    in_exit_handler: bool
    item_nodes: dict[str, list[Node]] = field(default_factory=dict)

    def call(self, node_name: str, step: Step, step_name: str) -> TemplateCall:
        """The call of a filled in step; `step_name` is the name of the step in the template."""
        return TemplateCall(
            node_name=node_name,
            reference=step,
            arguments=step.get("arguments") or {},
            caller=self.templates,
            boundary=self.boundary,
            step=step_name,
            step_kind=self.step_kind,
            in_exit_handler=self.in_exit_handler,
            depth=self.depth + 1,
        )

    def start_node(self, name: str, kind: str, phase: str, step: Step | None, **fields: Any) -> Node:
        """Add a node for which no template runs: a group, or a step that is skipped."""
        step = step or {}
        fields = {
            "templateName": step.get("template"),
            "templateRef": step.get("templateRef"),
            "templateScope": self.templates.scope,
            "boundaryID": self.boundary.node_id,
            "nodeFlag": {},
            **fields,
        }
        return self.run.nodes.start(name, kind, phase, **fields)

    def publish_outputs(self, step_name: str, step: Step, node: Node) -> None:
        """Put the status and the outputs of a step that has ended into the scope of the steps after it."""
        if step_name in self.item_nodes:
            scopes.put_aggregate(self.scope, self.step_kind, step_name, self.item_nodes[step_name])
        node_outputs = node.get("outputs")
        attempt = last_attempt(self.run.nodes, node)
        scopes.put_node(self.scope, self.step_kind, step_name, attempt, node_outputs)
        if node_outputs is None and node["phase"] in {"Skipped", "Omitted"}:
            try:
                _, template = self.run.templates.resolve(self.templates, step)
            except ArgoError:
                return
            scopes.put_skipped(self.scope, self.step_kind, step_name, template.get("outputs") or {})

    def fill(self, step: Step) -> tuple[Step, bool]:
        """The step with its references filled in, and whether its `when` is true.

        When it is false, only `when` is filled in. Raises ArgoError or ManifestError for a reference that cannot be
        resolved.
        """
        plain = {key: value for key, value in step.items() if key not in {"hooks", "onExit"}}
        if plain.get("when"):
            when = self.scope.fill(plain["when"], strict=True)
            if not self._is_true(plain, when):
                return {**step, "when": when}, False
        arguments = plain.get("arguments")
        if arguments:
            plain["arguments"] = scopes.mark_absent(arguments, self.scope)
        filled = self.scope.fill(plain, strict=True)
        if arguments:
            filled["arguments"] = outputs.resolve_artifacts(filled["arguments"], self.scope)
        hooks = {key: step[key] for key in ("hooks", "onExit") if key in step}
        return {**filled, **hooks}, True

    def _is_true(self, step: Step, when: str) -> bool:
        try:
            return condition.evaluate(when)
        except ManifestError:
            if has_loop(step):
                return True  # it may contain {{item}}: each item is checked
            raise

    def skip_node(self, node_name: str, step: Step) -> Node | None:
        """The node of a filled in step whose `when` is false or does not parse; None when the step is to run."""
        when = step.get("when")
        try:
            if not when or condition.evaluate(when):
                return None
            phase, message = "Skipped", f"when '{when}' evaluated false"
        except ManifestError as error:
            phase, message = "Error", str(error)
        return self.start_node(node_name, "Skipped", phase, step, message=message)

    async def expand_loop(self, step: Step, runs: bool) -> list[tuple[str, Step]] | None:
        """The items of a filled in step, each with its name; None when it has no loop.

        `runs` is the second value of `fill`. Raises ManifestError for more items, or more text in all of them, than
        a workflow may have.
        """
        if not has_loop(step):
            return None
        try:
            items = loops.items(step) or []
        except ManifestError:
            if runs:
                raise
            items = []
        body = {key: value for key, value in step.items() if key not in LOOP_FIELDS}
        expanded, filled_bytes = [], 0
        for index, item in enumerate(items):
            await self.run.turns.take()
            inner = Scope(self.scope)
            texts = loops.item_scope(item)
            inner.flat.update(texts)
            keys = {key.removeprefix("item."): text for key, text in texts.items() if key != "item"}
            inner.nested["item"] = keys or texts.get("item")
            filled = inner.fill_strictly(body) if runs else inner.fill(body)
            filled_bytes += measure.text_size(filled)
            if filled_bytes > bounds.MAX_STATUS_BYTES:
                raise BoundError(
                    "",
                    f"the arguments of all items of {step['name']} have more than {bounds.MAX_STATUS_BYTES} characters",
                )
            expanded.append((loops.item_name(step["name"], index, item), filled))
        return expanded


def invocator_of(execution: TemplateExecution, node: Node, step_kind: str) -> Invocator:
    """The invocator for the node of a DAG or steps template."""
    return Invocator(
        run=execution.run,
        execute_template=execution.execute_template,
        templates=execution.templates,
        boundary=Boundary(node["id"], execution.template),
        step_kind=step_kind,
        scope=Scope(execution.scope),
        depth=execution.call.depth,
        in_exit_handler=execution.call.in_exit_handler,
    )


def has_loop(step: Step) -> bool:
    """Whether the step is a fan-out."""
    return any(step.get(key) for key in LOOP_FIELDS)
