"""Two runs compared."""

from collections.abc import Iterable, Sequence

from periplus_lineage.domain.diff import Difference, Side, differences
from periplus_lineage.domain.graph import StepKey
from periplus_lineage.domain.run import Recorded, Step
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
        before, after = await self._recorded(project, old, "old"), await self._recorded(project, new, "new")
        steps = (*before.steps, *after.steps)
        named = await self._named(project, steps)
        documents = await self._templates.documents(project, set(named.values()))
        snapshots = await self._templates.snapshots(project, {before.run.snapshot, after.run.snapshot})

        def side(recorded: Recorded) -> Side:
            keys = {s.path: named.get(StepKey(s.run, s.path)) for s in recorded.steps}
            known = {path: documents[key] for path, key in keys.items() if key and key in documents}
            return Side(recorded, known, snapshots.get(recorded.run.snapshot))

        return differences(side(before), side(after))

    async def _recorded(self, project: str, run: str, field: str) -> Recorded:
        found = await self._runs.get(project, run)
        if found is None:
            raise unknown(run, field)
        return found

    async def _named(self, project: str, steps: Iterable[Step]) -> dict[StepKey, str]:
        """The digest of what each step did; a cached one did what the step did that made its outputs."""
        own = {StepKey(s.run, s.path): s.document for s in steps}
        origins = {StepKey(s.run, s.path): StepKey(s.from_run, s.from_step) for s in steps if s.from_run}
        made = {
            StepKey(s.run, s.path): s.document
            for s in await self._steps.steps(project, set(origins.values()))
        }
        named = own | {key: made[origin] for key, origin in origins.items() if origin in made}
        return {key: digest for key, digest in named.items() if digest}
