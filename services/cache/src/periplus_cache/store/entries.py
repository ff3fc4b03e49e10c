"""The entry, template and tombstone tables."""

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta

from periplus_cache import rest, told
from periplus_cache.domain import Policy
from periplus_cache.entry import Entry, Fate, Maker, Selector, fate, replaceable
from periplus_cache.ports import Burial, Shown, Tombstone
from periplus_cache.store.digests import microseconds, to_bytes, to_text
from periplus_common import outbox
from periplus_common.postgres import Connection, Database, Row

_COLUMNS = """
    fingerprint, project, static_key, template, run, step, inputs, outputs,
    recorded_at, confirmed_at, expires_at, took_us, buried
"""


async def add(connection: Connection, entry: Entry, policy: Policy) -> tuple[Fate, Entry]:
    """Add an entry: what became of it, and the one that is kept."""
    added = await connection.fetchval(
        f"""
        INSERT INTO entry ({_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
        ON CONFLICT (fingerprint) DO NOTHING RETURNING true
        """,  # noqa: S608  # the columns are ours
        *_values(entry),
    )
    if added:
        return Fate.ADDED, entry
    # The row is locked, so that what is decided now holds when it is written.
    row = await connection.fetchrow(
        f"SELECT {_COLUMNS} FROM entry WHERE fingerprint = $1 FOR UPDATE",  # noqa: S608
        to_bytes(entry.fingerprint),
    )
    assert row is not None  # no row of this table is ever deleted
    kept = _entry(row)
    decided = fate(kept, entry, policy)
    if decided is Fate.REPLACED:
        await _replace(connection, kept, entry, policy)
        return decided, entry
    if not kept.buried and not kept.outputs.differing(entry.outputs):
        await _confirm(connection, kept, entry)
    return decided, kept


async def _replace(connection: Connection, kept: Entry, entry: Entry, policy: Policy) -> None:
    if not kept.buried:
        reasons = {kept.fingerprint: replaceable(kept, entry, policy)}
        await _entomb(connection, [kept], reasons, entry.maker.at)
    await connection.execute(
        """
        UPDATE entry SET template = $2, run = $3, step = $4, inputs = $5, outputs = $6, recorded_at = $7,
            confirmed_at = $8, expires_at = $9, took_us = $10, buried = ''
        WHERE fingerprint = $1
        """,
        to_bytes(entry.fingerprint),
        entry.template,
        entry.maker.run,
        entry.maker.step,
        rest.inputs_to_bytes(entry.inputs),
        rest.outputs_to_bytes(entry.outputs),
        entry.maker.at,
        entry.confirmed_at,
        entry.expires_at,
        microseconds(entry.maker.took),
    )


async def _confirm(connection: Connection, kept: Entry, came: Entry) -> None:
    """The same again: its time to live begins anew."""
    expires_at = (
        None if kept.expires_at is None or came.expires_at is None else max(kept.expires_at, came.expires_at)
    )
    await connection.execute(
        "UPDATE entry SET confirmed_at = $2, expires_at = $3 WHERE fingerprint = $1",
        to_bytes(kept.fingerprint),
        max(kept.confirmed_at, came.confirmed_at),
        expires_at,
    )


async def bury(database: Database, project: str, burials: Collection[Burial], now: datetime) -> None:
    """Take entries out of use, each for its reason, and tell of it."""
    async with database.transaction() as connection:
        rows = await connection.fetch(
            f"""
            UPDATE entry SET buried = asked.reason
            FROM unnest($2::bytea[], $3::text[], $4::text[], $5::text[]) AS asked (name, maker, at, reason)
            WHERE fingerprint = asked.name AND project = $1 AND buried = '' AND run = asked.maker AND step = asked.at
            RETURNING {_COLUMNS}
            """,  # noqa: S608
            project,
            [to_bytes(burial.fingerprint) for burial in burials],
            [burial.run for burial in burials],
            [burial.step for burial in burials],
            [burial.reason for burial in burials],
        )
        reasons = {burial.fingerprint: burial.reason for burial in burials}
        await _tell(connection, [_entry(row) for row in rows], reasons, now)


