"""Steps after steps out: who waited for whom, and who has whose outputs."""

from collections.abc import Collection, Sequence
from functools import partial
from typing import Any

from periplus_common.postgres import Database, Row
from periplus_lineage.domain.graph import Link, StepKey
from periplus_lineage.domain.run import groups, starred
from periplus_lineage.store.bound import bounded


class LinkStore:
    """Answers which steps hang on which, where no artifact says so.

    A step that has its outputs from another one hangs on that alone, not on what it would have waited for.
    """

    def __init__(self, database: Database) -> None:
        self._fetch = partial(bounded, database)

    async def known(self, project: str, step: StepKey) -> bool:
        """Whether anything was told of a step."""
        sql = "SELECT FROM step WHERE project = $1 AND run = $2 AND path = $3"
        return bool(await self._fetch(sql, project, *step))

    async def sources(self, project: str, steps: Collection[StepKey]) -> list[Link]:
        """What the steps waited for, and whose outputs they have. An item of a fan-out waits as the fan-out does."""
        keys = [(*step, via, _item(step.path)) for step in steps for via in _called(step.path)]
        rows = await self._fetch(
            """
            SELECT DISTINCT c.run, c.path, l.from_run, coalesce(p.path, l.from_path) AS from_path, l.cached
            FROM unnest($2::text[], $3::text[], $4::text[], $5::text[]) AS c (run, path, via, item)
            JOIN link AS l ON l.project = $1 AND l.run = c.run AND l.path = c.via
            CROSS JOIN LATERAL (SELECT replace(l.from_path, '(*)', c.item)) AS f (path)
            LEFT JOIN LATERAL (
                SELECT s.path FROM real_step AS s
                WHERE s.project = $1 AND s.run = l.from_run AND s.path = f.path
                UNION ALL
                SELECT s.path FROM real_step AS s WHERE NOT l.cached AND s.project = $1 AND s.run = l.from_run
                    AND s.path >= f.path || '(' AND s.path < f.path || ')'
                UNION ALL
                SELECT s.path FROM real_step AS s WHERE NOT l.cached AND s.project = $1 AND s.run = l.from_run
                    AND s.path >= f.path || '.' AND s.path < f.path || '/'
            ) AS p ON true
            WHERE (p.path IS NOT NULL OR l.cached) AND (l.cached OR NOT EXISTS (
                SELECT FROM link AS k
                WHERE k.project = $1 AND k.run = c.run AND k.path = c.path AND k.cached
            ) AND NOT EXISTS (
                SELECT FROM flow AS g JOIN flow AS m ON m.place = g.place AND m.made
                WHERE g.project = $1 AND g.run = c.run AND g.path = c.path AND NOT g.made
                    AND m.project = $1 AND m.run = l.from_run AND m.path = p.path))
            """,
            project,
            *_rows(keys, 4),
        )
        return [_link(row) for row in rows]

    async def followers(self, project: str, steps: Collection[StepKey]) -> list[Link]:
        """What waited for the steps, or has its outputs from them."""
        keys = [(*step, via, _item(step.path)) for step in steps for via in _around(step.path)]
        rows = await self._fetch(
            """
            SELECT DISTINCT l.run, c.path, p.run AS from_run, p.path AS from_path, l.cached
            FROM unnest($2::text[], $3::text[], $4::text[], $5::text[]) AS p (run, path, via, item)
            JOIN link AS l ON l.project = $1 AND l.from_run = p.run AND l.from_path = p.via
                AND (p.via = p.path OR NOT l.cached)
            CROSS JOIN LATERAL (SELECT replace(l.path, '(*)', p.item)) AS t (path)
            JOIN LATERAL (
                SELECT s.path FROM real_step AS s
                WHERE s.project = $1 AND s.run = l.run AND s.path = t.path
                UNION ALL
                SELECT s.path FROM real_step AS s WHERE NOT l.cached AND s.project = $1 AND s.run = l.run
                    AND s.path >= t.path || '(' AND s.path < t.path || ')'
            ) AS c ON true
            WHERE l.cached OR NOT EXISTS (
                SELECT FROM link AS k
                WHERE k.project = $1 AND k.run = l.run AND k.path = c.path AND k.cached
            ) AND NOT EXISTS (
                SELECT FROM flow AS g JOIN flow AS m ON m.place = g.place AND m.made
                WHERE g.project = $1 AND g.run = l.run AND g.path = c.path AND NOT g.made
                    AND m.project = $1 AND m.run = p.run AND m.path = p.path)
            """,
            project,
            *_rows(keys, 4),
        )
        return [_link(row) for row in rows]


def _called(path: str) -> set[str]:
    """How a plan may call a step: itself, a fan-out that it is an item of, or the inside of a loop."""
    return {path, starred(path), *groups(path)}


def _around(path: str) -> set[str]:
    """How a plan may call what a step is, is an item of, or lies in."""
    return {path, starred(path)} | {path[:at] for at in range(1, len(path)) if path[at] in "(."}


def _item(path: str) -> str:
    """The item of the outermost loop that a step lies in, "(1)" for "a(1).b"."""
    _, opened, rest = path.partition("(")
    return opened + rest.partition(")")[0] + ")" if opened else ""


def _rows(rows: Sequence[Sequence[Any]], width: int) -> list[Sequence[Any]]:
    return list(zip(*rows, strict=True)) or [()] * width


def _link(row: Row) -> Link:
    return Link(StepKey(row["run"], row["path"]), StepKey(row["from_run"], row["from_path"]), row["cached"])
