"""What lineage has of a run that has finished."""

from periplus_common.errors import Refused, Unavailable
from periplus_dispatcher.domain import RecordedRun, Run
from periplus_dispatcher.ports import Lineage


async def complete_record(lineage: Lineage | None, run: Run) -> RecordedRun:
    """A run that has finished as lineage has it, with all its steps. Raises `NotFound`, `Refused`, `Unavailable`."""
    if lineage is None:
        raise Refused(
            "the dispatcher does not know where lineage is, which has the inputs and outputs of runs",
            reason="LINEAGE_NOT_CONFIGURED",
            fix="set DISPATCHER_LINEAGE_ADDRESS",
        )
    record = await lineage.get_run(run.project, run.id)
    if not record.is_complete:
        raise Unavailable("lineage has not received all events of the run yet; repeat the request")
    return record
