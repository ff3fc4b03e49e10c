"""The answers to open gates: the cache is asked once for all that are open, and the answers are stored before they are sent."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from periplus_common import telemetry
from periplus_common.errors import Invalid, Unavailable
from periplus_dispatcher.domain import Delay, GateAnswer, Run, StretchMember, TemplateRole, plan_path
from periplus_dispatcher.follow import stretch_gates
from periplus_dispatcher.follow.config import with_current_config
from periplus_dispatcher.follow.followed import FollowedRun
from periplus_dispatcher.follow.gates import gate_answer, gate_query, without_cache
from periplus_dispatcher.follow.leases import LeaseKeeper
from periplus_dispatcher.follow.observe import Gate
from periplus_dispatcher.manifest.discovered import read_index
from periplus_dispatcher.ports import Argo, Cache, ConfigObjects, Runs
from periplus_model.queries import StepQuery, StepVerdict
from periplus_model.steps import Verdict

log = logging.getLogger(__name__)

_gates_opened = telemetry.counter(
    "periplus.gates.opened",
    unit="{gate}",
    description="Steps whose gate this process found open and without an answer.",
)
_gates_answered = telemetry.counter(
    "periplus.gates.answered",
    unit="{gate}",
    description="Steps whose gate was answered, by the verdict of the cache.",
    attributes=("periplus.verdict",),
)


class GateAnswering:
    """Answers the gates of runs. `workflow_of` is where the Workflow of a run is, and its name."""

    def __init__(
        self,
        runs: Runs,
        cache: Cache,
        config: ConfigObjects | None,
        keeper: LeaseKeeper | None,
        workflow_of: Callable[[Run], tuple[Argo, str]],
    ) -> None:
        self._runs, self._cache, self._config, self._keeper = runs, cache, config, keeper
        self._workflow_of = workflow_of

    async def answer(
        self, followed: FollowedRun, gates: Sequence[Gate], stored: Mapping[str, GateAnswer]
    ) -> dict[str, GateAnswer]:
        """Answer gates that are open at the same time with one call of the cache, but for those that wait for another run.

        Answers are stored before they are sent. Gives all that are stored.
        """
        run = followed.run
        answers = dict(stored)
        if new := [gate for gate in gates if gate.node not in stored]:
            _gates_opened.add(sum(len(_members(run, gate)) or 1 for gate in new))
            resolved = await self._resolve(followed, new)
            await self._runs.add_answers(run.id, resolved)
            answers |= resolved
            answers |= await self._runs.get_answers(
                run.id
            )  # another replica may have stored its answer first
        gates = [gate for gate in gates if gate.node in answers]
        sent = {gate.node: answers[gate.node] for gate in gates}
        if not sent:
            return answers
        argo, name = self._workflow_of(run)
        ended = await argo.answer_gates(name, sent)
        for gate in gates:
            followed.answered.add(gate.node)
            if gate.node in ended:
                log.info("%s: the gate of %s was not open any more", run.id, gate.path)
                continue
            answer = sent[gate.node]
            for each in answer.members.values() if _members(run, gate) else (answer,):
                _gates_answered.add(1, {"periplus.verdict": each.verdict.verdict.label})
        return answers

    async def _resolve(self, followed: FollowedRun, gates: Sequence[Gate]) -> dict[str, GateAnswer]:
        """The answers to gates, by node id, but for those whose step another run makes: they wait.

        If the cache can not be reached, every step behind them runs.
        """
        run, wakes = followed.run, followed.leases.wakes
        try:
            queries = [query for gate in gates for query in _queries(run, gate)]
            asked = {query.template: run.state.templates[query.template] for query in queries}
            templates = await with_current_config(run, asked, self._config)
            index = read_index(json.loads(run.manifest)) if run.manifest else {}
            verdicts = await self._cache.resolve(
                run.project, run.id, run.cache_mode, templates, queries, index
            )
        except (Unavailable, Invalid) as error:
            log.warning("%s: its gates are answered without the cache: %s", run.id, error)
            verdicts = {}
        waiting = {gate.node: delay for gate in gates if (delay := _wait(run, gate, verdicts)) is not None}
        if waiting and self._keeper is not None and followed.leases.wakes == wakes:
            followed.leases.waiting |= waiting
            self._keeper.changed()
        return {gate.node: _answer(run, gate, verdicts) for gate in gates if gate.node not in waiting}


def _wait(run: Run, gate: Gate, verdicts: Mapping[str, StepVerdict]) -> Delay | None:
    """What the step of a gate waits for; None if it is answered. The members of a stretch wait at gates of their own."""
    verdict = verdicts.get(gate.node)
    if _members(run, gate) or verdict is None or verdict.verdict is not Verdict.PENDING:
        return None
    return Delay(gate.path, run.state.templates[gate.template].step.name, gate.node, verdict.reason)


def _members(run: Run, gate: Gate) -> Mapping[str, StretchMember]:
    """The members of a gate's stretch; empty for the gate of a single step."""
    return run.state.stretches[gate.template] if gate.role is TemplateRole.STRETCH_GATE else {}


def _queries(run: Run, gate: Gate) -> list[StepQuery]:
    members = _members(run, gate)
    if members:
        found = stretch_gates.queries(gate, members)
    else:
        found = [gate_query(run, gate), *stretch_gates.rest_queries(gate)]
    planned = run.state.planned
    return [replace(q, planned_fingerprint=planned.get(plan_path(q.path), "")) for q in found]


def _answer(run: Run, gate: Gate, verdicts: Mapping[str, StepVerdict]) -> GateAnswer:
    """The answer to a gate from the verdicts of its queries; without them, every step behind it runs."""
    if members := _members(run, gate):
        return stretch_gates.answer(gate, members, run.state.templates, verdicts)
    own = gate_answer(run, gate, verdicts.get(gate.node) or without_cache(gate.node))
    return stretch_gates.with_rest(gate, run.state.templates, verdicts, own)
