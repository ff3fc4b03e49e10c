"""The stretches of a DAG: its gated calls that wait for the same running calls, directly or through each other.

When those have ended, the cache knows about all of the stretch at once, as far as its steps are hits: one gate is enough.
"""

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from periplus_dispatcher.domain import Json, StretchMember
from periplus_dispatcher.manifest.calls import dependencies, groups
from periplus_dispatcher.rewrite.plan import PlannedStep, StepAction
from periplus_dispatcher.rewrite.questions import GateInputs, NotAskableError, member_of
from periplus_manifest.depends import And, Depends, Outcome, Term
from periplus_model.steps import Verdict

MAX_GATE_CHARACTERS = 50_000
"""Of the inputs and outputs of a stretch's gate before they have values: the Workflow's status has 1 MiB for all nodes."""
MAX_BEFORE = 4
"""Members before one that may have asked for it: the arguments of its call name each."""
CHARACTERS_PER_PARAMETER = 60
"""What Argo writes beside the name of each."""

_GATED = (StepAction.GATE, StepAction.GATE_FAN_OUT)
_PLAIN_SUCCESS = (frozenset(("Succeeded", "Skipped", "Daemoned")), frozenset(("Succeeded",)))


@dataclass
class Stretch:
    """The members by the name of their task, each after those that it waits for; and what the gate waits for and gets.

    `before` are the members that one waits for itself.
    """

    key: frozenset[str]
    members: dict[str, StretchMember] = field(default_factory=dict)
    before: dict[str, list[str]] = field(default_factory=dict)
    waits_for: set[str] = field(default_factory=set)
    inputs: GateInputs = field(default_factory=GateInputs)
    output_characters: int = 0


def find(
    template: Json, steps: Mapping[str, PlannedStep], supplied: Callable[[Json, PlannedStep], list[str]]
) -> list[Stretch]:
    """The stretches of a DAG template, with more than one member each.

    `steps` are the planned steps by the names of their tasks, `supplied` gives the outputs that a gate has for one.
    """
    if "dag" not in template or any(task.get("continueOn") for task in template["dag"]["tasks"]):
        return []
    return _Search(template, steps, supplied).run()


@dataclass
class _Task:
    """What is known of a task besides its step.

    `sources` are the tasks that it waits for, where a hit that was known at submission stands for what it waits for
    itself. `implied` are those that did not fail if this task was reached, `known` those that have outputs then.
    """

    sources: set[str] = field(default_factory=set)
    implied: set[str] = field(default_factory=set)
    known: set[str] = field(default_factory=set)
    is_transparent: bool = False
    stretch: Stretch | None = None


class _Search:
    def __init__(
        self,
        template: Json,
        steps: Mapping[str, PlannedStep],
        supplied: Callable[[Json, PlannedStep], list[str]],
    ) -> None:
        self._template, self._steps, self._supplied = template, steps, supplied
        self._tasks: dict[str, _Task] = {}
        self._by_key: dict[frozenset[str], Stretch] = {}
        self._found: list[Stretch] = []

    def run(self) -> list[Stretch]:
        conditional = {task["name"] for task in self._template["dag"]["tasks"] if task.get("when")}
        waits = dependencies(self._template)
        for group in groups(self._template, waits, None):
            for task in group:
                self._add(task, waits.get(task["name"]), conditional)
        return [stretch for stretch in self._found if len(stretch.members) > 1]

    def _add(self, task: Json, waits: Depends | None, conditional: AbstractSet[str]) -> None:
        name, found = task["name"], _Task()
        self._tasks[name] = found
        step = self._steps.get(name)
        if waits is not None and not _is_plain(waits.term):
            return
        direct = waits.tasks if waits else set()
        for other in direct:
            before = self._tasks[other]
            found.sources |= before.sources if before.is_transparent else {other}
            found.implied |= {other} | before.implied
            found.known |= before.known | ({other} - conditional)
        if step is None:
            return
        is_over = step.action is StepAction.SERVE or step.verdict.verdict is Verdict.SKIPPED
        # Behind a member it is over only after the stretch's gate, which must not wait for it.
        found.is_transparent = is_over and all(self._tasks[s].stretch is None for s in found.sources)
        if step.action in _GATED:
            self._join(task, step, found, direct)

    def _join(self, task: Json, step: PlannedStep, found: _Task, direct: AbstractSet[str]) -> None:
        """Add a task to the stretch of what it waits for, or to one that waits for the same, or to a new one."""
        through = self._key(found.sources, is_through_members=True)
        own = self._key(found.sources, is_through_members=False)
        for key in dict.fromkeys((through, own)):
            stretch = self._by_key.get(key)
            if stretch is None:
                if key != own:
                    continue
                stretch = Stretch(key)
            if key != own and not (found.sources - key) <= stretch.members.keys() | self._implied(key):
                continue  # it waits for members of another stretch with the same key
            if self._is_added(stretch, task, step, found, direct):
                return

    def _key(self, sources: AbstractSet[str], *, is_through_members: bool) -> frozenset[str]:
        """What a task waits for, without what the others of it imply."""
        key: set[str] = set()
        for source in sources:
            stretch = self._tasks[source].stretch if is_through_members else None
            key |= stretch.key if stretch else {source}
        return frozenset(key - self._implied(key))

    def _implied(self, names: AbstractSet[str]) -> set[str]:
        return set().union(*(self._tasks[name].implied for name in names))

    def _is_added(
        self, stretch: Stretch, task: Json, step: PlannedStep, found: _Task, direct: AbstractSet[str]
    ) -> bool:
        names = self._supplied(task, step)
        outputs = stretch.output_characters + sum(
            len(task["name"]) + len(n) + CHARACTERS_PER_PARAMETER for n in names
        )
        inputs = GateInputs(
            dict(stretch.inputs.names), {k: list(v) for k, v in stretch.inputs.arguments.items()}
        )
        try:
            member = member_of(task, step.call, names, inputs, stretch.members.keys(), found.known)
        except NotAskableError:
            return False
        characters = outputs + sum(len(text) + CHARACTERS_PER_PARAMETER for text in inputs.names)
        if stretch.members and characters > MAX_GATE_CHARACTERS:
            del self._by_key[stretch.key]  # the next one with this key begins another stretch
            return False
        if not stretch.members:
            self._by_key[stretch.key] = stretch
            self._found.append(stretch)
        stretch.before[task["name"]] = [name for name in stretch.members if name in direct][-MAX_BEFORE:]
        stretch.members[task["name"]] = member
        stretch.inputs, stretch.output_characters = inputs, outputs
        stretch.waits_for |= direct - stretch.members.keys()
        found.stretch = stretch
        return True


def _is_plain(term: Term) -> bool:
    """Whether it holds if, and only if, each of its tasks succeeded or was skipped."""
    if isinstance(term, And):
        return all(map(_is_plain, term.terms))
    return isinstance(term, Outcome) and term.results in _PLAIN_SUCCESS
