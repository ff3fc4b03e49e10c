"""Where the steps of one DAG or steps template run: what they share, and how each becomes calls."""

from dataclasses import dataclass, field
from typing import Any

from periplus_local.argo import outputs, tree
from periplus_local.argo import scope as scopes
from periplus_local.argo.call import Boundary, Call, Execute, Frame
from periplus_local.argo.faults import Fault
from periplus_local.argo.nodes import Node
from periplus_local.argo.run import Run
from periplus_local.argo.scope import Scope
from periplus_local.argo.templates import Source
from periplus_manifest import condition, loops
from periplus_manifest.errors import ManifestError

LOOPS = ("withItems", "withParam", "withSequence")
EMPTY = "Skipped, empty params"


@dataclass
class Place:
    """The inside of a boundary; `kind` is "tasks" or "steps"."""

    run: Run
    execute: Execute
    source: Source
    boundary: Boundary
    kind: str
    scope: Scope
    depth: int
    exit_part: bool
    items: dict[str, list[Node]] = field(default_factory=dict)

    def call(self, name: str, step: dict[str, Any], original: str) -> Call:
        """The call that a step, whose tags are filled in, makes under a node name."""
        return Call(
            name=name,
            holder=step,
            arguments=step.get("arguments") or {},
            source=self.source,
            boundary=self.boundary,
            step=original,
            kind=self.kind,
            exit_part=self.exit_part,
            depth=self.depth + 1,
        )

    def start(self, name: str, kind: str, phase: str, step: dict[str, Any] | None, **more: Any) -> Node:
        """Make a node that no template is run for: a group, or a step that is skipped."""
        fields = {
            "templateName": (step or {}).get("template"),
            "templateRef": (step or {}).get("templateRef"),
            "templateScope": self.source.scope,
            "boundaryID": self.boundary.node_id,
            "nodeFlag": {},
            **more,
        }
        return self.run.nodes.start(name, kind, phase, **fields)

    def settle(self, name: str, step: dict[str, Any], node: Node) -> None:
        """Put the outputs of a step that has come to rest in reach of those after it."""
        if name in self.items:
            scopes.put_aggregate(self.scope, self.kind, name, self.items[name])
        given = node.get("outputs")
        scopes.put_node(self.scope, self.kind, name, last_attempt(self.run, node), given)
        if given is None and node["phase"] in {"Skipped", "Omitted"}:
            try:
                _, template = self.run.shelf.called(self.source, step)
            except Fault:
                return
            scopes.put_skipped(self.scope, self.kind, name, template.get("outputs") or {})

    def filled(self, step: dict[str, Any]) -> tuple[dict[str, Any], bool]:
        """The step with what it refers to filled in, and whether its `when` lets it run.

        When it does not run, only its `when` is filled in. Raises Fault or ManifestError for a reference
        that leads nowhere.
        """
        plain = {key: value for key, value in step.items() if key not in {"hooks", "onExit"}}
        if plain.get("when"):
            when = self.scope.fill(plain["when"], strict=True)
            if not self._goes(plain, when):
                return {**step, "when": when}, False
        arguments = plain.get("arguments")
        if arguments:
            plain["arguments"] = scopes.mark_absent(arguments, self.scope)
        made = self.scope.fill(plain, strict=True)
        if arguments:
            made["arguments"] = outputs.arguments(made["arguments"], self.scope)
        kept = {key: step[key] for key in ("hooks", "onExit") if key in step}
        return {**made, **kept}, True

    def skipped(self, node_name: str, step: dict[str, Any]) -> Node | None:
        """The node of a filled in step whose `when` is false or no condition; None when it is to run."""
        when = step.get("when")
        try:
            if not when or condition.evaluate(when):
                return None
            phase, message = "Skipped", f"when '{when}' evaluated false"
        except ManifestError as error:
            phase, message = "Error", str(error)
        return self.start(node_name, "Skipped", phase, step, message=message)

    def _goes(self, step: dict[str, Any], when: str) -> bool:
        try:
            return condition.evaluate(when)
        except ManifestError:
            if loops_in(step):
                return True
            raise

    def expanded(self, step: dict[str, Any], runs: bool) -> list[tuple[str, dict[str, Any]]] | None:
        """The iterations of a filled in step with their names; None when it has no loop."""
        if not loops_in(step):
            return None
        try:
            items = loops.items(step) or []
        except ManifestError:
            if runs:
                raise
            items = []
        body = {key: value for key, value in step.items() if key not in LOOPS}
        made = []
        for index, item in enumerate(items):
            inner = Scope(self.scope)
            texts = loops.item_scope(item)
            inner.flat.update(texts)
            keys = {key.removeprefix("item."): text for key, text in texts.items() if key != "item"}
            inner.nested["item"] = keys or texts.get("item")
            filled = inner.fill_all(body) if runs else inner.fill(body)
            made.append((loops.item_name(step["name"], index, item), filled))
        return made


def place_of(frame: Frame, node: Node, kind: str) -> Place:
    """The place within the node of a DAG or steps template."""
    return Place(
        run=frame.run,
        execute=frame.execute,
        source=frame.source,
        boundary=Boundary(node["id"], frame.template),
        kind=kind,
        scope=Scope(frame.scope),
        depth=frame.call.depth,
        exit_part=frame.call.exit_part,
    )


def loops_in(step: dict[str, Any]) -> bool:
    """Whether the step is a loop."""
    return any(step.get(key) for key in LOOPS)


def last_attempt(run: Run, node: Node) -> Node:
    """The last attempt of a Retry node, which is what others see of it; another node is its own."""
    if node["type"] != "Retry":
        return node
    tries = tree.attempts(run.nodes, node)
    return tries[-1] if tries else node
