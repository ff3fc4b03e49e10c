"""Recovery of a corrupted state file: it is set aside, and what can be read of it is copied to a new one."""

import json
import logging
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from periplus_manifest import measure
from periplus_manifest.bounds import MAX_NESTING

log = logging.getLogger(__name__)
# A manifest within the status, as the spec of a WorkflowTemplate, and what is around it.
MAX_STORED_NESTING = MAX_NESTING + 8
WHOLE_TABLES = {
    "template": "SELECT * FROM template",
    "deletion": "SELECT * FROM deletion",
    "counter": "SELECT * FROM counter",
}
# Uids of workflows that cannot be read. The nodes of an ended workflow are not needed to go on, and not checked.
CORRUPT_WORKFLOWS = (
    (
        "SELECT uid FROM workflow WHERE NOT (is_object(metadata) AND is_object(spec) AND is_object(status)"
        " AND is_object(control)) AND (:uid = '' OR uid = :uid)"
    ),
    (
        "SELECT DISTINCT uid FROM node JOIN workflow USING (uid) WHERE NOT completed AND NOT is_object(body)"
        " AND (:uid = '' OR uid = :uid)"
    ),
)


def open_or_recover(path: Path, schema: str) -> sqlite3.Connection:
    """The database in the file; raises RuntimeError when the file cannot be used, as on a full disk.

    Of a corrupted file the workflows that can be read in full are copied to a new file; the others are only in the
    file that was set aside.
    """
    try:
        db = _open(path, schema)
        if not (corruption := _corruption(db)):
            return db
        db.close()
    except sqlite3.OperationalError as error:
        raise RuntimeError(f"{path}: {error}") from error
    except sqlite3.DatabaseError as error:
        corruption = str(error)
    aside = _set_aside(path)
    db = _open(path, schema)
    with closing(sqlite3.connect(aside)) as corrupt:
        copied, lost = _copy_readable(corrupt, db)
    log.error(
        "%s is damaged (%s): it was set aside as %s; %d workflows were recovered%s",
        path, corruption, aside, copied, f", and these were lost: {', '.join(lost)}" if lost else "",
    )  # fmt: skip
    return db


def _open(path: Path, schema: str) -> sqlite3.Connection:
    path.touch(mode=0o600)
    db = sqlite3.connect(path, isolation_level=None)
    try:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        db.executescript(schema)
        db.create_function("is_object", 1, _is_object, deterministic=True)
    except BaseException:
        db.close()
        raise
    return db


def _is_object(text: Any) -> bool:
    """Whether a column is a JSON object that can be read and written again."""
    try:
        value = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return False
    return isinstance(value, dict) and measure.nesting(value) <= MAX_STORED_NESTING


def _corruption(db: sqlite3.Connection) -> str:
    """What is wrong with a file that could be opened; empty when nothing is."""
    answer = str(db.execute("PRAGMA quick_check(1)").fetchone()[0])
    if answer != "ok":
        return answer
    corrupt = _corrupt_workflows(db)
    return f"{len(corrupt)} workflows are no JSON" if corrupt else ""


def _corrupt_workflows(db: sqlite3.Connection, uid: str = "") -> set[str]:
    """The uids of the workflows, or of the one of that uid, that cannot be read."""
    return {str(each) for query in CORRUPT_WORKFLOWS for (each,) in db.execute(query, {"uid": uid})}


def _set_aside(path: Path) -> Path:
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    for suffix in ("-wal", "-shm", ""):
        file = path.with_name(path.name + suffix)
        if file.exists():
            file.rename(aside.with_name(aside.name + suffix))
    return aside


def _copy_readable(corrupt: sqlite3.Connection, db: sqlite3.Connection) -> tuple[int, list[str]]:
    """Copy what can be read: the number of workflows copied, and the names (or uids) of those that were not."""
    for table, query in WHOLE_TABLES.items():
        _copy(corrupt, db, table, query, ())
    uids = _column(corrupt, "SELECT uid FROM workflow") or _column(corrupt, "SELECT DISTINCT uid FROM node")
    copied, lost = 0, []
    for uid in uids:
        db.execute("BEGIN")
        is_whole = (
            _copy(corrupt, db, "workflow", "SELECT * FROM workflow WHERE uid = ?", (uid,))
            and _copy(corrupt, db, "node", "SELECT * FROM node WHERE uid = ?", (uid,))
            and not _corrupt_workflows(db, uid)
        )
        db.execute("COMMIT" if is_whole else "ROLLBACK")
        if is_whole:
            copied += 1
        else:
            lost.append((_column(corrupt, "SELECT name FROM workflow WHERE uid = ?", uid) or [uid])[0])
    return copied, lost


def _copy(
    corrupt: sqlite3.Connection, db: sqlite3.Connection, table: str, query: str, values: tuple[str, ...]
) -> bool:
    """Copy the rows of a query; False when they cannot be read, or a workflow has no row."""
    try:
        rows = corrupt.execute(query, values).fetchall()
        if not rows:
            return table != "workflow"
        marks = ",".join("?" * len(rows[0]))
        db.executemany(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", rows)  # noqa: S608 - our own names
    except sqlite3.DatabaseError as error:
        log.warning("of the table %s: %s", table, error)
        return False
    return True


def _column(corrupt: sqlite3.Connection, query: str, *values: str) -> list[str]:
    """The values of a column, up to the first that cannot be read."""
    found: list[str] = []
    try:
        for (value,) in corrupt.execute(query, values):
            found.append(str(value))
    except sqlite3.DatabaseError:
        return found
    return found
