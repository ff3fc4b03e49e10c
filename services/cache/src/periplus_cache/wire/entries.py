"""Entries, selectors, lists and explanations: the messages of all RPCs but ResolveSteps."""

import base64
import hashlib
import json
import struct
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from periplus.cache.v1 import cache_pb2
from periplus_cache.content import Content, Unreadable
from periplus_cache.domain import (
    Divergence,
    EntryDetails,
    EntryFilter,
    EntryPage,
    EntryPosition,
    EntrySelector,
    PipelineShadow,
    Savings,
)
from periplus_cache.explain.explanation import Explanation
from periplus_cache.key import Scope, whole_key
from periplus_common.errors import Invalid
from periplus_model.codec import decode_name, encode_duration, encode_outputs, encode_time

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_TOKEN = struct.Struct(
    ">8sq32s"
)  # checksum of the list's arguments, recorded_at in microseconds, fingerprint


def encode_entry(details: EntryDetails) -> cache_pb2.Entry:
    """An entry; with its key if its template's document is known."""
    entry = details.entry
    return cache_pb2.Entry(
        fingerprint=entry.fingerprint,
        template=entry.template,
        producer_run=entry.producer.run,
        producer_step=entry.producer.step,
        outputs=encode_outputs(entry.outputs),
        recorded_at=encode_time(entry.producer.finished_at),
        duration=encode_duration(entry.producer.duration),
        hits=details.hits,
        key=_key_json(details) if details.document else "",
        invalidation_reason=entry.invalidation_reason,
        expires_at=encode_time(entry.expires_at),
    )


def _key_json(details: EntryDetails) -> str:
    entry = details.entry
    scope = Scope(entry.project, details.epoch)
    return json.dumps(whole_key(scope, details.document, entry.inputs), ensure_ascii=False)


def decode_filter(request: cache_pb2.ListEntriesRequest) -> EntryFilter:
    """What to list."""
    return EntryFilter(
        template=decode_name(request.template, "template"),
        producer_run=decode_name(request.producer_run, "producer_run"),
        include_invalid=request.show_invalidated,
    )


def decode_page_token(request: cache_pb2.ListEntriesRequest) -> EntryPosition | None:
    """The position after which the page starts; None for the first page. Raises `Invalid` for another list's token."""
    if not request.page_token:
        return None
    try:
        packed = base64.urlsafe_b64decode(request.page_token.encode())
        checksum, microseconds, fingerprint = _TOKEN.unpack(packed)
        recorded_at = _EPOCH + microseconds * _MICROSECOND
    except (ValueError, OverflowError, struct.error):
        raise _foreign_token() from None
    if checksum != _checksum(request):
        raise _foreign_token()
    return EntryPosition(recorded_at, f"sha256:{fingerprint.hex()}")


def _foreign_token() -> Invalid:
    return Invalid(
        "is not a token of this list",
        field="page_token",
        reason="PAGE_TOKEN_INVALID",
        fix="ask for the first page again, with an empty page_token",
    )


def _checksum(request: cache_pb2.ListEntriesRequest) -> bytes:
    """Of everything that decides which entries are listed: not of the page's size, which may change between pages."""
    arguments = [request.project, request.template, request.producer_run, request.show_invalidated]
    return hashlib.sha256(json.dumps(arguments).encode()).digest()[:8]


def encode_page(request: cache_pb2.ListEntriesRequest, page: EntryPage) -> cache_pb2.ListEntriesResponse:
    """A page, with the token of the next one."""
    token, position = "", page.next_position
    if position is not None:
        microseconds = (position.recorded_at - _EPOCH) // _MICROSECOND
        fingerprint = bytes.fromhex(position.fingerprint.removeprefix("sha256:"))
        packed = _TOKEN.pack(_checksum(request), microseconds, fingerprint)
        token = base64.urlsafe_b64encode(packed).decode()
    return cache_pb2.ListEntriesResponse(entries=map(encode_entry, page.entries), next_page_token=token)


def decode_selector(request: cache_pb2.InvalidateEntriesRequest) -> EntrySelector:
    """Which entries to invalidate."""
    return EntrySelector(
        fingerprints=tuple(request.fingerprints),
        template=decode_name(request.template, "template"),
        producer_run=decode_name(request.producer_run, "producer_run"),
    )


def encode_explanation(explanation: Explanation) -> cache_pb2.ExplainMissResponse:
    """Why a step ran."""
    return cache_pb2.ExplainMissResponse(
        reason=explanation.reason,
        fingerprint=explanation.fingerprint,
        nearest_fingerprint=explanation.nearest_fingerprint,
        producer_run=explanation.producer_run,
        producer_step=explanation.producer_step,
        recorded_at=encode_time(explanation.recorded_at),
        changes=[cache_pb2.FieldChange(field=c.field, old=c.old, new=c.new) for c in explanation.changes],
        hit=explanation.hit,
        divergences=map(_encode_divergence, explanation.divergences),
    )


def encode_divergences(found: Iterable[Divergence], recorded_steps: int) -> cache_pb2.ListDivergencesResponse:
    """Divergences, and how many steps of their run are recorded."""
    return cache_pb2.ListDivergencesResponse(
        divergences=map(_encode_divergence, found), recorded_steps=recorded_steps
    )


def _encode_divergence(found: Divergence) -> cache_pb2.Divergence:
    return cache_pb2.Divergence(
        fingerprint=found.fingerprint,
        template=found.template,
        run=found.run,
        step=found.step,
        producer_run=found.producer_run,
        producer_step=found.producer_step,
        outputs=found.outputs,
        detected_at=encode_time(found.detected_at),
    )


def encode_shadow(found: Iterable[PipelineShadow]) -> cache_pb2.GetShadowSavingsResponse:
    """What the cache would have saved."""
    return cache_pb2.GetShadowSavingsResponse(
        pipelines=[
            cache_pb2.PipelineShadow(
                pipeline=each.pipeline,
                runs=each.runs,
                steps=each.steps,
                hits=each.hits,
                saved=encode_duration(each.saved),
                saved_pods=each.saved_pods,
                duration=encode_duration(each.duration),
                uncacheable_steps=each.uncacheable_steps,
                uncacheable_reason=each.uncacheable_reason,
            )
            for each in found
        ]
    )


def encode_savings(savings: Savings) -> cache_pb2.GetSavingsResponse:
    """What hits saved."""
    return cache_pb2.GetSavingsResponse(hits=savings.hits, saved=encode_duration(savings.saved))


def encode_contents(contents: Iterable[Content | Unreadable]) -> cache_pb2.DigestObjectsResponse:
    """What objects contain, in order."""
    return cache_pb2.DigestObjectsResponse(
        objects=[
            cache_pb2.DigestedObject(digest=found.digest)
            if isinstance(found, Content)
            else cache_pb2.DigestedObject(reason=found.reason, is_absent=found.is_absent)
            for found in contents
        ]
    )
