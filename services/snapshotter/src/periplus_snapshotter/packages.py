"""Lists of packages in Postgres: the part of the store that snapshots and lockfiles share."""

from periplus_common.postgres import Connection
from periplus_snapshotter.domain import Package, set_digest


async def add(connection: Connection, packages: tuple[Package, ...]) -> int:
    """The id of the list, which is stored if it is new. Part of the caller's transaction."""
    named = set_digest(packages)
    found = await connection.fetchval("SELECT id FROM package_set WHERE digest = $1", named)
    if found is not None:
        return int(found)
    added = await connection.fetchval(
        "INSERT INTO package_set (digest) VALUES ($1) ON CONFLICT (digest) DO NOTHING RETURNING id", named
    )
    if added is None:
        # Another transaction was first, and has committed: the conflict waited for it.
        return int(await connection.fetchval("SELECT id FROM package_set WHERE digest = $1", named))
    if packages:
        await connection.execute(
            """
            INSERT INTO package (set_id, name, version, hashes)
            SELECT $1, name, version, string_to_array(hashes, ' ')
            FROM unnest($2::text[], $3::text[], $4::text[]) AS one (name, version, hashes)
            """,
            added,
            [package.name for package in packages],
            [package.version for package in packages],
            [" ".join(package.hashes) for package in packages],
        )
    return int(added)


async def get(connection: Connection, set_id: int) -> tuple[Package, ...]:
    """The list, sorted."""
    rows = await connection.fetch("SELECT name, version, hashes FROM package WHERE set_id = $1", set_id)
    return tuple(sorted(Package(row["name"], row["version"], tuple(row["hashes"])) for row in rows))
