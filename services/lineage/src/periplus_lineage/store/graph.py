"""Queries of the graph: the edges at some nodes, each answer from one statement or two."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from periplus_common.errors import Refused
from periplus_common.postgres import Database, Row
from periplus_lineage.graph.model import ArtifactUsage, ArtifactVersion, StepDependency, StepKey, Writer
from periplus_lineage.runs.model import enclosing_fan_outs, placeholder_path

MAX_ROWS = 200_000

_USAGE = """
    u.run, u.step, u.name, u.object_hash, u.object_uri, coalesce(u.digest, object_digest(u.object_hash)) AS digest,
    u.cached
"""


class PostgresGraph:
    """Implements `GraphStore`. `max_rows` bounds what one query loads into memory."""

    def __init__(self, database: Database, max_rows: int = MAX_ROWS) -> None:
        self._database = database
        self._max_rows = max_rows

    async def _fetch(self, sql: str, *arguments: object) -> Sequence[Row]:
        """The rows of a query. Raises `Refused` if there are too many."""
        async with self._database.connection() as connection:
            rows: Sequence[Row] = await connection.fetch(f"{sql} LIMIT {self._max_rows + 1}", *arguments)
        if len(rows) > self._max_rows:
            raise Refused(
                f"the traversal meets more than {self._max_rows:,} edges at once",
                reason="TRAVERSAL_TOO_LARGE",
                fix="start from a step of a run, or use a smaller depth",
            )
        return rows

    # Steps

    async def step_exists(self, project: str, step: StepKey) -> bool:
        """Whether an event of the step was received."""
        sql = "SELECT FROM step WHERE project = $1 AND run = $2 AND path = $3"
        return bool(await self._fetch(sql, project, *step))

    async def upstream_steps(self, project: str, steps: Collection[StepKey]) -> list[StepDependency]:
        """The steps that these waited for or were served the outputs of, unless an artifact connects the two.

        An item of a fan-out waits for what the fan-out waits for. A step that was served the outputs of another
        depends on that one alone, and not on what it would have waited for.
        """
        keys = [
            (*step, plan_path, _outermost_item(step.path))
            for step in steps
            for plan_path in {step.path, placeholder_path(step.path), *enclosing_fan_outs(step.path)}
        ]
        rows = await self._fetch(
            """
            SELECT DISTINCT c.run, c.path, d.upstream_run, coalesce(p.path, d.upstream_step) AS upstream_step, d.cached
            FROM unnest($2::text[], $3::text[], $4::text[], $5::text[]) AS c (run, path, plan_path, item)
            JOIN step_dependency AS d ON d.project = $1 AND d.run = c.run AND d.step = c.plan_path
            CROSS JOIN LATERAL (SELECT replace(d.upstream_step, '(*)', c.item)) AS f (path)
            LEFT JOIN LATERAL (
                SELECT s.path FROM actual_step AS s
                WHERE s.project = $1 AND s.run = d.upstream_run AND s.path = f.path
                UNION ALL
                SELECT s.path FROM actual_step AS s WHERE NOT d.cached AND s.project = $1 AND s.run = d.upstream_run
                    AND s.path >= f.path || '(' AND s.path < f.path || ')'
                UNION ALL
                SELECT s.path FROM actual_step AS s WHERE NOT d.cached AND s.project = $1 AND s.run = d.upstream_run
                    AND s.path >= f.path || '.' AND s.path < f.path || '/'
            ) AS p ON true
            WHERE (p.path IS NOT NULL OR d.cached) AND (d.cached OR NOT EXISTS (
                SELECT FROM step_dependency AS k
                WHERE k.project = $1 AND k.run = c.run AND k.step = c.path AND k.cached
            ) AND NOT EXISTS (
                SELECT FROM artifact_usage AS i JOIN artifact_usage AS o ON o.object_hash = i.object_hash AND o.is_output
                WHERE i.project = $1 AND i.run = c.run AND i.step = c.path AND NOT i.is_output
                    AND o.project = $1 AND o.run = d.upstream_run AND o.step = p.path))
            """,
            project,
            *_columns(keys, 4),
        )
        return [_dependency(row) for row in rows]

    async def downstream_steps(self, project: str, steps: Collection[StepKey]) -> list[StepDependency]:
        """The steps that waited for these or were served their outputs, unless an artifact connects the two."""
        keys = [
            (*step, plan_path, _outermost_item(step.path))
            for step in steps
            for plan_path in {step.path, placeholder_path(step.path), *_enclosing(step.path)}
        ]
        rows = await self._fetch(
            """
            SELECT DISTINCT d.run, c.path, p.run AS upstream_run, p.path AS upstream_step, d.cached
            FROM unnest($2::text[], $3::text[], $4::text[], $5::text[]) AS p (run, path, plan_path, item)
            JOIN step_dependency AS d ON d.project = $1 AND d.upstream_run = p.run AND d.upstream_step = p.plan_path
                AND (p.plan_path = p.path OR NOT d.cached)
            CROSS JOIN LATERAL (SELECT replace(d.step, '(*)', p.item)) AS t (path)
            JOIN LATERAL (
                SELECT s.path FROM actual_step AS s
                WHERE s.project = $1 AND s.run = d.run AND s.path = t.path
                UNION ALL
                SELECT s.path FROM actual_step AS s WHERE NOT d.cached AND s.project = $1 AND s.run = d.run
                    AND s.path >= t.path || '(' AND s.path < t.path || ')'
            ) AS c ON true
            WHERE d.cached OR NOT EXISTS (
                SELECT FROM step_dependency AS k
                WHERE k.project = $1 AND k.run = d.run AND k.step = c.path AND k.cached
            ) AND NOT EXISTS (
                SELECT FROM artifact_usage AS i JOIN artifact_usage AS o ON o.object_hash = i.object_hash AND o.is_output
                WHERE i.project = $1 AND i.run = d.run AND i.step = c.path AND NOT i.is_output
                    AND o.project = $1 AND o.run = p.run AND o.step = p.path)
            """,
            project,
            *_columns(keys, 4),
        )
        return [_dependency(row) for row in rows]

    # Artifacts of steps

    async def usages(self, project: str, steps: Collection[StepKey], *, outputs: bool) -> list[ArtifactUsage]:
        """The outputs, or the inputs, of the steps."""
        rows = await self._fetch(
            f"""
            SELECT {_USAGE} FROM unnest($2::text[], $3::text[]) AS s (run, path)
            JOIN artifact_usage AS u
                ON u.project = $1 AND u.run = s.run AND u.step = s.path AND u.is_output = $4
            """,  # noqa: S608 - a constant
            project,
            *_columns(steps, 2),
            outputs,
        )
        return [_usage(row) for row in rows]

    async def run_outputs(self, project: str, run: str) -> list[ArtifactUsage]:
        """The output artifacts of all steps of a run, cached ones included."""
        rows = await self._fetch(
            f"SELECT {_USAGE} FROM artifact_usage AS u WHERE u.project = $1 AND u.run = $2 AND u.is_output",  # noqa: S608
            project,
            run,
        )
        return [_usage(row) for row in rows]

    async def steps_without_artifacts(self, project: str, run: str) -> list[StepKey]:
        """The steps of a run that have no output artifact."""
        rows = await self._fetch(
            """
            SELECT s.run, s.path FROM actual_step AS s WHERE s.project = $1 AND s.run = $2 AND NOT EXISTS (
                SELECT FROM artifact_usage AS u
                WHERE u.project = s.project AND u.run = s.run AND u.step = s.path AND u.is_output)
            """,
            project,
            run,
        )
        return [StepKey(row["run"], row["path"]) for row in rows]

    # Versions of artifacts

    async def versions_of_object(self, object_hash: bytes) -> list[ArtifactVersion]:
        """The contents that an object is known to have held."""
        rows = await self._fetch(
            """
            SELECT DISTINCT u.object_hash, u.object_uri, coalesce(u.digest, object_digest(u.object_hash)) AS digest
            FROM artifact_usage AS u WHERE u.object_hash = $1
            """,
            object_hash,
        )
        return [_version(row) for row in rows]

    async def versions_with_digest(self, project: str, digest: bytes) -> list[ArtifactVersion]:
        """The objects that are known to have held a content."""
        rows = await self._fetch(
            """
            SELECT DISTINCT u.object_hash, u.object_uri, u.digest
            FROM artifact_usage AS u WHERE u.digest = $2 AND u.project = $1
            """,
            project,
            digest,
        )
        return [_version(row) for row in rows]

    async def writers(
        self, project: str, versions: Collection[ArtifactVersion]
    ) -> list[tuple[ArtifactVersion, ArtifactUsage]]:
        """The steps that wrote the versions; if none is known, those that wrote the same bytes to other objects.

        Steps that were served the outputs are returned only for versions without any other writer.
        """
        listed = list(versions)
        rows = await self._fetch(
            f"""
            SELECT v.n, {_USAGE}
            FROM unnest($1::bytea[], $2::bytea[]) WITH ORDINALITY AS v (object_hash, digest, n)
            JOIN artifact_usage AS u ON u.object_hash = v.object_hash AND u.is_output
                AND (u.digest = v.digest OR u.digest IS NULL OR v.digest IS NULL)
            """,  # noqa: S608 - a constant
            *_hashes_and_digests(listed),
        )
        found = _by_version(listed, rows)
        written = {version for version, _ in found}
        copies = [version for version in listed if version.digest and version not in written]
        if copies:
            rows = await self._fetch(
                f"""
                SELECT v.n, {_USAGE} FROM unnest($2::bytea[]) WITH ORDINALITY AS v (digest, n)
                JOIN artifact_usage AS u ON u.digest = v.digest AND u.is_output AND u.project = $1
                """,  # noqa: S608 - a constant
                project,
                [version.digest for version in copies],
            )
            found += _by_version(copies, rows)
        produced = {version for version, usage in found if not usage.cached}
        return [(version, usage) for version, usage in found if not usage.cached or version not in produced]

    async def readers(
        self, project: str, versions: Collection[ArtifactVersion]
    ) -> list[tuple[ArtifactVersion, ArtifactUsage]]:
        """The steps that read the versions, or the same bytes from objects of which no writer is known."""
        listed = list(versions)
        hashes, digests = _hashes_and_digests(listed)
        rows = await self._fetch(
            f"""
            SELECT v.n, {_USAGE}
            FROM unnest($2::bytea[], $3::bytea[]) WITH ORDINALITY AS v (object_hash, digest, n)
            JOIN artifact_usage AS u ON u.object_hash = v.object_hash AND NOT u.is_output
                AND (u.digest = v.digest OR u.digest IS NULL OR v.digest IS NULL)
            UNION ALL
            SELECT v.n, {_USAGE}
            FROM unnest($2::bytea[], $3::bytea[]) WITH ORDINALITY AS v (object_hash, digest, n)
            JOIN artifact_usage AS u ON u.digest = v.digest AND NOT u.is_output AND u.project = $1
                AND u.object_hash <> v.object_hash
                AND NOT EXISTS (SELECT FROM artifact_usage AS o
                    WHERE o.object_hash = u.object_hash AND o.is_output
                        AND (o.digest IS NULL OR o.digest = u.digest))
            """,  # noqa: S608 - a constant
            project,
            hashes,
            digests,
        )
        return _by_version(listed, rows)

    async def first_writers(self, versions: Collection[ArtifactVersion]) -> dict[ArtifactVersion, Writer]:
        """The first writers of the versions; one that was served the output only if there is no other."""
        listed = list(versions)
        rows = await self._fetch(
            """
            SELECT v.n, w.*
            FROM unnest($1::bytea[], $2::bytea[]) WITH ORDINALITY AS v (object_hash, digest, n)
            CROSS JOIN LATERAL (
                SELECT u.run, u.name, u.size_bytes, s.finished_at FROM artifact_usage AS u
                LEFT JOIN step AS s ON s.project = u.project AND s.run = u.run AND s.path = u.step
                WHERE u.object_hash = v.object_hash AND u.is_output
                    AND (u.digest = v.digest OR u.digest IS NULL OR v.digest IS NULL)
                ORDER BY u.cached, s.finished_at NULLS LAST, u.run, u.step, u.name LIMIT 1
            ) AS w
            """,
            *_hashes_and_digests(listed),
        )
        writers = {}
        for row in rows:
            version = listed[row["n"] - 1]
            writers[version] = Writer(
                run=row["run"],
                output=row["name"],
                version=version,
                size_bytes=row["size_bytes"],
                finished_at=row["finished_at"],
            )
        return writers


def _enclosing(path: str) -> set[str]:
    """The fan-outs and template invocations that contain the step: "a", "a(1)" for "a(1).b"."""
    return {path[:at] for at in range(1, len(path)) if path[at] in "(."}


def _outermost_item(path: str) -> str:
    """The item of the outermost fan-out that contains the step, "(1)" for "a(1).b"."""
    _, bracket, rest = path.partition("(")
    return bracket + rest.partition(")")[0] + ")" if bracket else ""


def _columns(rows: Collection[Sequence[Any]], width: int) -> list[Sequence[Any]]:
    return list(zip(*rows, strict=True)) or [()] * width


def _hashes_and_digests(versions: Sequence[ArtifactVersion]) -> tuple[list[bytes], list[bytes | None]]:
    return [version.object_hash for version in versions], [version.digest for version in versions]


def _version(row: Row) -> ArtifactVersion:
    return ArtifactVersion(row["object_hash"], row["object_uri"], row["digest"])


def _usage(row: Row) -> ArtifactUsage:
    return ArtifactUsage(StepKey(row["run"], row["step"]), row["name"], _version(row), row["cached"])


def _by_version(
    versions: Sequence[ArtifactVersion], rows: Iterable[Row]
) -> list[tuple[ArtifactVersion, ArtifactUsage]]:
    return [(versions[row["n"] - 1], _usage(row)) for row in rows]


def _dependency(row: Row) -> StepDependency:
    upstream = StepKey(row["upstream_run"], row["upstream_step"])
    return StepDependency(StepKey(row["run"], row["path"]), upstream, row["cached"])
