"""The entry and invalidation tables."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from periplus_cache.domain import (
    Entry,
    EntryDetails,
    EntryFilter,
    EntryPosition,
    EntrySelector,
    Hit,
    Invalidation,
    PastInvalidation,
    Producer,
    WriteOutcome,
    differing_outputs,
    replacement_reason,
    write_outcome,
)
from periplus_cache.store import divergences
from periplus_cache.store.rows import (
    decode_digest,
    decode_inputs,
    decode_outputs,
    encode_digest,
    encode_inputs,
    encode_optional_digest,
    encode_outputs,
)
from periplus_cache.wire import published
from periplus_common import outbox
from periplus_common.postgres import Connection, Database, Row
from periplus_model.steps import CachePolicy

_COLUMNS = {
    "fingerprint": "bytea",
    "project": "text",
    "static_key": "bytea",
    "template": "text",
    "producer_run": "text",
    "producer_step": "text",
    "inputs": "bytea",
    "outputs": "bytea",
    "recorded_at": "timestamptz",
    "confirmed_at": "timestamptz",
    "expires_at": "timestamptz",
    "last_used_at": "timestamptz",
    "duration": "interval",
    "invalidation_reason": "text",
    "base_fingerprint": "bytea",
    "pipeline": "text",
}
_COLUMN_LIST = ", ".join(_COLUMNS)
_INSERT = f"""
    INSERT INTO entry ({_COLUMN_LIST})
    SELECT * FROM unnest({", ".join(f"${n}::{kind}[]" for n, kind in enumerate(_COLUMNS.values(), start=1))})
    ON CONFLICT (fingerprint) DO NOTHING RETURNING fingerprint
"""  # noqa: S608  # the columns are those above
_REPLACE = f"""
    UPDATE entry SET {", ".join(f"{name} = ${n}" for n, name in enumerate(_COLUMNS, start=1) if n > 1)}
    WHERE fingerprint = $1
"""  # noqa: S608
# The row is locked, so that the decision still holds when it is written.
_SELECT_LOCKED = f"SELECT {_COLUMN_LIST} FROM entry WHERE fingerprint = $1 FOR UPDATE"  # noqa: S608
_SELECTED = """
    project = $1 AND invalidation_reason = ''
    AND ($2::bytea[] IS NULL OR fingerprint = ANY($2)) AND ($3 = '' OR template = $3)
    AND ($4 = '' OR producer_run = $4)
"""


async def add(
    connection: Connection, new: Sequence[tuple[Entry, CachePolicy]]
) -> list[tuple[WriteOutcome, Entry | None]]:
    """Add entries, sorted by fingerprint. Returns what became of each, and the entry that was there before.

    Most are new, and one statement inserts them. The others are compared with the existing entry one by one. Rows are
    locked in the order of their fingerprints, so that transactions that add the same entries do not deadlock.
    """
    first = {entry.fingerprint: entry for entry, _ in reversed(new)}
    inserted = await _insert(connection, [first[fingerprint] for fingerprint in sorted(first)])
    outcomes: list[tuple[WriteOutcome, Entry | None]] = []
    for entry, policy in new:
        if entry is first[entry.fingerprint] and entry.fingerprint in inserted:
            outcomes.append((WriteOutcome.ADDED, None))
        else:
            outcomes.append(await _add_existing(connection, entry, policy))
    return outcomes


async def _insert(connection: Connection, entries: Sequence[Entry]) -> set[str]:
    """Insert entries with different fingerprints. Returns the fingerprints of which there was no entry."""
    if not entries:
        return set()
    stored = [_encode(entry) for entry in entries]
    rows = await connection.fetch(_INSERT, *([row[name] for row in stored] for name in _COLUMNS))
    return {decode_digest(row["fingerprint"]) for row in rows}


async def _add_existing(
    connection: Connection, entry: Entry, policy: CachePolicy
) -> tuple[WriteOutcome, Entry | None]:
    while (row := await connection.fetchrow(_SELECT_LOCKED, encode_digest(entry.fingerprint))) is None:
        # Retention has deleted the row in the meantime.
        if await _insert(connection, [entry]):
            return WriteOutcome.ADDED, None
    existing = _decode(row)
    outcome = write_outcome(existing, entry, policy)
    if outcome is WriteOutcome.REPLACED:
        if not existing.invalidation_reason:
            reasons = {existing.fingerprint: replacement_reason(existing, entry, policy)}
            await _add_invalidations(connection, [existing], reasons, entry.producer.finished_at)
        await connection.execute(_REPLACE, *_encode(entry).values())
        return outcome, existing
    if not existing.invalidation_reason and not differing_outputs(existing.outputs, entry.outputs):
        await _confirm(connection, existing, entry)
    return outcome, existing


async def _confirm(connection: Connection, existing: Entry, new: Entry) -> None:
    """The same outputs were produced again: the entry's time to live starts anew."""
    expires_at = (
        None
        if existing.expires_at is None or new.expires_at is None
        else max(existing.expires_at, new.expires_at)
    )
    await connection.execute(
        """
        UPDATE entry SET confirmed_at = $2, expires_at = $3, last_used_at = greatest(last_used_at, $2)
        WHERE fingerprint = $1
        """,
        encode_digest(existing.fingerprint),
        max(existing.confirmed_at, new.confirmed_at),
        expires_at,
    )


