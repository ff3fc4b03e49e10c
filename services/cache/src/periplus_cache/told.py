"""The events that the cache tells: entries that come, differ and go, and what artifacts hold."""

from datetime import datetime

from periplus.cache.v1 import events_pb2 as out
from periplus_cache import wire
from periplus_cache.entry import Entry
from periplus_cache.ports import Recording
from periplus_common import bus

_ARTIFACTS = 400  # in one event: names and keys are bounded, and so is a message of NATS


def recorded(entry: Entry) -> bus.CloudEvent:
    """Tells that an entry will be served."""
    maker = entry.maker
    message = out.EntryRecorded(
        project=entry.project,
        fingerprint=entry.fingerprint,
        producer_run=maker.run,
        producer_step=maker.step,
        recorded_at=wire.timestamp(maker.at),
    )
    return bus.cloud_event(message, project=entry.project, run=maker.run, key=_name(entry), at=maker.at)


def diverged(came: Entry, differing: tuple[str, ...]) -> bus.CloudEvent:
    """Tells that a step gave other outputs than the entry with its fingerprint."""
    maker = came.maker
    message = out.EntryDiverged(
        project=came.project,
        fingerprint=came.fingerprint,
        run=maker.run,
        step=maker.step,
        outputs=differing,
        detected_at=wire.timestamp(maker.at),
    )
    return bus.cloud_event(message, project=came.project, run=maker.run, key=_name(came), at=maker.at)


def invalidated(entry: Entry, reason: str, at: datetime) -> bus.CloudEvent:
    """Tells that an entry is no longer served."""
    message = out.EntryInvalidated(
        project=entry.project,
        fingerprint=entry.fingerprint,
        reason=reason,
        invalidated_at=wire.timestamp(at),
    )
    return bus.cloud_event(message, project=entry.project, run=entry.maker.run, key=_name(entry), at=at)


def digested(recording: Recording) -> list[bus.CloudEvent]:
    """Tells the content digests of a step's artifacts, in as many events as NATS takes them."""
    attempt, all_ = recording.attempt, [*recording.inputs, *recording.outputs]
    made = []
    for start in range(0, len(all_), _ARTIFACTS):
        end = start + _ARTIFACTS
        given = len(recording.inputs)
        message = out.ArtifactsDigested(
            project=attempt.project,
            run=attempt.run,
            step=attempt.step,
            inputs=[wire.artifact_message(artifact) for artifact in all_[start : min(end, given)]],
            outputs=[wire.artifact_message(artifact) for artifact in all_[max(start, given) : end]],
        )
        key = f"{attempt.step}/{attempt.finished_at.isoformat()}/{start}"
        made.append(
            bus.cloud_event(
                message, project=attempt.project, run=attempt.run, key=key, at=attempt.finished_at
            )
        )
    return made


def _name(entry: Entry) -> str:
    """One execution of one step: an entry that is replaced is told of again."""
    return f"{entry.maker.step}/{entry.maker.at.isoformat()}/{entry.fingerprint}"
