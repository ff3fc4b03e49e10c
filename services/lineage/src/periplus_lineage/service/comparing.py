"""Two runs compared."""

from collections.abc import Sequence
from dataclasses import replace

from periplus_lineage.domain.diff import Difference, Side, differences
from periplus_lineage.domain.graph import StepKey
from periplus_lineage.domain.run import Inputs, Recorded, Step
from periplus_lineage.service.ports import Runs, Steps, Templates
from periplus_lineage.service.runs import unknown


class Comparisons:
    """Says how runs differ."""

    def __init__(self, runs: Runs, steps: Steps, templates: Templates) -> None:
        self._runs = runs
        self._steps = steps
        self._templates = templates

    async def diff(self, project: str, old: str, new: str) -> Sequence[Difference]:
        """What differs, causes before effects. Raises `NotFound`."""
        before = await self._completed(project, old, "old")
        after = await self._completed(project, new, "new")
        wanted = {step.document for step in (*before.steps, *after.steps)} - {""}
        documents = await self._templates.documents(project, wanted)
        snapshots = await self._templates.snapshots(project, {before.run.snapshot, after.run.snapshot})

        def side(recorded: Recorded) -> Side:
            known = {s.path: documents[s.document] for s in recorded.steps if s.document in documents}
            return Side(recorded, known, snapshots.get(recorded.run.snapshot))

        return differences(side(before), side(after))

    async def _completed(self, project: str, run: str, field: str) -> Recorded:
        """A run whose cached steps say what the steps did and were given that made their outputs.

        They have one key, so it is the same, and nobody says it again for a step that did not run.
        """
        found = await self._runs.get(project, run)
        if found is None:
            raise unknown(run, field)
        keys = {StepKey(step.from_run, step.from_step) for step in found.steps if step.from_run}
        origins = {StepKey(s.run, s.path): s for s in await self._steps.steps(project, keys)}

        def completed(step: Step) -> Step:
            origin = origins.get(StepKey(step.from_run, step.from_step))
            if origin is None:
                return step
            given = origin.inputs if step.inputs == Inputs() else step.inputs
            return replace(step, inputs=given, document=step.document or origin.document)

        return replace(found, steps=tuple(completed(step) for step in found.steps))
