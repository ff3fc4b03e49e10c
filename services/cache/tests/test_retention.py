"""Deletion of old rows, on a real Postgres: what is deleted, and what stays because something refers to it."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError
from test_store import digest, recording

from periplus_cache.domain import EntryFilter, Hit, Invalidation, ObjectVersion, Recording, VersionedObject
from periplus_cache.settings import Settings
from periplus_cache.store import attempts
from periplus_cache.store.postgres import PostgresStore
from periplus_cache.store.retention import retentions
from periplus_common import postgres
from periplus_common.postgres import Database
from periplus_common.retention import delete_expired
from periplus_model.steps import CachePolicy, ObjectRef, Outputs, StepPhase

NOW = datetime.now(UTC)


def days(count: float) -> timedelta:
    return timedelta(days=count)


def settings(**changes: object) -> Settings:
    servers = dict.fromkeys(
        ("postgres_dsn", "nats_url", "grpc_address", "token", "s3_endpoint", "s3_access_key", "s3_secret_key", "s3_bucket"),
        "x",
    )  # fmt: skip
    return Settings(**(servers | changes))


@pytest.fixture
async def opened(dsn: str) -> AsyncIterator[Database]:
    async with postgres.database(dsn) as database:
        yield database


@pytest.fixture
def store(opened: Database) -> PostgresStore:
    return PostgresStore(opened)


@pytest.fixture
def delete(dsn: str):
    """Deletes what is too old under settings. Returns the numbers of rows by table, without zeros."""

    async def run(**changes: object) -> dict[str, int]:
        deleted = await delete_expired(dsn, retentions(settings(**changes)), batch_rows=2)
        return {table: rows for table, rows in deleted.items() if rows}

    return run


async def age_templates(database: Database, age: timedelta) -> None:
    """Templates are dated by the clock of Postgres."""
    async with database.connection() as connection:
        await connection.execute("UPDATE template SET used_at = now() - $1::interval", age)


def hit(number: int, run: str, at: datetime) -> Recording:
    attempt = replace(
        recording(number, run, at=at).attempt, phase=StepPhase.CACHED, static_key="", inputs=None
    )
    return Recording(
        attempt, "", 0, CachePolicy(), hit=Hit("p", run, f"s{number}", digest(number), days(0), at)
    )


async def listed(store: PostgresStore) -> list[str]:
    every = EntryFilter(include_invalid=True)
    return sorted(d.entry.fingerprint for d in await store.list_entries("p", every, None, 99, NOW))


async def test_rows_older_than_their_setting_are_deleted_and_younger_ones_stay(store, opened, delete):
    for number, age in enumerate((99, 98, 97, 89, 1)):
        await store.record(recording(number, f"r{number}", static=number, at=NOW - days(age)))
        await store.record(hit(100 + number, f"h{number}", NOW - days(age)))
    assert await delete() == {"attempt": 6}
    assert await store.attempt("p", "r2", "s2") is None
    assert (await store.attempt("p", "r3", "s3")) is not None
    assert await delete(keep_entries=90, keep_hits=90) == {"entry": 3, "hit": 3}
    assert await listed(store) == [digest(3), digest(4)]
    assert (await store.savings("p", "")).hits == 2
    assert await delete(keep_entries=90, keep_hits=90) == {}


async def test_nothing_is_deleted_that_is_kept_forever(store, opened, delete):
    await store.record(recording(1, at=NOW - days(30_000)), hit(1, "h", NOW - days(30_000)))
    await age_templates(opened, days(30_000))
    forever = {
        f"keep_{name}": "forever" for name in ("entries", "attempts", "hits", "invalidations", "contents")
    }
    assert await delete(**forever) == {}


async def test_an_entry_stays_while_it_is_hit_and_its_template_with_it(store, opened, delete):
    await store.record(
        recording(1, "r1", at=NOW - days(400)), recording(2, "r2", static=2, at=NOW - days(400))
    )
    await store.record(hit(1, "r3", NOW - days(10)), hit(1, "r4", NOW - days(20)))
    await age_templates(opened, days(400))
    assert await delete() == {"attempt": 2, "entry": 1, "template": 1}
    assert await listed(store) == [digest(1)]
    assert (await store.entry("p", digest(1))).document == '{"t": 1}'
    assert await delete(keep_entries=9) == {"entry": 1, "template": 1}


async def test_an_entry_stays_while_its_result_is_confirmed(store, delete):
    await store.record(recording(1, "r1", at=NOW - days(400)))
    await store.record(recording(1, "r2", at=NOW - days(10)))
    await delete()
    assert await listed(store) == [digest(1)]


async def test_a_replaced_entry_is_as_old_as_its_new_result(store, delete):
    await store.record(recording(1, "r1", at=NOW - days(400)))
    await store.record(recording(1, "r2", at=NOW - days(10), outputs=Outputs({"y": "2"}, result="x")))
    await delete()
    assert (await store.entry("p", digest(1))).entry.producer.run == "r2"


async def test_an_invalid_entry_and_its_invalidation_are_deleted_by_their_own_settings(store, delete):
    await store.record(recording(1, "r1", at=NOW - days(100)), recording(2, "r2", at=NOW - days(100)))
    for number, age in ((1, 95), (2, 5)):
        invalidation = Invalidation(digest(number), f"r{number}", f"s{number}", "bytes are gone")
        await store.invalidate("p", [invalidation], NOW - days(age))
    assert await delete() == {"attempt": 2, "invalidation": 1}
    assert await store.last_invalidation("p", digest(1), NOW) is None
    assert (await store.last_invalidation("p", digest(2), NOW)).reason == "bytes are gone"
    assert await listed(store) == [digest(1), digest(2)]
    assert await delete(keep_entries=50) == {"entry": 2}


async def test_content_digests_are_deleted_by_the_age_of_their_reading(store, opened, delete):
    found = [VersionedObject(ObjectRef(f"k{n}", "b", "e"), ObjectVersion("etag", 5)) for n in range(2)]
    await store.add_content_digests({found[0]: digest(1)})
    async with opened.connection() as connection:
        await connection.execute("UPDATE content SET read_at = now() - interval '200 days'")
    await store.add_content_digests({found[1]: digest(2)})
    assert await delete() == {"content": 1}
    assert await store.content_digests(found) == {found[1]: digest(2)}


async def test_a_template_stays_while_an_attempt_refers_to_it(store, opened, delete):
    await store.record(recording(1, at=NOW - days(89), entry=False))
    await age_templates(
        opened, days(91)
    )  # an attempt may be up to two days younger than the use of its template
    assert await delete() == {}
    assert (await store.attempt("p", "r1", "s1")).document == '{"t": 1}'
    await age_templates(opened, days(94))
    assert await delete(keep_attempts=88) == {"attempt": 1, "template": 1}


async def test_a_template_that_is_being_used_again_is_not_deleted(store, opened, delete, monkeypatch):
    await store.record(recording(1, "r1", at=NOW - days(400), entry=False))
    await age_templates(opened, days(400))
    template_used, commit = asyncio.Event(), asyncio.Event()
    add_hits = attempts.add_hits

    async def add_hits_later(*arguments):
        template_used.set()
        await commit.wait()
        await add_hits(*arguments)

    monkeypatch.setattr(attempts, "add_hits", add_hits_later)
    recorded = asyncio.create_task(store.record(recording(1, "r2", at=NOW, entry=False)))
    await template_used.wait()
    try:
        assert await delete() == {"attempt": 1}
    finally:
        commit.set()
        await recorded
    assert await delete() == {}
    assert (await store.attempt("p", "r2", "s1")).document == '{"t": 1}'


async def test_results_are_recorded_while_their_entries_are_being_deleted(store, opened):
    async def keep_deleting() -> None:
        while True:
            async with opened.connection() as connection:
                await connection.execute("DELETE FROM entry")

    deleting = asyncio.create_task(keep_deleting())
    steps = [recording(1, f"r{n}", at=NOW + timedelta(seconds=n)) for n in range(150)]
    outcomes = await asyncio.gather(*(store.record(step) for step in steps))
    deleting.cancel()
    assert all(outcome is not None for (outcome,) in outcomes)


def test_attempts_are_kept_for_longer_than_their_events_can_be_redelivered():
    with pytest.raises(ValidationError, match="more than 14"):
        settings(keep_attempts=14)
    assert settings(keep_attempts=15).keep_attempts == days(15)
    assert settings(keep_attempts="forever").keep_attempts is None


async def test_deletion_finds_rows_by_an_index(opened):
    async with opened.connection() as connection:
        rows = await connection.fetch(
            "SELECT tablename, indexdef FROM pg_indexes WHERE schemaname = current_schema()"
        )
    columns = {
        "attempt": "finished_at",
        "entry": "last_used_at",
        "hit": "hit_at",
        "invalidation": "invalidated_at",
        "content": "read_at",
        "template": "used_at",
    }
    for table, column in columns.items():
        assert any(row["tablename"] == table and row["indexdef"].endswith(f"({column})") for row in rows)
