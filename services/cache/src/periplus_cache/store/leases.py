"""The lease and lease_wait tables. All times are Postgres' own: no process' clock decides who holds a lease."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from periplus_cache.lease.unit import LeaseOutcome, LeaseTimings, LeaseUnit
from periplus_cache.store.rows import decode_digest, encode_digest
from periplus_common import telemetry
from periplus_common.postgres import Connection, Database, Row
from periplus_model.queries import Lease, LeaseMode, LeaseState

CHANNEL = "cache_lease"
"""A notification on it, followed by `_` and the schema, says that a lease has ended that others wait for."""

_acquired = telemetry.counter(
    "periplus.cache.leases.acquired",
    unit="{lease}",
    description="Leases that runs got: of a step that nobody made (free), or that another run had not renewed (taken_over).",
    attributes=("periplus.lease",),
)
_waits = telemetry.counter(
    "periplus.cache.leases.waits",
    unit="{wait}",
    description="Ready steps that began to wait for another run's lease, or ran as waiting would have been a deadlock.",
    attributes=("periplus.outcome",),
)

# A deadlock is a cycle of runs, each of which waits for a step that the next one holds and has not started.
_BLOCKED_BY = """
    WITH RECURSIVE blocked (run) AS (
        SELECT unnest($2::text[])
        UNION
        SELECT lease.run
        FROM blocked
        JOIN lease_wait AS wait ON wait.project = $1 AND wait.run = blocked.run AND wait.expires_at > now()
        JOIN lease USING (project, fingerprint)
        WHERE lease.expires_at > now() AND NOT lease.is_started
    )
    SELECT EXISTS (SELECT FROM blocked WHERE run = $3)
