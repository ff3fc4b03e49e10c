"""Lists of packages, which snapshots and lockfiles share."""

from periplus_common.postgres import Connection
from periplus_snapshotter.snapshots.claim import Package, package_set_digest


async def add_package_set(connection: Connection, packages: tuple[Package, ...]) -> int:
    """The id of the list, which is stored if it is new, in the caller's transaction."""
    digest = package_set_digest(packages)
    # The lock keeps retention from deleting the list before the caller's rows refer to it.
    select = "SELECT id FROM package_set WHERE digest = $1 FOR KEY SHARE"
    present = await connection.fetchval(select, digest)
    if present is not None:
        return int(present)
    added = await connection.fetchval(
        "INSERT INTO package_set (digest) VALUES ($1) ON CONFLICT (digest) DO NOTHING RETURNING id", digest
    )
    if added is None:
        # A concurrent transaction stored it, and has committed: the insert waited for it.
        return int(await connection.fetchval(select, digest))
    if packages:
        await connection.execute(
            """
            INSERT INTO package (set_id, name, version, hashes)
            SELECT $1, name, version, string_to_array(hashes, ' ')
            FROM unnest($2::text[], $3::text[], $4::text[]) AS p (name, version, hashes)
            """,
            added,
            [package.name for package in packages],
            [package.version for package in packages],
            [" ".join(package.hashes) for package in packages],
        )
    return int(added)


async def get_packages(connection: Connection, set_id: int) -> tuple[Package, ...]:
    """The packages of a list, sorted."""
    rows = await connection.fetch("SELECT name, version, hashes FROM package WHERE set_id = $1", set_id)
    return tuple(sorted(Package(row["name"], row["version"], tuple(row["hashes"])) for row in rows))