async def renew(connection: Connection, hits: Sequence[Hit]) -> None:
    """Note that entries were hit. At most once a day per entry: retention counts in days, and most hits write nothing."""
    if not hits:
        return
    await connection.execute(
        """
        WITH hit AS (
            SELECT fingerprint, max(hit_at) AS hit_at
            FROM unnest($1::bytea[], $2::timestamptz[]) AS hit (fingerprint, hit_at) GROUP BY fingerprint
        ), due AS (
            -- An entry that another transaction has locked is being used there: waiting for it could deadlock.
            SELECT entry.fingerprint, hit.hit_at FROM entry JOIN hit USING (fingerprint)
            WHERE entry.last_used_at < hit.hit_at - interval '1 day'
            FOR UPDATE OF entry SKIP LOCKED
        )
        UPDATE entry SET last_used_at = due.hit_at FROM due WHERE entry.fingerprint = due.fingerprint
        """,
        [encode_digest(hit.fingerprint) for hit in hits],
        [hit.hit_at for hit in hits],
    )


async def invalidate(
    database: Database, project: str, invalidations: Collection[Invalidation], now: datetime
) -> int:
    """Invalidate entries, each for its reason, and queue the events. Returns how many were still valid."""
    async with database.transaction() as connection:
        rows = await connection.fetch(
            f"""
            UPDATE entry SET invalidation_reason = wanted.reason
            FROM unnest($2::bytea[], $3::text[], $4::text[], $5::text[]) AS wanted (name, run, step, reason)
            WHERE fingerprint = wanted.name AND project = $1 AND invalidation_reason = ''
              AND producer_run = wanted.run AND producer_step = wanted.step
            RETURNING {_COLUMN_LIST}
            """,  # noqa: S608
            project,
            [encode_digest(invalidation.fingerprint) for invalidation in invalidations],
            [invalidation.producer_run for invalidation in invalidations],
            [invalidation.producer_step for invalidation in invalidations],
            [invalidation.reason for invalidation in invalidations],
        )
        reasons = {invalidation.fingerprint: invalidation.reason for invalidation in invalidations}
        await _publish_invalidated(connection, list(map(_decode, rows)), reasons, now)
        return len(rows)


async def invalidate_selected(
    database: Database,
    project: str,
    selector: EntrySelector,
    reason: str,
    now: datetime,
    *,
    batch_rows: int = 1000,
) -> int:
    """Invalidate the live entries that match, queue the events, and return their number.

    Each batch is a transaction of its own. If one fails, those before it stay invalid, and a second call does the rest.
    """
    assert reason  # an entry without a reason is live
    count = 0
    while True:
        async with database.transaction() as connection:
            rows = await connection.fetch(
                f"""
                UPDATE entry SET invalidation_reason = $5
                WHERE fingerprint = ANY (ARRAY (
                    SELECT fingerprint FROM entry WHERE {_SELECTED} ORDER BY fingerprint LIMIT $6 FOR UPDATE
                ))
                RETURNING {_COLUMN_LIST}
                """,  # noqa: S608
                *_selected_arguments(project, selector),
                reason,
                batch_rows,
            )
            entries = list(map(_decode, rows))
            reasons = dict.fromkeys((entry.fingerprint for entry in entries), reason)
            await _publish_invalidated(connection, entries, reasons, now)
        count += len(rows)
        if len(rows) < batch_rows:
            return count


async def count_selected(database: Database, project: str, selector: EntrySelector) -> int:
    """The number of live entries that match."""
    async with database.connection() as connection:
        return int(
            await connection.fetchval(
                f"SELECT count(*) FROM entry WHERE {_SELECTED}",  # noqa: S608
                *_selected_arguments(project, selector),
            )
        )


def _selected_arguments(project: str, selector: EntrySelector) -> tuple[object, ...]:
    fingerprints = [encode_digest(fingerprint) for fingerprint in selector.fingerprints] or None
    return project, fingerprints, selector.template, selector.producer_run


async def _publish_invalidated(
    connection: Connection, entries: list[Entry], reasons: Mapping[str, str], now: datetime
) -> None:
    await _add_invalidations(connection, entries, reasons, now)
    await outbox.add(
        connection,
        [published.entry_invalidated(entry, reasons[entry.fingerprint], now) for entry in entries],
    )