"""


class PostgresLeases:
    """Each method does what `lease.unit.Leases` says."""

    def __init__(self, database: Database, timings: LeaseTimings) -> None:
        self._database, self._timings = database, timings

    async def find(self, project: str, run: str, units: Sequence[LeaseUnit]) -> Mapping[str, LeaseOutcome]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """
                SELECT * FROM lease
                WHERE project = $1 AND fingerprint = ANY ($2::bytea[]) AND expires_at > now() AND run <> $3
                """,
                project,
                _all_fingerprints(units),
                run,
            )
        held = {decode_digest(row["fingerprint"]): _lease(row) for row in rows}
        found = {}
        for unit in units:
            awaited = next((held[f] for f in (*unit.fingerprints, *unit.others) if f in held), None)
            if awaited is not None:
                found[unit.id] = LeaseOutcome(awaited=awaited)
        return found

    async def take(self, project: str, run: str, units: Sequence[LeaseUnit]) -> Mapping[str, LeaseOutcome]:
        async with self._database.transaction() as connection:
            # One request of a project at a time: requests that want some of the same leases get all or wait, in order.
            await connection.execute(
                "SELECT pg_advisory_xact_lock(hashtext('lease'), hashtext(current_schema() || ' ' || $1))",
                project,
            )
            rows = await connection.fetch(
                """
                SELECT *, expires_at > now() AS is_live FROM lease
                WHERE project = $1 AND fingerprint = ANY ($2::bytea[]) ORDER BY fingerprint FOR UPDATE
                """,
                project,
                _all_fingerprints(units),
            )
            taking = _Taking(run, {decode_digest(row["fingerprint"]): row for row in rows})
            taking.decide(units)
            await self._store(connection, project, run, taking)
            await self._wait(connection, project, run, taking)
        return taking.outcomes

    async def _store(self, connection: Connection, project: str, run: str, taking: "_Taking") -> None:
        """Store the leases that a run gets, each with a new token unless it has one."""
        if not taking.granted:
            return
        new = [unit for unit, token in taking.granted if token is None]
        drawn = await connection.fetch(
            "SELECT nextval('lease_token') AS token FROM generate_series(1, $1)", len(new)
        )
        tokens = dict(zip((unit.id for unit in new), (row["token"] for row in drawn), strict=True))
        # A lease that is taken over ends as a whole: under the token of its holder nothing is recorded any more.
        await connection.execute("DELETE FROM lease WHERE token = ANY ($1::bigint[])", list(taking.expired))
        stored = [
            (encode_digest(fingerprint), token or tokens[unit.id], unit)
            for unit, token in taking.granted
            for fingerprint in unit.fingerprints
        ]
        rows = await connection.fetch(
            """
            INSERT INTO lease AS present (fingerprint, token, project, run, step, is_started, expires_at)
            SELECT fingerprint, token, $1, $2, step, is_started, now() + $3
            FROM unnest($4::bytea[], $5::bigint[], $6::text[], $7::boolean[]) AS new (fingerprint, token, step, is_started)
            ON CONFLICT (project, fingerprint) DO UPDATE
                SET expires_at = excluded.expires_at, is_started = present.is_started OR excluded.is_started
            RETURNING *
            """,
            project,
            run,
            self._timings.ttl,
            [fingerprint for fingerprint, _, _ in stored],
            [token for _, token, _ in stored],
            [unit.step for _, _, unit in stored],
            [unit.mode is LeaseMode.ACQUIRE for _, _, unit in stored],
        )
        held = {row["token"]: _lease(row) for row in rows}
        for unit, token in taking.granted:
            taking.outcomes[unit.id] = LeaseOutcome(held=held[token or tokens[unit.id]])
        _acquired.add(len(new) - len(taking.expired), {"periplus.lease": "free"})
        _acquired.add(len(taking.expired), {"periplus.lease": "taken_over"})

    async def _wait(self, connection: Connection, project: str, run: str, taking: "_Taking") -> None:
        """Store the waits of ready steps, and delete those of others; a wait that would never end is none."""
        if taking.ready:
            await connection.execute(
                "DELETE FROM lease_wait WHERE project = $1 AND run = $2 AND step = ANY ($3::text[]) AND NOT step = ANY ($4::text[])",
                project,
                run,
                taking.ready,
                [unit.step for unit, _ in taking.waiting],
            )
        if not taking.waiting:
            return
        not_started = {row["run"] for _, row in taking.waiting if not row["is_started"]}
        deadlocked = {
            other for other in not_started if await connection.fetchval(_BLOCKED_BY, project, [other], run)
        }
        waiting = []
        for unit, row in taking.waiting:
            if not row["is_started"] and row["run"] in deadlocked:
                taking.outcomes[unit.id] = LeaseOutcome(deadlocked=_lease(row))
            else:
                waiting.append((unit, row))
        await connection.execute(
            """
            INSERT INTO lease_wait AS present (project, run, step, fingerprint, expires_at)
            SELECT $1, $2, step, fingerprint, now() + $3 FROM unnest($4::text[], $5::bytea[]) AS new (step, fingerprint)
            ON CONFLICT (project, run, step)
                DO UPDATE SET fingerprint = excluded.fingerprint, expires_at = excluded.expires_at
            """,
            project,
            run,
            self._timings.ttl,
            [unit.step for unit, _ in waiting],
            [row["fingerprint"] for _, row in waiting],
        )
        _waits.add(len(waiting), {"periplus.outcome": "waits"})
        _waits.add(len(taking.waiting) - len(waiting), {"periplus.outcome": "deadlock"})

    async def release(self, project: str, run: str, steps: Collection[str]) -> None:
        async with self._database.transaction() as connection:
            await connection.execute(
                "DELETE FROM lease_wait WHERE project = $1 AND run = $2 AND step = ANY ($3::text[])",
                project,
                run,
                list(steps),
            )
            tokens = await connection.fetch(
                "SELECT token FROM lease WHERE project = $1 AND run = $2 AND step = ANY ($3::text[])",
                project,
                run,
                list(steps),
            )
            await end(connection, [], [row["token"] for row in tokens])

    async def renew(
        self, project: str, states: Mapping[int, LeaseState], waiting_runs: Collection[str]
    ) -> list[int]:
        async with self._database.transaction() as connection:
            await connection.execute(
                "UPDATE lease_wait SET expires_at = now() + $3 WHERE project = $1 AND run = ANY ($2::text[])",
                project,
                list(waiting_runs),
                self._timings.ttl,
            )
            rows = await connection.fetch(
                """
                WITH wanted AS (
                    SELECT * FROM unnest($2::bigint[], $3::boolean[], $4::boolean[]) AS wanted (token, is_started, is_ended)
                ), locked AS (
                    SELECT project, fingerprint, wanted.* FROM lease JOIN wanted USING (token)
                    WHERE project = $1 ORDER BY fingerprint FOR UPDATE OF lease
                )
                UPDATE lease SET
                    is_started = lease.is_started OR locked.is_started,
                    expires_at = CASE WHEN locked.is_ended THEN least(lease.expires_at, now() + $6) ELSE now() + $5 END
                FROM locked WHERE lease.project = $1 AND lease.fingerprint = locked.fingerprint
                RETURNING lease.token
                """,
                project,
                list(states),
                [state is not LeaseState.RESERVED for state in states.values()],
                [state is LeaseState.ENDED for state in states.values()],
                self._timings.ttl,
                self._timings.grace,
            )
        current = {row["token"] for row in rows}
        return [token for token in states if token not in current]

    async def end_run(self, project: str, run: str) -> None:
        async with self._database.transaction() as connection:
            await connection.execute("DELETE FROM lease_wait WHERE project = $1 AND run = $2", project, run)
            await connection.execute(
                """
                UPDATE lease SET expires_at = least(lease.expires_at, now() + $3)
                FROM (
                    SELECT fingerprint FROM lease WHERE project = $1 AND run = $2 ORDER BY fingerprint FOR UPDATE
                ) AS locked
                WHERE lease.project = $1 AND lease.fingerprint = locked.fingerprint
                """,
                project,
                run,
                self._timings.grace,
            )


class _Taking:
    """Which units of a run get leases, given the rows of their fingerprints.

    `granted` are those with the token that they hold already, or None. `expired` are the tokens of other runs that are taken over.
    `waiting` are those of them that are ready and wait, with the row; `ready` the steps that ACQUIRE.
    """

    def __init__(self, run: str, rows: Mapping[str, Row]) -> None:
        self._run, self._rows = run, rows
        self.granted: list[tuple[LeaseUnit, int | None]] = []
        self.expired: set[int] = set()
        self.waiting: list[tuple[LeaseUnit, Row]] = []
        self.ready: list[str] = []
        self.outcomes: dict[str, LeaseOutcome] = {}

    def decide(self, units: Sequence[LeaseUnit]) -> None:
        blocked = {unit.id: row for unit in units if (row := self._blocking(unit)) is not None}
        blocked_fan_outs = {unit.fan_out for unit in units if unit.id in blocked and unit.fan_out}
        claimed: set[str] = set()
        waiting_fan_outs: set[str] = set()
        for unit in units:
            if unit.mode is LeaseMode.ACQUIRE:
                self.ready.append(unit.step)
            row = blocked.get(unit.id)
            if row is not None:
                self.outcomes[unit.id] = LeaseOutcome(awaited=_lease(row))
                # All items of a fan-out wait for one answer: it waits for one at a time.
                if unit.mode is LeaseMode.ACQUIRE and unit.fan_out not in waiting_fan_outs:
                    self.waiting.append((unit, row))
                    waiting_fan_outs.update({unit.fan_out} - {""})
            elif unit.may_hold and unit.mode is not LeaseMode.NONE and unit.fan_out not in blocked_fan_outs:
                if claimed.isdisjoint(unit.fingerprints):
                    self._grant(unit)
                    claimed.update(unit.fingerprints)

    def _blocking(self, unit: LeaseUnit) -> Row | None:
        """The row of another run's lease for which a unit has to wait."""
        for fingerprint in (*unit.fingerprints, *unit.others):
            row = self._rows.get(fingerprint)
            if row is not None and row["is_live"] and row["run"] != self._run:
                return row
        return None

    def _grant(self, unit: LeaseUnit) -> None:
        rows = [self._rows[f] for f in unit.fingerprints if f in self._rows]
        own = [row for row in rows if row["run"] == self._run and row["step"] == unit.step]
        if any(row["run"] == self._run and row["step"] != unit.step and row["is_live"] for row in rows):
            return  # another step of the run does the same: a run does not wait for itself
        self.granted.append((unit, own[0]["token"] if own else None))
        self.expired.update(row["token"] for row in rows if row not in own)


