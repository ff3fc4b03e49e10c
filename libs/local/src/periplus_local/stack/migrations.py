"""Migrations as jobs of the stack: each service's own, run only when its scripts have changed."""

from __future__ import annotations

import hashlib
import sys
from functools import partial
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg

from periplus_local.stack.part import Part

if TYPE_CHECKING:
    from collections.abc import Mapping

    from periplus_local.stack.home import Home

_SHARED = "periplus_common"


def part(home: Home, service: str, dsn: str, env: Mapping[str, str]) -> Part:
    """The job that migrates a service's schema.

    What was applied is noted on the schema itself, so that the note is lost with the data.
    """
    stamp = _stamp(service)
    return Part(
        name=f"{service}-migrate",
        command=(sys.executable, "-m", f"periplus_{service}", "migrate"),
        directory=home.run,
        after=("postgres",),
        env=env,
        once=True,
        needed=partial(_differs, dsn, service, stamp),
        provision=partial(_note, dsn, service, stamp),
    )


def _stamp(service: str) -> str:
    """A digest of everything that decides what a migration does."""
    digest = hashlib.sha256()
    for package in (_SHARED, f"periplus_{service}"):
        spec = util.find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            for file in sorted([*Path(folder).glob("migrations/*"), Path(folder) / "__main__.py"]):
                if file.is_file():
                    digest.update(f"{package}/{file.name}\0".encode())
                    digest.update(file.read_bytes() + b"\0")
    return f"migrated {digest.hexdigest()}"


async def _differs(dsn: str, schema: str, stamp: str) -> bool:
    connection = await asyncpg.connect(dsn, timeout=5)
    try:
        noted = await connection.fetchval(
            "SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = $1", schema
        )
    finally:
        await connection.close()
    return bool(noted != stamp)


async def _note(dsn: str, schema: str, stamp: str) -> None:
    connection = await asyncpg.connect(dsn, timeout=5)
    try:
        # A statement of this kind takes no arguments; neither text has a quote in it.
        await connection.execute(f"""COMMENT ON SCHEMA "{schema}" IS '{stamp}'""")
    finally:
        await connection.close()