async def _add_invalidations(
    connection: Connection, entries: list[Entry], reasons: Mapping[str, str], now: datetime
) -> None:
    await connection.execute(
        """
        INSERT INTO invalidation (fingerprint, project, producer_run, producer_step, reason, invalidated_at)
        SELECT *, $6::timestamptz FROM unnest($1::bytea[], $2::text[], $3::text[], $4::text[], $5::text[])
        """,
        [encode_digest(entry.fingerprint) for entry in entries],
        [entry.project for entry in entries],
        [entry.producer.run for entry in entries],
        [entry.producer.step for entry in entries],
        [reasons[entry.fingerprint] for entry in entries],
        now,
    )
    if entries:
        await divergences.resolve(connection, [entry.fingerprint for entry in entries])


async def last_invalidation(
    database: Database, project: str, fingerprint: str, until: datetime
) -> PastInvalidation | None:
    """The last time until then that an entry with this fingerprint was invalidated or replaced."""
    async with database.connection() as connection:
        row = await connection.fetchrow(
            """
            SELECT producer_run, producer_step, reason, invalidated_at FROM invalidation
            WHERE fingerprint = $1 AND project = $2 AND invalidated_at <= $3
            ORDER BY invalidated_at DESC, id DESC LIMIT 1
            """,
            encode_digest(fingerprint),
            project,
            until,
        )
    return PastInvalidation(**row) if row else None


async def find(database: Database, project: str, fingerprint: str) -> EntryDetails | None:
    """An entry, also an invalid one, with its template's document and the number of its hits."""
    async with database.connection() as connection:
        row = await connection.fetchrow(
            """
            SELECT entry.*, template.document, template.epoch,
                   (SELECT count(*) FROM hit WHERE hit.fingerprint = entry.fingerprint) AS hits
            FROM entry JOIN template USING (static_key)
            WHERE entry.fingerprint = $1 AND entry.project = $2
            """,
            encode_digest(fingerprint),
            project,
        )
    if row is None:
        return None
    return EntryDetails(_decode(row), row["hits"], document=row["document"].decode(), epoch=row["epoch"])


async def list_page(
    database: Database,
    project: str,
    chosen: EntryFilter,
    after: EntryPosition | None,
    limit: int,
    now: datetime,
) -> list[EntryDetails]:
    """At most `limit` entries that match, newest first, that come after a position; without their keys."""
    arguments: list[object] = [project, limit]

    def argument(value: object) -> str:
        arguments.append(value)
        return f"${len(arguments)}"

    conditions = ["project = $1"]
    if not chosen.include_invalid:
        conditions += [
            "invalidation_reason = ''",
            f"(expires_at IS NULL OR expires_at > {argument(now)})",
        ]
    if chosen.template:
        conditions.append(f"template = {argument(chosen.template)}")
    if chosen.producer_run:
        conditions.append(f"producer_run = {argument(chosen.producer_run)}")
    if after is not None:
        position = f"({argument(after.recorded_at)}, {argument(encode_digest(after.fingerprint))})"
        conditions.append(f"(recorded_at, fingerprint) < {position}")
    async with database.connection() as connection:
        rows = await connection.fetch(
            f"""
            SELECT {_COLUMN_LIST},
                   (SELECT count(*) FROM hit WHERE hit.fingerprint = entry.fingerprint) AS hits
            FROM entry WHERE {" AND ".join(conditions)}
            ORDER BY recorded_at DESC, fingerprint DESC LIMIT $2
            """,  # noqa: S608
            *arguments,
        )
    return [EntryDetails(_decode(row), row["hits"]) for row in rows]


def _encode(entry: Entry) -> dict[str, object]:
    """The columns of an entry, in the order of `_COLUMNS`."""
    return {
        "fingerprint": encode_digest(entry.fingerprint),
        "project": entry.project,
        "static_key": encode_digest(entry.static_key),
        "template": entry.template,
        "producer_run": entry.producer.run,
        "producer_step": entry.producer.step,
        "inputs": encode_inputs(entry.inputs),
        "outputs": encode_outputs(entry.outputs),
        "recorded_at": entry.producer.finished_at,
        "confirmed_at": entry.confirmed_at,
        "expires_at": entry.expires_at,
        "last_used_at": entry.confirmed_at,
        "duration": entry.producer.duration,
        "invalidation_reason": entry.invalidation_reason,
        "base_fingerprint": encode_optional_digest(entry.base_fingerprint),
        "pipeline": entry.pipeline or None,
    }


def _decode(row: Row) -> Entry:
    return Entry(
        project=row["project"],
        fingerprint=decode_digest(row["fingerprint"]),
        static_key=decode_digest(row["static_key"]),
        template=row["template"],
        producer=Producer(
            run=row["producer_run"],
            step=row["producer_step"],
            finished_at=row["recorded_at"],
            duration=row["duration"],
        ),
        inputs=decode_inputs(row["inputs"]),
        outputs=decode_outputs(row["outputs"]),
        confirmed_at=row["confirmed_at"],
        expires_at=row["expires_at"],
        invalidation_reason=row["invalidation_reason"],
        base_fingerprint=decode_digest(row["base_fingerprint"]),
        pipeline=row["pipeline"] or "",
    )
