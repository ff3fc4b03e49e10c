"""How two runs differ: causes before effects, and only what differs."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice

from periplus_lineage.domain.graph import object_name
from periplus_lineage.domain.run import (
    Artifact,
    Inputs,
    Outputs,
    Parameter,
    Recorded,
    Snapshot,
    Step,
    StepPhase,
)

_LONG = 1_000  # characters of a value that are told
_MANY = 10_000  # changes that are told
CODE = "periplus-code"
"""The archive that brings the code of SDK steps: what differs in it is told by the template's `code`."""
_DEEP = 50  # levels of a template's document


@dataclass(frozen=True)
class Difference:
    """One field that differs. `step` is empty for the run as a whole; None stands for what is not there."""

    step: str
    field: str
    old: str | None
    new: str | None


@dataclass(frozen=True)
class Side:
    """One of the two runs, with what its steps did by path, and its snapshot if it is known."""

    recorded: Recorded
    documents: Mapping[str, str]
    snapshot: Snapshot | None

    @property
    def steps(self) -> dict[str, Step]:
        """Its steps by path, in order."""
        return {step.path: step for step in self.recorded.steps}


Fields = Mapping[str, str]


def differences(old: Side, new: Side) -> list[Difference]:
    """What differs: what the runs were given, then their steps in order, then how they ended."""
    olds, news = old.steps, new.steps
    found = chain(
        _compared("", _given(old), _given(new)),
        *(_step(path, olds.get(path), news.get(path), old, new) for path in _merged(list(olds), list(news))),
        _compared("", _ended(old), _ended(new)),
    )
    told = list(islice(found, _MANY))
    left = sum(1 for _ in found)
    return [*told, Difference("", "…", None, f"{left} more differences")] if left else told


def _merged(old: Sequence[str], new: Sequence[str]) -> list[str]:
    """The paths of both runs in the newer's order; one that only the older has comes after its predecessor there."""
    known = set(new)
    behind: dict[str, list[str]] = {}
    last = ""
    for path in old:
        if path in known:
            last = path
        else:
            behind.setdefault(last, []).append(path)
    return [*behind.get("", []), *chain.from_iterable((path, *behind.get(path, [])) for path in new)]


def _step(path: str, a: Step | None, b: Step | None, old: Side, new: Side) -> Iterator[Difference]:
    if a is None or b is None:
        yield Difference(path, "step", a.template if a else None, b.template if b else None)
        return
    yield from _compared(path, {"template": a.template}, {"template": b.template})
    before, after = old.documents.get(path), new.documents.get(path)
    if before is not None and after is not None and before != after:
        yield from _compared(path, _members(before), _members(after))
    yield from _compared(path, _puts("inputs", a.inputs), _puts("inputs", b.inputs))
    yield from _compared(path, {"phase": _outcome(a)}, {"phase": _outcome(b)})
    yield from _compared(path, _results(a.outputs), _results(b.outputs))


def _outcome(step: Step) -> str:
    """The phase, as far as it is an outcome: whether a good end was run for or remembered is not one."""
    return StepPhase.SUCCEEDED.name if step.phase is StepPhase.CACHED else step.phase.name


def _given(side: Side) -> Fields:
    run, snapshot = side.recorded.run, side.snapshot
    fields = {"pipeline": run.pipeline}
    fields |= _named("parameters", run.parameters)
    if run.snapshot:
        fields["snapshot"] = run.snapshot
    if snapshot:
        fields["snapshot.commit"] = snapshot.commit
        fields["snapshot.dirty"] = str(snapshot.dirty).lower()
        fields["snapshot.environment"] = snapshot.environment
    return fields


def _ended(side: Side) -> Fields:
    run = side.recorded.run
    return {"phase": run.phase.name, **(_results(run.outputs) if run.outputs else {})}


def _puts(kind: str, given: Inputs | Outputs) -> dict[str, str]:
    artifacts = {f"{kind}.{a.name}": _contents(a) for a in given.artifacts if a.name != CODE}
    return _named(kind, given.parameters) | artifacts


def _results(outputs: Outputs) -> dict[str, str]:
    fields = _puts("outputs", outputs)
    if outputs.result is not None:
        fields["outputs.result"] = outputs.result
    if outputs.exit_code is not None:
        fields["exit_code"] = str(outputs.exit_code)
    return fields


def _named(kind: str, parameters: Iterable[Parameter]) -> dict[str, str]:
    return {f"{kind}.{p.name}": p.value for p in parameters}


def _contents(artifact: Artifact) -> str:
    """What an artifact is compared by. Two that nobody has read can not be told to be equal, and are not."""
    place = object_name(artifact.endpoint, artifact.bucket, artifact.key)
    return artifact.digest or f"{place}, not read yet"


def _members(document: str) -> dict[str, str]:
    """The members of a template's document by path, "code.features.py" or "container.args[1]"."""
    fields: dict[str, str] = {}

    def enter(path: str, value: object, depth: int) -> None:
        if isinstance(value, dict) and value and depth < _DEEP:
            for name, member in value.items():
                enter(f"{path}.{name}" if path else name, member, depth + 1)
        elif isinstance(value, list) and value and depth < _DEEP:
            for place, member in enumerate(value):
                enter(f"{path}[{place}]", member, depth + 1)
        else:
            fields[path] = value if isinstance(value, str) else json.dumps(value, sort_keys=True)

    try:
        enter("", json.loads(document), 0)
    except (ValueError, RecursionError):
        return {"template.document": document}
    # What a template declares is not what a step was given, and tells less than what it does.
    declared = {f"template.{k}": v for k, v in fields.items() if k.startswith(("inputs", "outputs"))}
    return {k: v for k, v in fields.items() if f"template.{k}" not in declared} | declared


def _compared(step: str, old: Fields, new: Fields) -> Iterator[Difference]:
    for field in dict.fromkeys((*old, *new)):
        before, after = old.get(field), new.get(field)
        if before != after:
            yield Difference(step, field, _shortened(before), _shortened(after))


def _shortened(value: str | None) -> str | None:
    """A value that people can read; its digest keeps apart what differs only further on."""
    if value is None or len(value) <= _LONG:
        return value
    digest = hashlib.sha256(value.encode()).hexdigest()
    return f"{value[:_LONG]}… ({len(value)} characters, sha256:{digest[:12]})"