Holder = tuple[str, str, str]
"""Project, run and step."""


async def lock_current(connection: Connection, tokens: Collection[int]) -> Mapping[int, Holder]:
    """Those of the tokens that are current, with who holds the lease. They stay current until the transaction ends."""
    if not tokens:
        return {}
    rows = await connection.fetch(
        """
        SELECT token, project, run, step FROM lease
        WHERE token = ANY ($1::bigint[]) ORDER BY project, fingerprint FOR UPDATE
        """,
        list(tokens),
    )
    return {row["token"]: (row["project"], row["run"], row["step"]) for row in rows}


async def end(connection: Connection, failed: Iterable[int], recorded: Iterable[int]) -> None:
    """End leases by token, and notify those who wait for them.

    The lease of a step that failed has expired, and stays current: the step may be retried if no other run takes it over.
    """
    all_failed, all_recorded = list(failed), list(recorded)
    if not all_failed and not all_recorded:
        return
    awaited = await connection.fetchval(
        """
        WITH ended AS (
            UPDATE lease SET expires_at = now() FROM (
                SELECT project, fingerprint FROM lease
                WHERE token = ANY ($1::bigint[]) ORDER BY project, fingerprint FOR UPDATE
            ) AS locked
            WHERE (lease.project, lease.fingerprint) = (locked.project, locked.fingerprint)
            RETURNING lease.project, lease.fingerprint
        ), deleted AS (
            DELETE FROM lease USING (
                SELECT project, fingerprint FROM lease
                WHERE token = ANY ($2::bigint[]) ORDER BY project, fingerprint FOR UPDATE
            ) AS locked
            WHERE (lease.project, lease.fingerprint) = (locked.project, locked.fingerprint)
            RETURNING lease.project, lease.fingerprint
        )
        SELECT EXISTS (
            SELECT FROM lease_wait
            JOIN (SELECT * FROM ended UNION ALL SELECT * FROM deleted) AS over USING (project, fingerprint)
        )
        """,
        all_failed,
        all_recorded,
    )
    if awaited:
        await connection.execute(f"SELECT pg_notify('{CHANNEL}_' || current_schema(), '')")


def _all_fingerprints(units: Sequence[LeaseUnit]) -> list[bytes]:
    found = {fingerprint for unit in units for fingerprint in (*unit.fingerprints, *unit.others)}
    return [encode_digest(fingerprint) for fingerprint in sorted(found)]


def _lease(row: Row) -> Lease:
    return Lease(row["token"], row["run"], row["step"], row["acquired_at"])
