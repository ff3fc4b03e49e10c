"""The state of a Workflow as statuses of steps and open gates."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property

from periplus_dispatcher.domain import (
    ITEM_NAME,
    Delay,
    GateAnswer,
    GeneratedTemplate,
    Json,
    RunState,
    StepStatus,
    StretchMember,
    TemplateRole,
    plan_path,
)
from periplus_dispatcher.follow.delays import delay_reason
from periplus_dispatcher.follow.failures import explained
from periplus_dispatcher.follow.nodes import (
    ArtifactRepository,
    NodeReader,
    field_list,
    is_retry_attempt,
    parse_time,
    template_name,
)
from periplus_dispatcher.manifest.discovered import Discovered, read_report
from periplus_dispatcher.observed.kubeflow import COMPONENT
from periplus_dispatcher.rewrite.generated import ASK, IS_HIT, REMAINING_ITEMS, SERVED, VERDICT
from periplus_model.queries import ArtifactSource, StepVerdict
from periplus_model.steps import Outputs, RunPhase, StepPhase, Verdict

_ATTEMPT_SUFFIX = re.compile(r"\((\d+)\)$")
_STEP_PHASES = {
    "Running": StepPhase.RUNNING,
    "Succeeded": StepPhase.SUCCEEDED,
    "Failed": StepPhase.FAILED,
    "Error": StepPhase.ERROR,
    "Skipped": StepPhase.SKIPPED,
    "Omitted": StepPhase.SKIPPED,
}
_RUN_PHASES = {
    "Running": RunPhase.RUNNING,
    "Succeeded": RunPhase.SUCCEEDED,
    "Failed": RunPhase.FAILED,
    "Error": RunPhase.ERROR,
}

_STEP_NODE_TYPES = ("Pod", "Retry", "HTTP", "Plugin", "Suspend")
_GATE_ROLES = (TemplateRole.GATE, TemplateRole.FAN_OUT_GATE, TemplateRole.STRETCH_GATE)


@dataclass(frozen=True)
class Rest:
    """The rest of a stretch, where the gate of one member is open.

    `waiting` are the members that have asked and were not reached, `outputs` those of the members that have ended.
    `parameters` and `artifacts` are the inputs of the stretch's gate.
    """

    member: str
    waiting: Mapping[str, StretchMember]
    outputs: Mapping[str, Outputs]
    parameters: Mapping[str, str]
    artifacts: Mapping[str, ArtifactSource]


@dataclass(frozen=True)
class Gate:
    """An open gate: the path and template of its step, its inputs, and the parameters that an answer can set.

    Of the gate of a stretch, `path` is its own, and `template` is the name of its template.
    """

    node: str
    path: str
    template: str
    role: TemplateRole
    parameters: Mapping[str, str]
    artifacts: Mapping[str, ArtifactSource]
    supplied: tuple[str, ...]
    rest: "Rest | None" = None

    @property
    def is_fan_out(self) -> bool:
        return self.role is TemplateRole.FAN_OUT_GATE


class WorkflowStatus:
    """One state of a Workflow, read together with the state of its run and the answers to its gates."""

    def __init__(
        self,
        workflow: Json,
        state: RunState,
        answers: Mapping[str, GateAnswer],
        repository: ArtifactRepository,
        *,
        steps_are_processes: bool = False,
    ) -> None:
        self._steps_are_processes = steps_are_processes
        self._state = state
        self._answers = answers
        self._name = workflow["metadata"]["name"]
        self._status: Json = workflow.get("status") or {}
        self._nodes: dict[str, Json] = self._status.get("nodes") or {}
        self._reader = NodeReader(self._status, repository)
        self._paths: dict[str, str] = {}

    @property
    def phase(self) -> RunPhase:
        return _RUN_PHASES.get(self._status.get("phase", ""), RunPhase.PENDING)

    @property
    def message(self) -> str:
        """Why it did not succeed."""
        return str(self._status.get("message", ""))

    @property
    def finished_at(self) -> datetime | None:
        return parse_time(self._status.get("finishedAt"))

    @property
    def outputs(self) -> Outputs:
        """The outputs of the workflow."""
        root = self._nodes.get(self._name)
        return self._reader.outputs(root, None) if root else Outputs()

    def pod_steps(self) -> dict[str, str]:
        """The path of the step of each pod, by node id and by pod name.

        A pod's name is the Workflow's, its template's and the number in the node's id.
        """
        found = {}
        for node_id, node in self._nodes.items():
            if node.get("type") == "Pod":
                pod_name = f"{self._name}-{node.get('templateName', '')}-{node_id.rpartition('-')[2]}"
                found[node_id] = found[pod_name] = self._path(node)
        return found

    def open_gates(self) -> list[Gate]:
        """The gates that wait for an answer."""
        return [
            Gate(
                node=node_id,
                path=self._path(node),
                template=generated.template,
                role=generated.role,
                parameters=_parameters(node),
                artifacts=self._sources(node),
                supplied=generated.supplied,
                rest=self._rest(node),
            )
            for node_id, node in self._nodes.items()
            if (generated := self._generated(node)) is not None
            and generated.role in _GATE_ROLES
            and node.get("type") == "Suspend"
            and node.get("phase") == "Running"
        ]

    def steps(self) -> list[StepStatus]:
        """The status of every step that has started, finished or was skipped, in the order of the plan.

        Many can pass in one state of a Workflow, whose nodes have no order.
        """
        order = {path: position for position, path in enumerate(self._state.verdicts)}
        return sorted(
            self._steps(), key=lambda step: order.get(step.path, order.get(plan_path(step.path), len(order)))
        )

    def _steps(self) -> Iterator[StepStatus]:
        for node in self._nodes.values():
            generated = self._generated(node)
            if node.get("type") == "Skipped":
                is_step = generated is None or generated.role is not TemplateRole.STRETCH_GATE
                if is_step and not self._is_inside_wrapper(node):
                    yield self._skipped(node, generated)
            elif generated is not None:
                yield from self._cached(node, generated.role)
            elif self._is_step(node) and self._has_started(node):
                yield self._executed(node)

    def ended_fan_outs(self) -> set[str]:
        """The paths of the fan-outs of which all items have ended."""
        return {
            self._path(node)
            for node in self._nodes.values()
            if node.get("type") == "TaskGroup" and node.get("phase") not in ("Pending", "Running")
        }

    def delays(self, now: datetime) -> Iterator[Delay]:
        """Every step that has a node and has not finished, with what delays it, if anything does."""
        for node in self._nodes.values():
            is_open = node.get("phase") in ("Pending", "Running")
            if is_open and self._generated(node) is None and self._is_step(node):
                reason = delay_reason(node, self._attempts(node), now)
                yield Delay(self._path(node), self._template(node), node["id"], reason)

    def _attempts(self, node: Json) -> list[Json]:
        """The attempts of a step under a retryStrategy, in order; those of another step are none."""
        if node.get("type") != "Retry":
            return []
        return [self._nodes[child] for child in node.get("children") or () if child in self._nodes]

    def _has_started(self, node: Json) -> bool:
        """Whether a step has started or ended. A Retry node is Running before its first attempt is."""
        if node.get("phase") == "Running" and (attempts := self._attempts(node)):
            return any(attempt.get("phase") != "Pending" for attempt in attempts)
        return node.get("phase") in _STEP_PHASES

    def _generated(self, node: Json) -> GeneratedTemplate | None:
        return self._state.generated.get(node.get("templateName", ""))

    def _template(self, node: Json) -> str:
        return template_name(node, self._state.templates)

    def _is_step(self, node: Json) -> bool:
        """Whether a node is a step: not an attempt of one, and not a retried template invocator."""
        if node.get("type") == "Retry":
            attempts = self._attempts(node)
            if not attempts:
                return self._template(node) in self._state.templates
            return not is_retry_attempt(node) and not any(
                attempt.get("type") in ("DAG", "Steps") for attempt in attempts
            )
        return node.get("type") in _STEP_NODE_TYPES and not is_retry_attempt(node)

    def _skipped(self, node: Json, generated: GeneratedTemplate | None) -> StepStatus:
        """A step that did not start: one that was skipped, or that failed before it could, as by a `when` without a value."""
        return StepStatus(
            path=self._path(node),
            phase=_STEP_PHASES.get(node.get("phase", ""), StepPhase.SKIPPED),
            template=generated.template if generated else self._template(node),
            node=node["id"],
            message=explained(node.get("message", "")),
            finished_at=parse_time(node.get("finishedAt")),
            outer_attempt=self._outer_attempt(node),
        )

    def _executed(self, node: Json) -> StepStatus:
        name = self._template(node)
        template = self._state.templates.get(name)
        phase, found = self._step_phase(node), Discovered()
        report = self._reader.report(node)
        if report is not None and phase is StepPhase.SUCCEEDED:
            found = read_report(report, steps_are_processes=self._steps_are_processes)
        return StepStatus(
            path=self._path(node),
            phase=phase,
            template=name,
            node=node["id"],
            message=explained(node.get("message", "")),
            inputs=replace(self._reader.inputs(node), discovered=found.code),
            uncacheable_reason=found.uncacheable_reason,
            outputs=self._reader.outputs(node, template.artifacts if template else None),
            started_at=parse_time(node.get("startedAt")),
            finished_at=parse_time(node.get("finishedAt")),
            attempts=len(node.get("children") or ()) if node["type"] == "Retry" else 1,
            pod=self._pod(node),
            host=self._host(node),
            component=node.get(COMPONENT, ""),
            outer_attempt=self._outer_attempt(node),
            unserved_reason=self._unserved.get(self._path(node), ""),
        )

    @cached_property
    def _unserved(self) -> dict[str, str]:
        """By path, why a step runs although the cache has outputs of its key: of those known at submission, and of gates."""
        found = dict(self._state.unserved)
        for node_id, answer in self._answers.items():
            verdict, gate = answer.verdict, self._nodes.get(node_id)
            if gate is not None and verdict.verdict is Verdict.MISS and verdict.producer_run:
                found[self._path(gate)] = verdict.reason
        return found

    def _pod(self, node: Json) -> str:
        """The node of the pod whose outputs a step has: of its last attempt."""
        attempts = self._attempts(node)
        last = attempts[-1] if attempts else node
        return str(last["id"]) if last.get("type") == "Pod" else ""

    def _step_phase(self, node: Json) -> StepPhase:
        """The phase of a node. Argo ends a pod's node before it has the outputs; until then the step has not finished."""
        lacks_outputs = node.get("taskResultSynced") is False and not self.phase.is_final
        return StepPhase.RUNNING if lacks_outputs else _STEP_PHASES[node["phase"]]

    def _host(self, node: Json) -> str:
        """The machine that the step's pod ran on, or its last attempt's."""
        attempts = self._attempts(node)
        return str((attempts[-1] if attempts else node).get("hostNodeName") or "")

    def _cached(self, node: Json, role: TemplateRole) -> Iterator[StepStatus]:
        """The hits that a generated node stands for: those known at submission, or those that its gate was answered with."""
        path = self._path(node)
        if role in (TemplateRole.HIT, TemplateRole.PARTIAL_FAN_OUT) and node.get("type") == "DAG":
            verdict = self._state.resolved.get(plan_path(path))
            if verdict is not None and verdict.items:
                yield from self._cached_items(node, path, verdict)
            elif verdict is not None and node.get("phase") == "Succeeded":
                yield self._hit(node, path, verdict)
        elif role in (TemplateRole.STRETCHED, TemplateRole.FAN_OUT):
            answer = self._member_answer(node)
            if answer is not None and role is TemplateRole.FAN_OUT:
                yield from self._cached_items(node, path, answer.verdict)
            elif answer is not None and node.get("phase") == "Succeeded":
                yield self._hit(node, path, answer.verdict)
        elif role in _GATE_ROLES and node.get("phase") == "Succeeded":
            outputs = self._supplied_outputs(node)
            answer = self._answers.get(node["id"])
            if answer is None:
                return
            if role is TemplateRole.GATE and outputs.get(IS_HIT) == "true":
                yield self._hit(node, path, answer.verdict)
            elif role is TemplateRole.FAN_OUT_GATE and outputs.get(REMAINING_ITEMS):
                yield from self._cached_items(node, path, answer.verdict)

    def _member_answer(self, node: Json) -> GateAnswer | None:
        """The answer that a member of a stretch got and that serves it, or items of it; None if there is none."""
        given = _parameters(node)
        verdict = given.get(VERDICT)
        if node.get("type") != "DAG" or verdict in (None, ASK):
            return None
        if verdict != SERVED and not given.get(REMAINING_ITEMS):
            return None
        task = _task_name(node)
        for gate in self._stretch_gates.get(node.get("boundaryID", ""), ()):
            answer = self._answers.get(gate["id"])
            served = answer.members.get(task) if answer is not None else None
            if served is not None and not served.is_asked:
                return served
        return None

    def _rest(self, gate: Json) -> Rest | None:
        """The rest of the stretch that the open gate of a member belongs to; None for another gate."""
        member = self._member_of(gate)
        if member is None:
            return None
        boundary, task = member.get("boundaryID", ""), _task_name(member)
        for node in self._stretch_gates.get(boundary, ()):
            members = self._state.stretches.get(node["templateName"]) or {}
            answer = self._answers.get(node["id"])
            if task not in members or answer is None:
                continue
            reached = {_task_name(n): n for n in self._nodes.values() if n.get("boundaryID", "") == boundary}
            ended = {name: n for name, n in reached.items() if n.get("phase") == "Succeeded"}
            return Rest(
                task,
                {
                    name: members[name]
                    for name, served in answer.members.items()
                    if served.is_asked and name not in reached
                },
                {name: self._reader.outputs(n, None) for name, n in ended.items() if name in members},
                _parameters(node),
                self._sources(node),
            )
        return None

    def _member_of(self, gate: Json) -> Json | None:
        """The call of a member of a stretch whose own gate a node is."""
        node = self._nodes.get(gate.get("boundaryID", ""))
        while node is not None and (generated := self._generated(node)) is not None:
            if generated.role is not TemplateRole.GATED:
                return node if VERDICT in _parameters(node) else None
            node = self._nodes.get(node.get("boundaryID", ""))
        return None

    @cached_property
    def _stretch_gates(self) -> dict[str, list[Json]]:
        """The gates of stretches and those of their members, by the id of the stretch's boundary."""
        found: dict[str, list[Json]] = {}
        for node in self._nodes.values():
            generated = self._generated(node)
            if generated is None or generated.role not in _GATE_ROLES or node.get("type") != "Suspend":
                continue
            member = node if generated.role is TemplateRole.STRETCH_GATE else self._member_of(node)
            if member is not None:
                found.setdefault(member.get("boundaryID", ""), []).append(node)
        return found

    def _sources(self, node: Json) -> dict[str, ArtifactSource]:
        return {a["name"]: self._reader.source(a) for a in field_list(node, "inputs", "artifacts")}

    def _cached_items(self, node: Json, path: str, verdict: StepVerdict) -> Iterator[StepStatus]:
        for index, item in enumerate(verdict.items):
            if item.verdict is Verdict.HIT:
                yield self._hit(node, f"{path}({index})", item)

    def _hit(self, node: Json, path: str, verdict: StepVerdict) -> StepStatus:
        at = parse_time(node.get("finishedAt")) or parse_time(node.get("startedAt"))
        return StepStatus(
            path=path,
            phase=StepPhase.CACHED,
            template=self._state.generated[node["templateName"]].template,
            node=node["id"],
            outputs=verdict.outputs or Outputs(),
            started_at=at,
            finished_at=at,
            verdict=verdict,
            outer_attempt=self._outer_attempt(node),
        )

    def _outer_attempt(self, node: Json) -> int:
        """How many attempts of the DAGs and steps templates around a step came before the one that a node of it belongs to."""
        attempts = self._attempts_around(node)
        return sorted(self._attempts_of_path[self._path(node)]).index(attempts) if any(attempts) else 0

    @cached_property
    def _attempts_of_path(self) -> dict[str, set[tuple[int, ...]]]:
        found: dict[str, set[tuple[int, ...]]] = {}
        for node in self._nodes.values():
            found.setdefault(self._path(node), set()).add(self._attempts_around(node))
        return found

    def _attempts_around(self, node: Json) -> tuple[int, ...]:
        """The numbers of the attempts that a node is inside of, outermost first."""
        boundary = self._nodes.get(node.get("boundaryID", ""))
        if boundary is None:
            return ()
        outer = self._attempts_around(boundary)
        suffix = _ATTEMPT_SUFFIX.search(boundary["displayName"]) if is_retry_attempt(boundary) else None
        return (*outer, int(suffix[1])) if suffix else outer

    def _is_inside_wrapper(self, node: Json) -> bool:
        boundary = self._nodes.get(node.get("boundaryID", ""))
        generated = self._generated(boundary) if boundary else None
        return generated is not None and generated.role is not TemplateRole.COPY

    def _path(self, node: Json) -> str:
        """The step's path: the names of the calls that lead to it, without those that the rewrite added."""
        node_id = node["id"]
        if node_id not in self._paths:
            self._paths[node_id] = self._compute_path(node)
        return self._paths[node_id]

    def _compute_path(self, node: Json) -> str:
        boundary = self._nodes.get(node.get("boundaryID", ""))
        if boundary is None:
            return "" if node.get("type") in ("DAG", "Steps") else self._template(node).rpartition("/")[2]
        outer = self._path(boundary)
        name = node["displayName"]
        if is_retry_attempt(node):
            name = _ATTEMPT_SUFFIX.sub("", name)
        item = ITEM_NAME.match(name)
        generated = self._generated(boundary)
        if generated is None or generated.role is TemplateRole.COPY:
            segment = f"{item[1]}({item[2]})" if item else name
            return f"{outer}.{segment}" if outer else segment
        if generated.role in (TemplateRole.FAN_OUT, TemplateRole.PARTIAL_FAN_OUT) and item:
            remaining = self._remaining_items(boundary, outer)
            index = int(item[2])
            return f"{outer}({remaining[index] if index < len(remaining) else index})"
        return outer

    def _remaining_items(self, wrapper: Json, path: str) -> tuple[int, ...]:
        """The indices of the items that a fan-out's loop runs; empty if it runs all."""
        fan_out = self._state.fan_outs.get(plan_path(path))
        if fan_out is not None and fan_out.remaining is not None:
            return fan_out.remaining
        if (served := self._member_answer(wrapper)) is not None:
            return served.remaining
        for node_id, answer in self._answers.items():
            gate = self._nodes.get(node_id)
            if gate and gate.get("boundaryID") == wrapper["id"]:
                return answer.remaining if self._supplied_outputs(gate).get(REMAINING_ITEMS) else ()
        return ()

    def _supplied_outputs(self, gate: Json) -> dict[str, str | None]:
        """The output parameters of a gate: empty texts if it ended by its timeout, absent if a person resumed it."""
        return {p["name"]: p.get("value") for p in field_list(gate, "outputs", "parameters")}


def _parameters(node: Json) -> dict[str, str]:
    return {p["name"]: p.get("value", "") for p in field_list(node, "inputs", "parameters")}


def _task_name(node: Json) -> str:
    """The name of the call of a node that is no item."""
    name: str = node["displayName"]
    return _ATTEMPT_SUFFIX.sub("", name) if is_retry_attempt(node) else name
