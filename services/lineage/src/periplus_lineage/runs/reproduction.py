"""Compares the outputs of a run with those of the run that it reproduces."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

from periplus_common.errors import Refused
from periplus_lineage.runs.diff import shorten
from periplus_lineage.runs.model import RunWithSteps, Step
from periplus_model.steps import StepPhase

MAX_COMPARISONS = 10_000
_NOT_RUN = (StepPhase.PENDING, StepPhase.SKIPPED)


class Grade(IntEnum):
    """How outputs compare (`Grade`)."""

    IDENTICAL = 1
    DIFFERENT = 2
    NOT_COMPARABLE = 3


@dataclass(frozen=True)
class Comparison:
    """An output of a step in both runs; None where a run has none. `is_pending`: its digest in the reproduction may yet arrive."""

    step: str
    output: str
    grade: Grade
    original: str | None = None
    reproduced: str | None = None
    reason: str = ""
    is_pending: bool = False


@dataclass(frozen=True)
class GradedReproduction:
    """The comparison of all outputs, those that are not identical first."""

    original: str
    comparisons: tuple[Comparison, ...]

    def count(self, grade: Grade) -> int:
        """How many outputs have this grade."""
        return sum(1 for each in self.comparisons if each.grade is grade)

    @property
    def grade(self) -> Grade:
        """The grade of the whole: without an output that could be compared, it can not be determined."""
        grades = {each.grade for each in self.comparisons}
        if Grade.DIFFERENT in grades:
            return Grade.DIFFERENT
        compared = any(each.output != "phase" for each in self.comparisons)
        return Grade.IDENTICAL if compared and grades == {Grade.IDENTICAL} else Grade.NOT_COMPARABLE

    @property
    def is_pending(self) -> bool:
        """Whether the grade may yet change."""
        return any(each.is_pending for each in self.comparisons)


def grade(original: RunWithSteps, reproduction: RunWithSteps) -> GradedReproduction:
    """Compare two runs that have finished. Raises `Refused` if the reproduction has not."""
    if not reproduction.run.phase.is_final:
        raise Refused(
            f"the run is {reproduction.run.phase.name.lower()}, and is compared once it has finished",
            reason="RUN_NOT_FINISHED",
            fix=f"periplus watch {reproduction.run.id}",
        )
    only = reproduction.run.reproduced_step
    originals = [step for step in original.steps if only in ("", step.path)]
    found = list(_comparisons(originals, _renamed(reproduction)))
    found.sort(key=lambda each: each.grade is Grade.IDENTICAL)
    return GradedReproduction(original.run.id, tuple(found))


def _renamed(reproduction: RunWithSteps) -> dict[str, Step]:
    """The steps of the reproduction by their paths in the run that it reproduces: one step alone has another path there."""
    only = reproduction.run.reproduced_step
    if only:
        steps = [replace(step, path=only) for step in reproduction.steps[:1]]
        return {step.path: step for step in steps}
    return {step.path: step for step in reproduction.steps}


def _comparisons(originals: Sequence[Step], reproduced: dict[str, Step]) -> Iterator[Comparison]:
    for step in originals:
        if step.path in reproduced:
            yield from _of_step(step, reproduced[step.path])
        else:
            yield _phase(step.path, step, None)
    for path in reproduced.keys() - {step.path for step in originals}:
        yield _phase(path, None, reproduced[path])


def _of_step(old: Step, new: Step) -> Iterator[Comparison]:
    phase = _phase(old.path, old, new)
    yield phase
    if phase.grade is Grade.DIFFERENT or old.phase in _NOT_RUN:
        return
    yield from _texts(old, new)
    old_artifacts = {each.name: each for each in old.outputs.artifacts}
    new_artifacts = {each.name: each for each in new.outputs.artifacts}
    for name in dict.fromkeys((*old_artifacts, *new_artifacts)):
        before, after = old_artifacts.get(name), new_artifacts.get(name)
        output = f"outputs.{name}"
        if before is None or after is None:
            old_digest, new_digest = (each.digest or "?" if each else None for each in (before, after))
            yield Comparison(old.path, output, Grade.DIFFERENT, old_digest, new_digest)
            continue
        if before.digest and after.digest:
            same = before.digest == after.digest
            how = Grade.IDENTICAL if same else Grade.DIFFERENT
            yield Comparison(old.path, output, how, before.digest, after.digest)
            continue
        which = "the reproduced run" if not before.digest else "the reproduction"
        yield Comparison(
            old.path,
            output,
            Grade.NOT_COMPARABLE,
            before.digest or None,
            after.digest or None,
            f"the digest of the artifact in {which} is not known: it was not read, or was overwritten before it was",
            is_pending=not after.digest,
        )


def _texts(old: Step, new: Step) -> Iterator[Comparison]:
    """Parameters, the result and the exit code. What an entry of the cache has not is not held against it."""
    before: dict[str, str] = {f"outputs.{name}": value for name, value in old.outputs.parameters.items()}
    after = {f"outputs.{name}": value for name, value in new.outputs.parameters.items()}
    for field, one, other in (
        ("outputs.result", old.outputs.result, new.outputs.result),
        ("exit_code", old.outputs.exit_code, new.outputs.exit_code),
    ):
        is_left_out = one is None and old.phase is StepPhase.CACHED
        if one is not None:
            before[field] = str(one)
        if other is not None and not is_left_out:
            after[field] = str(other)
    for field in dict.fromkeys((*before, *after)):
        first, second = before.get(field), after.get(field)
        how = Grade.IDENTICAL if first == second else Grade.DIFFERENT
        yield Comparison(old.path, field, how, shorten(first), shorten(second))


def _phase(path: str, old: Step | None, new: Step | None) -> Comparison:
    before, after = _outcome(old), _outcome(new)
    how = Grade.IDENTICAL if before == after else Grade.DIFFERENT
    return Comparison(path, "phase", how, before, after)


def _outcome(step: Step | None) -> str | None:
    """The phase; that of a step that was served from the cache is that of its producer."""
    if step is None:
        return None
    return (StepPhase.SUCCEEDED if step.phase is StepPhase.CACHED else step.phase).name