async def invalidate(
    database: Database, project: str, selector: Selector, reason: str, now: datetime, *, only_count: bool
) -> int:
    """Take the selected live entries out of use, tell of it, and say how many they are."""
    chosen = """
        project = $1 AND buried = ''
        AND ($2::bytea[] IS NULL OR fingerprint = ANY($2)) AND ($3 = '' OR template = $3) AND ($4 = '' OR run = $4)
    """
    arguments = (
        project,
        [to_bytes(fingerprint) for fingerprint in selector.fingerprints] or None,
        selector.template,
        selector.run,
    )
    async with database.transaction() as connection:
        if only_count:
            return int(await connection.fetchval(f"SELECT count(*) FROM entry WHERE {chosen}", *arguments))  # noqa: S608
        rows = await connection.fetch(
            f"UPDATE entry SET buried = $5 WHERE {chosen} RETURNING {_COLUMNS}",  # noqa: S608
            *arguments,
            reason,
        )
        entries = [_entry(row) for row in rows]
        await _tell(connection, entries, {entry.fingerprint: reason for entry in entries}, now)
        return len(entries)


async def _tell(
    connection: Connection, entries: list[Entry], reasons: Mapping[str, str], now: datetime
) -> None:
    await _entomb(connection, entries, reasons, now)
    await outbox.add(
        connection, [told.invalidated(entry, reasons[entry.fingerprint], now) for entry in entries]
    )


async def _entomb(
    connection: Connection, entries: list[Entry], reasons: Mapping[str, str], now: datetime
) -> None:
    await connection.executemany(
        """
        INSERT INTO tombstone (fingerprint, project, run, step, reason, buried_at)
        VALUES ($1, $2, $3, $4, $5, $6)
        """,
        [
            (to_bytes(e.fingerprint), e.project, e.maker.run, e.maker.step, reasons[e.fingerprint], now)
            for e in entries
        ],
    )


async def tombstone(database: Database, project: str, fingerprint: str, until: datetime) -> Tombstone | None:
    """The last time, up to `until`, that an entry with this fingerprint was taken out of use."""
    async with database.connection() as connection:
        row = await connection.fetchrow(
            """
            SELECT run, step, reason, buried_at FROM tombstone
            WHERE fingerprint = $1 AND project = $2 AND buried_at <= $3
            ORDER BY buried_at DESC, id DESC LIMIT 1
            """,
            to_bytes(fingerprint),
            project,
            until,
        )
    return Tombstone(*row) if row else None


async def shown(database: Database, project: str, fingerprint: str) -> Shown | None:
    """An entry, buried or not, with its template's document and how often it was served."""
    async with database.connection() as connection:
        row = await connection.fetchrow(
            """
            SELECT entry.*, template.document, template.epoch,
                   (SELECT count(*) FROM hit WHERE hit.fingerprint = entry.fingerprint) AS hits
            FROM entry JOIN template USING (static_key)
            WHERE entry.fingerprint = $1 AND entry.project = $2
            """,
            to_bytes(fingerprint),
            project,
        )
    return Shown(_entry(row), row["document"].decode(), row["epoch"], row["hits"]) if row else None


def _values(entry: Entry) -> tuple[object, ...]:
    return (
        to_bytes(entry.fingerprint),
        entry.project,
        to_bytes(entry.static_key),
        entry.template,
        entry.maker.run,
        entry.maker.step,
        rest.inputs_to_bytes(entry.inputs),
        rest.outputs_to_bytes(entry.outputs),
        entry.maker.at,
        entry.confirmed_at,
        entry.expires_at,
        microseconds(entry.maker.took),
        entry.buried,
    )


def _entry(row: Row) -> Entry:
    return Entry(
        row["project"],
        to_text(row["fingerprint"]),
        to_text(row["static_key"]),
        row["template"],
        Maker(row["run"], row["step"], row["recorded_at"], timedelta(microseconds=row["took_us"])),
        rest.inputs_from_bytes(row["inputs"]),
        rest.outputs_from_bytes(row["outputs"]),
        row["confirmed_at"],
        row["expires_at"],
        row["buried"],
    )
