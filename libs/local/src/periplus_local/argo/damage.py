"""A state file that was damaged: said, set aside, and what of it is whole taken over into a new one."""

import logging
import sqlite3
from contextlib import closing
from pathlib import Path

log = logging.getLogger(__name__)
ALL = {
    "template": "SELECT * FROM template",
    "tombstone": "SELECT * FROM tombstone",
    "counter": "SELECT * FROM counter",
}
SPOILED = (
    (
        "SELECT uid FROM workflow WHERE NOT (json_valid(metadata) AND json_valid(spec) AND json_valid(status)"
        " AND json_valid(control))"
    ),
    "SELECT DISTINCT uid FROM node JOIN workflow USING (uid) WHERE NOT completed AND NOT json_valid(body)",
)


def opened(path: Path, schema: str) -> sqlite3.Connection:
    """The base in the file; RuntimeError when the file cannot be used at all, as on a disk that is full.

    Of a damaged file every workflow that can be read in full goes on; the others are in the file set aside.
    """
    try:
        base = _opened(path, schema)
        if not (wrong := _wrong(base)):
            return base
        base.close()
    except sqlite3.OperationalError as error:
        raise RuntimeError(f"{path}: {error}") from error
    except sqlite3.DatabaseError as error:
        wrong = str(error)
    aside = _set_aside(path)
    base = _opened(path, schema)
    with closing(sqlite3.connect(aside)) as damaged:
        taken, lost = _taken_over(damaged, base)
    log.error(
        "%s is damaged (%s): it was set aside as %s; %d workflows were taken over%s",
        path, wrong, aside, taken, f", and these were not: {', '.join(lost)}" if lost else "",
    )  # fmt: skip
    return base


def _opened(path: Path, schema: str) -> sqlite3.Connection:
    path.touch(mode=0o600)
    base = sqlite3.connect(path, isolation_level=None)
    try:
        base.execute("PRAGMA journal_mode=WAL")
        base.execute("PRAGMA synchronous=NORMAL")
        base.executescript(schema)
    except BaseException:
        base.close()
        raise
    return base


def _wrong(base: sqlite3.Connection) -> str:
    """What is wrong with a file that could be opened; empty when nothing is."""
    told = str(base.execute("PRAGMA quick_check(1)").fetchone()[0])
    if told != "ok":
        return told
    spoiled = _spoiled(base)
    return f"{len(spoiled)} workflows are no JSON" if spoiled else ""


def _spoiled(base: sqlite3.Connection) -> set[str]:
    """The uids of workflows that could not be read; of those that have ended, the nodes may be anything."""
    return {str(uid) for query in SPOILED for (uid,) in base.execute(query)}


def _set_aside(path: Path) -> Path:
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    for tail in ("-wal", "-shm", ""):
        part = path.with_name(path.name + tail)
        if part.exists():
            part.rename(aside.with_name(aside.name + tail))
    return aside


def _taken_over(damaged: sqlite3.Connection, base: sqlite3.Connection) -> tuple[int, list[str]]:
    """Copy all that is whole; how many workflows that was, and what is known of the names of the others."""
    for table, query in ALL.items():
        _copied(damaged, base, table, query, ())
    uids = _column(damaged, "SELECT uid FROM workflow") or _column(damaged, "SELECT DISTINCT uid FROM node")
    taken, lost = 0, []
    for uid in uids:
        base.execute("BEGIN")
        whole = _copied(damaged, base, "workflow", "SELECT * FROM workflow WHERE uid = ?", (uid,))
        whole = whole and _copied(damaged, base, "node", "SELECT * FROM node WHERE uid = ?", (uid,))
        whole = whole and uid not in _spoiled(base)
        base.execute("COMMIT" if whole else "ROLLBACK")
        taken += whole
        lost += (
            [] if whole else [(_column(damaged, "SELECT name FROM workflow WHERE uid = ?", uid) or [uid])[0]]
        )
    return taken, lost


def _copied(
    damaged: sqlite3.Connection, base: sqlite3.Connection, table: str, query: str, values: tuple[str, ...]
) -> bool:
    try:
        rows = damaged.execute(query, values).fetchall()
        marks = ",".join("?" * len(rows[0])) if rows else ""
        base.executemany(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", rows)  # noqa: S608 - our own names
    except sqlite3.DatabaseError as error:
        log.warning("of the table %s: %s", table, error)
        return False
    return bool(rows) or table != "workflow"


def _column(damaged: sqlite3.Connection, query: str, *values: str) -> list[str]:
    """The values of a column, as far as they can be read."""
    found: list[str] = []
    try:
        for (value,) in damaged.execute(query, values):
            found.append(str(value))
    except sqlite3.DatabaseError:
        return found
    return found
