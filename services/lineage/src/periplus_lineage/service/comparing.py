"""Two runs compared."""

from collections.abc import Sequence

from periplus_lineage.domain.diff import Difference, Side, differences
from periplus_lineage.domain.run import Recorded
from periplus_lineage.service.ports import Runs, Templates
from periplus_lineage.service.runs import unknown


class Comparisons:
    """Says how runs differ."""

    def __init__(self, runs: Runs, templates: Templates) -> None:
        self._runs = runs
        self._templates = templates

    async def diff(self, project: str, old: str, new: str) -> Sequence[Difference]:
        """What differs, causes before effects. Raises `NotFound`."""
        before = await self._found(project, old, "old")
        after = await self._found(project, new, "new")
        wanted = {step.document for step in (*before.steps, *after.steps)} - {""}
        documents = await self._templates.documents(project, wanted)
        snapshots = await self._templates.snapshots(project, {before.run.snapshot, after.run.snapshot})

        def side(recorded: Recorded) -> Side:
            known = {s.path: documents[s.document] for s in recorded.steps if s.document in documents}
            return Side(recorded, known, snapshots.get(recorded.run.snapshot))

        return differences(side(before), side(after))

    async def _found(self, project: str, run: str, field: str) -> Recorded:
        found = await self._runs.get(project, run)
        if found is None:
            raise unknown(run, field)
        return found
