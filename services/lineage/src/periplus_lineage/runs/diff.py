"""The differences of two runs, causes before effects."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice

from periplus_lineage.objects import object_uri
from periplus_lineage.runs.model import RunWithSteps, SnapshotSummary, Step
from periplus_model.steps import Artifact, Inputs, Outputs, StepPhase

MAX_VALUE_CHARACTERS = 1_000
MAX_DIFFERENCES = 10_000
MAX_DOCUMENT_DEPTH = 50
CODE_ARTIFACT = "periplus-code"
"""The input with the code of SDK steps. It is not compared: the template's `code` says which module differs."""


@dataclass(frozen=True)
class Difference:
    """One field that differs. `step` is empty for the run as a whole; a value is None if that run has none."""

    step: str
    field: str
    old: str | None
    new: str | None


@dataclass(frozen=True)
class ComparedRun:
    """One of the two runs, the documents of its steps' templates by path, and its snapshot if that is known."""

    recorded: RunWithSteps
    documents: Mapping[str, str]
    snapshot: SnapshotSummary | None

    @property
    def steps(self) -> dict[str, Step]:
        """Its steps by path, in order."""
        return {step.path: step for step in self.recorded.steps}


Fields = Mapping[str, str]


def differences(old: ComparedRun, new: ComparedRun) -> list[Difference]:
    """What differs: the runs' parameters and snapshots, then their steps in order, then the runs' outcomes."""
    old_steps, new_steps = old.steps, new.steps
    every = chain(
        _compare("", _run_inputs(old), _run_inputs(new)),
        *(
            _compare_steps(path, old_steps.get(path), new_steps.get(path), old, new)
            for path in _merge_paths(list(old_steps), list(new_steps))
        ),
        _compare("", _run_outcome(old), _run_outcome(new)),
    )
    listed = list(islice(every, MAX_DIFFERENCES))
    omitted = sum(1 for _ in every)
    return [*listed, Difference("", "…", None, f"{omitted} more differences")] if omitted else listed


def _merge_paths(old: Sequence[str], new: Sequence[str]) -> list[str]:
    """The paths of both runs in the newer one's order; one that only the older run has follows its predecessor there."""
    in_new = set(new)
    only_old: dict[str, list[str]] = {}
    predecessor = ""
    for path in old:
        if path in in_new:
            predecessor = path
        else:
            only_old.setdefault(predecessor, []).append(path)
    return [*only_old.get("", []), *chain.from_iterable((path, *only_old.get(path, [])) for path in new)]


def _compare_steps(
    path: str, old_step: Step | None, new_step: Step | None, old: ComparedRun, new: ComparedRun
) -> Iterator[Difference]:
    if old_step is None or new_step is None:
        old_template = old_step.template if old_step else None
        yield Difference(path, "step", old_template, new_step.template if new_step else None)
        return
    yield from _compare(path, {"template": old_step.template}, {"template": new_step.template})
    old_document, new_document = old.documents.get(path), new.documents.get(path)
    if old_document is not None and new_document is not None and old_document != new_document:
        yield from _compare(path, _document_fields(old_document), _document_fields(new_document))
    yield from _compare(path, _fields("inputs", old_step.inputs), _fields("inputs", new_step.inputs))
    yield from _compare(path, {"phase": _outcome(old_step)}, {"phase": _outcome(new_step)})
    yield from _compare(path, _output_fields(old_step.outputs), _output_fields(new_step.outputs))


def _outcome(step: Step) -> str:
    """The phase. A step that was served from the cache does not differ from one that ran and succeeded."""
    return StepPhase.SUCCEEDED.name if step.phase is StepPhase.CACHED else step.phase.name


def _run_inputs(side: ComparedRun) -> Fields:
    run, snapshot = side.recorded.run, side.snapshot
    fields = {"pipeline": run.pipeline, **_prefixed("parameters", run.parameters)}
    if run.snapshot:
        fields["snapshot"] = run.snapshot
    if snapshot:
        fields["snapshot.commit"] = snapshot.commit
        fields["snapshot.dirty"] = str(snapshot.dirty).lower()
        fields["snapshot.environment"] = snapshot.environment
    return fields


def _run_outcome(side: ComparedRun) -> Fields:
    run = side.recorded.run
    return {"phase": run.phase.name, **(_output_fields(run.outputs) if run.outputs else {})}


def _fields(kind: str, values: Inputs | Outputs) -> dict[str, str]:
    artifacts = {f"{kind}.{a.name}": _content(a) for a in values.artifacts if a.name != CODE_ARTIFACT}
    return _prefixed(kind, values.parameters) | artifacts


def _output_fields(outputs: Outputs) -> dict[str, str]:
    fields = _fields("outputs", outputs)
    if outputs.result is not None:
        fields["outputs.result"] = outputs.result
    if outputs.exit_code is not None:
        fields["exit_code"] = str(outputs.exit_code)
    return fields


def _prefixed(kind: str, values: Mapping[str, str]) -> dict[str, str]:
    return {f"{kind}.{name}": value for name, value in values.items()}


def _content(artifact: Artifact) -> str:
    """The digest. An artifact without one is compared by its object, so two unread artifacts always differ."""
    return artifact.digest or f"{object_uri(artifact.object)}, not read yet"


def _document_fields(document: str) -> dict[str, str]:
    """The leaves of a template's document by path, "code.features.py" or "container.args[1]"."""
    fields: dict[str, str] = {}

    def collect(path: str, value: object, depth: int) -> None:
        if isinstance(value, dict) and value and depth < MAX_DOCUMENT_DEPTH:
            for name, member in value.items():
                collect(f"{path}.{name}" if path else name, member, depth + 1)
        elif isinstance(value, list) and value and depth < MAX_DOCUMENT_DEPTH:
            for index, member in enumerate(value):
                collect(f"{path}[{index}]", member, depth + 1)
        else:
            fields[path] = value if isinstance(value, str) else json.dumps(value, sort_keys=True)

    try:
        collect("", json.loads(document), 0)
    except (ValueError, RecursionError):
        return {"template.document": document}
    # Declarations come last, and prefixed: "inputs.c" is the value of an input, "template.inputs…" its declaration.
    declarations = {f"template.{k}": v for k, v in fields.items() if k.startswith(("inputs", "outputs"))}
    return {k: v for k, v in fields.items() if f"template.{k}" not in declarations} | declarations


def _compare(step: str, old: Fields, new: Fields) -> Iterator[Difference]:
    for field in dict.fromkeys((*old, *new)):
        old_value, new_value = old.get(field), new.get(field)
        if old_value != new_value:
            yield Difference(step, field, shorten(old_value), shorten(new_value))


def shorten(value: str | None) -> str | None:
    """The start of a long value, with a digest, as two values may differ only after it."""
    if value is None or len(value) <= MAX_VALUE_CHARACTERS:
        return value
    digest = hashlib.sha256(value.encode()).hexdigest()
    return f"{value[:MAX_VALUE_CHARACTERS]}… ({len(value)} characters, sha256:{digest[:12]})"
