"""From Argo's nodes to steps: which step of the plan a node is, how far it is, what it was given and what it gave."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from periplus_dispatcher.domain import (
    Inputs,
    Outputs,
    Phase,
    Resolved,
    Source,
    Verdict,
)
from periplus_dispatcher.gates import HIT, TODO
from periplus_dispatcher.nodes import Reading, Store, listed, retried, time_of
from periplus_dispatcher.record import Answer, Record
from periplus_dispatcher.written import Generated

Json = dict[str, Any]

_LOOP = re.compile(r"^(.*?)\((\d+)(?::.*)?\)$", re.DOTALL)
_ATTEMPT = re.compile(r"\(\d+\)$")
_PHASES = {
    "Running": Phase.RUNNING,
    "Succeeded": Phase.SUCCEEDED,
    "Failed": Phase.FAILED,
    "Error": Phase.ERROR,
    "Skipped": Phase.SKIPPED,
    "Omitted": Phase.SKIPPED,
}
_LEAVES = ("Pod", "Retry", "HTTP", "Plugin", "Suspend")


@dataclass(frozen=True)
class Seen:
    """A step as Argo shows it now."""

    path: str
    phase: Phase
    template: str
    node: str = ""
    message: str = ""
    inputs: Inputs = field(default_factory=Inputs)
    outputs: Outputs = field(default_factory=Outputs)
    started_at: datetime | None = None
    finished_at: datetime | None = None
    attempts: int = 0
    resolved: Resolved | None = None
    """Of a step that was not run: what the cache had."""


@dataclass(frozen=True)
class Gate:
    """A gate that is open: whose, and what Argo resolved its inputs to."""

    node: str
    path: str
    template: str
    fan: bool
    parameters: Mapping[str, str]
    artifacts: Mapping[str, Source]
    supplied: tuple[str, ...]


class View:
    """One state of a Workflow, read with what the dispatcher remembers of its run."""

    def __init__(self, workflow: Json, record: Record, answers: Mapping[str, Answer], store: Store) -> None:
        self._record = record
        self._answers = answers
        self._name = workflow["metadata"]["name"]
        self._status: Json = workflow.get("status") or {}
        self._reading = Reading(self._status, store)
        self._nodes: dict[str, Json] = self._status.get("nodes") or {}
        self._paths: dict[str, str] = {}

    @property
    def phase(self) -> Phase:
        """How far the run is."""
        return _PHASES.get(self._status.get("phase", ""), Phase.PENDING)

    @property
    def message(self) -> str:
        """Why it did not end well."""
        return str(self._status.get("message", ""))

    @property
    def finished_at(self) -> datetime | None:
        """When it ended."""
        return time_of(self._status.get("finishedAt"))

    @property
    def outputs(self) -> Outputs:
        """What the workflow gave."""
        root = self._nodes.get(self._name)
        return self._reading.outputs(root, None) if root else Outputs()

    def pods(self) -> dict[str, str]:
        """Paths of the steps that had a pod, by node id."""
        return {i: self._path(n) for i, n in self._nodes.items() if n.get("type") == "Pod"}

    def gates(self) -> list[Gate]:
        """The gates that wait for an answer."""
        return [
            Gate(
                node=identity,
                path=self._path(node),
                template=generated.template,
                fan=generated.kind == "fan-gate",
                parameters={p["name"]: p.get("value", "") for p in listed(node, "inputs", "parameters")},
                artifacts={a["name"]: self._reading.source(a) for a in listed(node, "inputs", "artifacts")},
                supplied=generated.supplied,
            )
            for identity, node in self._nodes.items()
            if (generated := self._record.generated.get(node.get("templateName", "")))
            and generated.kind in ("gate", "fan-gate")
            and node.get("type") == "Suspend"
            and node.get("phase") == "Running"
        ]

    def steps(self) -> Iterator[Seen]:
        """Every step that is under way or over."""
        for node in self._nodes.values():
            generated = self._record.generated.get(node.get("templateName", ""))
            if node.get("type") == "Skipped":
                if not self._inside_wrapper(node):
                    yield self._left_out(node, generated)
            elif generated is not None:
                yield from self._cached(node, generated.kind)
            elif self._is_leaf(node) and node.get("phase") in _PHASES:
                yield self._ran(node)

    def _is_leaf(self, node: Json) -> bool:
        """Whether a node is a step itself: not one of its attempts, and not a template that holds others."""
        if node.get("type") == "Retry":
            attempts = [self._nodes[child] for child in node.get("children") or () if child in self._nodes]
            if not attempts:
                return node.get("templateName") in self._record.templates
            return not retried(node) and not any(each.get("type") in ("DAG", "Steps") for each in attempts)
        return node.get("type") in _LEAVES and not retried(node)

    def _left_out(self, node: Json, generated: Generated | None) -> Seen:
        template = generated.template if generated else node.get("templateName", "")
        return Seen(self._path(node), Phase.SKIPPED, template, node["id"], node.get("message", ""),
                    finished_at=time_of(node.get("finishedAt")))  # fmt: skip

    def _ran(self, node: Json) -> Seen:
        return Seen(
            path=self._path(node),
            phase=_PHASES[node["phase"]],
            template=node.get("templateName", ""),
            node=node["id"],
            message=node.get("message", ""),
            inputs=self._reading.inputs(node),
            outputs=self._reading.outputs(node, self._declared(node)),
            started_at=time_of(node.get("startedAt")),
            finished_at=time_of(node.get("finishedAt")),
            attempts=len(node.get("children") or ()) if node["type"] == "Retry" else 1,
        )

    def _declared(self, node: Json) -> tuple[str, ...] | None:
        described = self._record.templates.get(node.get("templateName", ""))
        return described.artifacts if described else None

    def _cached(self, node: Json, kind: str) -> Iterator[Seen]:
        """The steps that a wrapper or a gate left out."""
        path = self._path(node)
        known = self._record.resolved.get(planned(path))
        if kind in ("hit", "part") and known is not None and node.get("type") == "DAG":
            if known.items:
                yield from self._items(node, path, known)
            elif node.get("phase") == "Succeeded":
                yield self._hit(node, path, known)
        elif kind in ("gate", "fan-gate") and node.get("phase") == "Succeeded":
            applied = {p["name"]: p.get("value") for p in listed(node, "outputs", "parameters")}
            answer = self._answers.get(node["id"])
            if answer is None:
                return
            if kind == "gate" and applied.get(HIT) == "true":
                yield self._hit(node, path, answer.resolved)
            elif kind == "fan-gate" and applied.get(TODO):
                yield from self._items(node, path, answer.resolved)

    def _items(self, node: Json, path: str, resolved: Resolved) -> Iterator[Seen]:
        for index, item in enumerate(resolved.items):
            if item.verdict is Verdict.HIT:
                yield self._hit(node, f"{path}({index})", item)

    def _hit(self, node: Json, path: str, resolved: Resolved) -> Seen:
        template = self._record.generated[node["templateName"]].template
        finished = time_of(node.get("finishedAt")) or time_of(node.get("startedAt"))
        return Seen(path, Phase.CACHED, template, node["id"], outputs=resolved.outputs or Outputs(),
                    started_at=finished, finished_at=finished, resolved=resolved)  # fmt: skip

    def _inside_wrapper(self, node: Json) -> bool:
        boundary = self._nodes.get(node.get("boundaryID", ""))
        generated = self._record.generated.get(boundary.get("templateName", "")) if boundary else None
        return generated is not None and generated.kind != "copy"

    def _path(self, node: Json) -> str:
        """The step's path: the names of the calls that lead to it, ours left out."""
        identity = node["id"]
        if identity not in self._paths:
            self._paths[identity] = self._found_path(node)
        return self._paths[identity]

    def _found_path(self, node: Json) -> str:
        boundary = self._nodes.get(node.get("boundaryID", ""))
        if boundary is None:
            return "" if node.get("type") in ("DAG", "Steps") else node.get("templateName", "")
        outer = self._path(boundary)
        name = _ATTEMPT.sub("", node["displayName"]) if retried(node) else node["displayName"]
        loop = _LOOP.match(name)
        generated = self._record.generated.get(boundary.get("templateName", ""))
        if generated is None or generated.kind == "copy":
            segment = f"{loop[1]}({loop[2]})" if loop else name
            return f"{outer}.{segment}" if outer else segment
        if generated.kind in ("fan", "part") and loop:
            todo = self._todo(boundary, outer)
            index = int(loop[2])
            return f"{outer}({todo[index] if todo and index < len(todo) else index})"
        return outer

    def _todo(self, fan: Json, path: str) -> tuple[int, ...]:
        """Which items a fan-out's run loops over; empty where it is all of them."""
        declared = self._record.fans.get(planned(path))
        if declared is not None and declared.todo is not None:
            return declared.todo
        for identity, answer in self._answers.items():
            gate = self._nodes.get(identity)
            if gate and gate.get("boundaryID") == fan["id"]:
                applied = {p["name"]: p.get("value") for p in listed(gate, "outputs", "parameters")}
                return answer.todo if applied.get(TODO) else ()
        return ()


def planned(path: str) -> str:
    """The path in the plan of a path in the run: there, a loop over a nested template is walked once."""
    outer, dot, last = path.rpartition(".")
    loop = _LOOP.match(last)
    return re.sub(r"\(\d+\)", "(*)", outer) + dot + (loop[1] if loop else last)
