"""Which rows are deleted once they are older than a setting.

A run is deleted with its steps, artifact usages and step dependencies. It stays while it is open, and while a run that
stays uses it, directly or through other runs: a traversal upstream from a run that stays is not changed by a deletion.
"""

from periplus_common.retention import KeepFor, Retention

BATCH_RUNS = 50
"""How many runs one statement deletes: a run may have tens of thousands of rows."""

# The runs that use d.run. A run uses another one
# - if a step of it was served the outputs of a step of the other run;
# - if it used an object that the other run wrote, or if the digest of that object is known from the other run;
# - if it read the same bytes as the other run wrote from an object of which no writer is known.
_USERS = """
    SELECT k.run FROM step_dependency AS k WHERE k.project = r.project AND k.upstream_run = d.run AND k.cached
    UNION ALL
    SELECT k.run FROM artifact_usage AS u JOIN artifact_usage AS k ON k.object_hash = u.object_hash
    WHERE u.project = r.project AND u.run = d.run AND k.run <> u.run AND (
        u.is_output AND (k.digest = u.digest OR k.digest IS NULL OR u.digest IS NULL)
        OR k.digest IS NULL AND u.digest IS NOT NULL)
    UNION ALL
    SELECT k.run FROM artifact_usage AS u
    JOIN artifact_usage AS k ON k.digest = u.digest AND NOT k.is_output AND k.project = u.project
    WHERE u.project = r.project AND u.run = d.run AND u.is_output AND k.run <> u.run AND NOT EXISTS (
        SELECT FROM artifact_usage AS w WHERE w.object_hash = k.object_hash AND w.is_output
            AND (w.digest IS NULL OR w.digest = k.digest))
"""

# The recursion ends at the first run that stays: `EXISTS` reads no more rows than it needs.
_DELETE_RUNS = f"""
    WITH expired AS MATERIALIZED (
        SELECT r.project, r.id FROM run AS r
        WHERE r.finished_at < now() - $1::interval AND NOT EXISTS (
            WITH RECURSIVE downstream (run, stays) AS (
                SELECT r.id, false
                UNION
                SELECT n.run, EXISTS (SELECT FROM run AS s WHERE s.project = r.project AND s.id = n.run
                    AND (s.finished_at IS NULL OR s.finished_at >= now() - $1::interval))
                FROM downstream AS d CROSS JOIN LATERAL ({_USERS}) AS n
            )
            SELECT FROM downstream WHERE stays
        )
        ORDER BY r.finished_at LIMIT $2::int FOR UPDATE SKIP LOCKED
    ), deleted_steps AS (
        DELETE FROM step AS s USING expired AS e WHERE s.project = e.project AND s.run = e.id
    ), deleted_usages AS (
        DELETE FROM artifact_usage AS u USING expired AS e WHERE u.project = e.project AND u.run = e.id
    ), deleted_dependencies AS (
        DELETE FROM step_dependency AS d USING expired AS e WHERE d.project = e.project AND d.run = e.id
    )
    DELETE FROM run AS r USING expired AS e WHERE r.project = e.project AND r.id = e.id
    """  # noqa: S608 - a constant

# A template that no step of a run of that age has. Younger runs stored theirs at most an hour before its `used_at`;
# the day allows for clocks that differ.
_DELETE_TEMPLATES = """
    DELETE FROM template WHERE ctid = ANY (ARRAY (
        SELECT t.ctid FROM template AS t
        WHERE t.used_at < now() - $1::interval - interval '1 day' AND NOT EXISTS (
            SELECT FROM run AS r JOIN step AS s ON s.project = r.project AND s.run = r.id
            WHERE r.project = t.project AND r.created_at < now() - $1::interval AND s.template_digest = t.digest)
        ORDER BY t.used_at LIMIT $2::int FOR UPDATE SKIP LOCKED
    ))
    """


def retentions(keep_runs: KeepFor, keep_snapshots: KeepFor) -> list[Retention]:
    """Of every table, in the order in which they refer to each other."""
    return [
        Retention("run", keep_runs, _DELETE_RUNS),
        Retention("template", keep_runs, _DELETE_TEMPLATES),
        Retention.older_than(
            "snapshot",
            "received_at",
            keep_snapshots,
            unless="EXISTS (SELECT FROM run WHERE run.project = candidate.project AND run.snapshot = candidate.id)",
        ),
    ]
