"""Artifacts at steps out: what lies one edge from some nodes, each answer from one statement or two."""

from collections.abc import Collection, Iterable, Sequence
from functools import partial
from typing import Any

from periplus_common.postgres import Database, Row
from periplus_lineage.domain.graph import Flow, Instance, Origin, StepKey
from periplus_lineage.store.bound import bounded

# A row of `flow` as the end of an edge.
_FLOW = "f.run, f.path, f.name, f.place, f.object, coalesce(f.digest, contents(f.place)) AS digest, f.cached"


class FlowStore:
    """Answers who wrote and who read what."""

    def __init__(self, database: Database) -> None:
        self._fetch = partial(bounded, database)

    async def flows(self, project: str, steps: Collection[StepKey], *, made: bool) -> list[Flow]:
        """What the steps made, or were given."""
        rows = await self._fetch(
            f"""
            SELECT {_FLOW} FROM unnest($2::text[], $3::text[]) AS s (run, path)
            JOIN flow AS f ON f.project = $1 AND f.run = s.run AND f.path = s.path AND f.made = $4
            """,  # noqa: S608 - a constant
            project,
            *_keys(steps),
            made,
        )
        return [_flow(row) for row in rows]

    async def outputs(self, project: str, run: str) -> list[Flow]:
        """What all steps of a run made, cached ones included."""
        rows = await self._fetch(
            f"SELECT {_FLOW} FROM flow AS f WHERE f.project = $1 AND f.run = $2 AND f.made",  # noqa: S608
            project,
            run,
        )
        return [_flow(row) for row in rows]

    async def barren(self, project: str, run: str) -> list[StepKey]:
        """The steps of a run that made no artifact."""
        rows = await self._fetch(
            """
            SELECT s.run, s.path FROM real_step AS s WHERE s.project = $1 AND s.run = $2 AND NOT EXISTS (
                SELECT FROM flow AS f
                WHERE f.project = s.project AND f.run = s.run AND f.path = s.path AND f.made)
            """,
            project,
            run,
        )
        return [StepKey(row["run"], row["path"]) for row in rows]

    async def at(self, places: Collection[bytes]) -> list[Instance]:
        """What was found at places."""
        rows = await self._fetch(
            """
            SELECT DISTINCT f.place, f.object, coalesce(f.digest, contents(f.place)) AS digest
            FROM flow AS f WHERE f.place = ANY($1::bytea[])
            """,
            list(places),
        )
        return [_instance(row) for row in rows]

    async def of(self, project: str, digest: bytes) -> list[Instance]:
        """Every place where some contents were found."""
        rows = await self._fetch(
            "SELECT DISTINCT f.place, f.object, f.digest FROM flow AS f WHERE f.digest = $2 AND f.project = $1",
            project,
            digest,
        )
        return [_instance(row) for row in rows]

    async def makers(self, project: str, instances: Collection[Instance]) -> list[tuple[Instance, Flow]]:
        """Who wrote the artifacts: at their places, else the same bytes elsewhere; from the cache only as a last resort."""
        asked = list(instances)
        rows = await self._fetch(
            f"""
            SELECT i.n, {_FLOW}
            FROM unnest($1::bytea[], $2::bytea[]) WITH ORDINALITY AS i (place, digest, n)
            JOIN flow AS f ON f.place = i.place AND f.made
                AND (f.digest = i.digest OR f.digest IS NULL OR i.digest IS NULL)
            """,  # noqa: S608 - a constant
            *_columns(asked),
        )
        found = _at(asked, rows)
        made = {instance for instance, _ in found}
        orphans = [instance for instance in asked if instance.digest and instance not in made]
        if orphans:
            rows = await self._fetch(
                f"""
                SELECT i.n, {_FLOW} FROM unnest($2::bytea[]) WITH ORDINALITY AS i (digest, n)
                JOIN flow AS f ON f.digest = i.digest AND f.made AND f.project = $1
                """,  # noqa: S608 - a constant
                project,
                [instance.digest for instance in orphans],
            )
            found += _at(orphans, rows)
        really = {instance for instance, flow in found if not flow.cached}
        return [(instance, flow) for instance, flow in found if not flow.cached or instance not in really]

    async def users(self, project: str, instances: Collection[Instance]) -> list[tuple[Instance, Flow]]:
        """Who was given the artifacts: at their places, and at places with the same bytes that nobody wrote."""
        asked = list(instances)
        places, digests = _columns(asked)
        rows = await self._fetch(
            f"""
            SELECT i.n, {_FLOW}
            FROM unnest($2::bytea[], $3::bytea[]) WITH ORDINALITY AS i (place, digest, n)
            JOIN flow AS f ON f.place = i.place AND NOT f.made
                AND (f.digest = i.digest OR f.digest IS NULL OR i.digest IS NULL)
            UNION ALL
            SELECT i.n, {_FLOW}
            FROM unnest($2::bytea[], $3::bytea[]) WITH ORDINALITY AS i (place, digest, n)
            JOIN flow AS f ON f.digest = i.digest AND NOT f.made AND f.project = $1 AND f.place <> i.place
                AND NOT EXISTS (SELECT FROM flow AS m
                    WHERE m.place = f.place AND m.made AND (m.digest IS NULL OR m.digest = f.digest))
            """,  # noqa: S608 - a constant
            project,
            places,
            digests,
        )
        return _at(asked, rows)

    async def origins(self, instances: Collection[Instance]) -> dict[Instance, Origin]:
        """Of artifacts that were made where they lie: who made them first, really if possible."""
        asked = list(instances)
        rows = await self._fetch(
            """
            SELECT i.n, o.* FROM unnest($1::bytea[], $2::bytea[]) WITH ORDINALITY AS i (place, digest, n)
            CROSS JOIN LATERAL (
                SELECT f.run, f.name, f.size, s.finished_at FROM flow AS f
                LEFT JOIN step AS s ON s.project = f.project AND s.run = f.run AND s.path = f.path
                WHERE f.place = i.place AND f.made
                    AND (f.digest = i.digest OR f.digest IS NULL OR i.digest IS NULL)
                ORDER BY f.cached, s.finished_at NULLS LAST, f.run, f.path, f.name LIMIT 1
            ) AS o
            """,
            *_columns(asked),
        )
        origins = {}
        for row in rows:
            instance = asked[row["n"] - 1]
            origins[instance] = Origin(row["run"], row["name"], instance, row["size"], row["finished_at"])
        return origins


def _keys(steps: Collection[StepKey]) -> list[Sequence[Any]]:
    return list(zip(*steps, strict=True)) or [(), ()]


def _columns(instances: Sequence[Instance]) -> tuple[list[Any], list[Any]]:
    return [i.place for i in instances], [i.digest for i in instances]


def _instance(row: Row) -> Instance:
    return Instance(row["place"], row["object"], row["digest"])


def _flow(row: Row) -> Flow:
    return Flow(StepKey(row["run"], row["path"]), row["name"], _instance(row), row["cached"])


def _at(asked: Sequence[Instance], rows: Iterable[Row]) -> list[tuple[Instance, Flow]]:
    return [(asked[row["n"] - 1], _flow(row)) for row in rows]
