"""The events that the cache publishes."""

from datetime import datetime

from periplus.cache.v1 import events_pb2
from periplus_cache.domain import Entry, Recording
from periplus_common import bus
from periplus_model.codec import encode_artifact, encode_time

MAX_ARTIFACTS_PER_EVENT = 400  # names and keys have bounds, so that an event stays below NATS' limit of 1 MiB


def entry_recorded(entry: Entry) -> bus.CloudEvent:
    """EntryRecorded: the entry is served from now on."""
    producer = entry.producer
    message = events_pb2.EntryRecorded(
        project=entry.project,
        fingerprint=entry.fingerprint,
        producer_run=producer.run,
        producer_step=producer.step,
        recorded_at=encode_time(producer.finished_at),
    )
    return _entry_event(message, entry, producer.finished_at)


def entry_diverged(new: Entry, differing: tuple[str, ...]) -> bus.CloudEvent:
    """EntryDiverged: a step wrote other outputs than the entry with its fingerprint has."""
    producer = new.producer
    message = events_pb2.EntryDiverged(
        project=new.project,
        fingerprint=new.fingerprint,
        run=producer.run,
        step=producer.step,
        outputs=differing,
        detected_at=encode_time(producer.finished_at),
    )
    return _entry_event(message, new, producer.finished_at)


def entry_invalidated(entry: Entry, reason: str, at: datetime) -> bus.CloudEvent:
    """EntryInvalidated: the entry is not served any more."""
    message = events_pb2.EntryInvalidated(
        project=entry.project,
        fingerprint=entry.fingerprint,
        reason=reason,
        invalidated_at=encode_time(at),
    )
    return _entry_event(message, entry, at)


def artifacts_digested(recording: Recording) -> list[bus.CloudEvent]:
    """ArtifactsDigested: the digests of a step's artifacts, in events of at most `MAX_ARTIFACTS_PER_EVENT`."""
    attempt, inputs = recording.attempt, len(recording.inputs)
    artifacts = [*recording.inputs, *recording.outputs]
    events = []
    for start in range(0, len(artifacts), MAX_ARTIFACTS_PER_EVENT):
        end = start + MAX_ARTIFACTS_PER_EVENT
        message = events_pb2.ArtifactsDigested(
            project=attempt.project,
            run=attempt.run,
            step=attempt.step,
            inputs=map(encode_artifact, artifacts[start : min(end, inputs)]),
            outputs=map(encode_artifact, artifacts[max(start, inputs) : end]),
        )
        key = f"{attempt.step}/{attempt.finished_at.isoformat()}/{start}"
        events.append(
            bus.cloud_event(
                message, project=attempt.project, run=attempt.run, key=key, at=attempt.finished_at
            )
        )
    return events


def _entry_event(
    message: events_pb2.EntryRecorded | events_pb2.EntryDiverged | events_pb2.EntryInvalidated,
    entry: Entry,
    at: datetime,
) -> bus.CloudEvent:
    """An event about an entry. Its id covers the producer, as an entry that is replaced has events of its own."""
    producer = entry.producer
    key = f"{producer.step}/{producer.finished_at.isoformat()}/{entry.fingerprint}"
    return bus.cloud_event(message, project=entry.project, run=producer.run, key=key, at=at)
