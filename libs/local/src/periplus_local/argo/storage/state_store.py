"""Workflows, their nodes and templates in one SQLite file.

Each change is one transaction, committed before any client hears of it. The journal is a write-ahead log, so a
killed process loses nothing; a new workflow, and what a client does to one, is also synced to disk before the client
is answered. A machine that loses its power may forget the last steps that ended, which are then run again.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from periplus_local.argo.storage.recovery import open_or_recover
from periplus_manifest.bounds import MAX_NODES, MAX_STATUS_BYTES

MAX_DELETIONS = 1_000
# More than a workflow reaches that is ended because it is too large.
MAX_STORED_CHARACTERS = 2 * MAX_STATUS_BYTES
SCHEMA = """
CREATE TABLE IF NOT EXISTS workflow (
  uid TEXT PRIMARY KEY, namespace TEXT NOT NULL, name TEXT NOT NULL,
  created_version INTEGER NOT NULL, version INTEGER NOT NULL, completed INTEGER NOT NULL,
  metadata TEXT NOT NULL, spec TEXT NOT NULL, status TEXT NOT NULL, control TEXT NOT NULL,
  UNIQUE (namespace, name));
CREATE INDEX IF NOT EXISTS workflow_version ON workflow (version);
CREATE TABLE IF NOT EXISTS node (
  uid TEXT NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (uid, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS deletion (
  version INTEGER PRIMARY KEY, namespace TEXT NOT NULL, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS template (
  kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, body TEXT NOT NULL,
  PRIMARY KEY (kind, namespace, name));
CREATE TABLE IF NOT EXISTS counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
"""


@dataclass(frozen=True)
class WorkflowRow:
    """A stored workflow without its nodes.

    `created_version` and `version` are the resource versions of its creation and of its last change. `control` is
    the server's own: held mutexes and the number of retries.
    """

    uid: str
    namespace: str
    name: str
    created_version: int
    version: int
    completed: bool
    metadata: dict[str, Any]
    spec: dict[str, Any]
    status: dict[str, Any]
    control: dict[str, Any]


class StateStore:
    """The SQLite file; to be used from one thread."""

    def __init__(self, path: Path) -> None:
        """Open or make the file, readable by its owner only; raises RuntimeError where that fails."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
        self._db = open_or_recover(path, SCHEMA)
        self.version = max(
            self._max_version("workflow"), self._max_version("deletion"), self._counter("version")
        )

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _max_version(self, table: str) -> int:
        query = f"SELECT coalesce(max(version), 0) FROM {table}"  # noqa: S608 - our own names
        return int(self._db.execute(query).fetchone()[0])

    def _counter(self, name: str) -> int:
        found = self._db.execute("SELECT value FROM counter WHERE name = ?", (name,)).fetchone()
        return int(found[0]) if found else 0

    def sync(self) -> None:
        """Sync all that was written to disk, so that it survives a loss of power."""
        self._db.execute("PRAGMA wal_checkpoint(FULL)")

    def next_version(self) -> int:
        """A resource version greater than any before it."""
        self.version += 1
        return self.version

    @contextmanager
    def _transaction(self, *, synced: bool = False) -> Iterator[sqlite3.Connection]:
        if synced:
            self._db.execute("PRAGMA synchronous=FULL")
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
        finally:
            if synced:
                self._db.execute("PRAGMA synchronous=NORMAL")

    def add(self, row: WorkflowRow) -> bool:
        """Store a new workflow, synced to disk; False when its name is taken."""
        values = (
            row.uid, row.namespace, row.name, row.created_version, row.version, row.completed,
            json.dumps(row.metadata), json.dumps(row.spec), json.dumps(row.status),
            json.dumps(row.control),
        )  # fmt: skip
        try:
            with self._transaction(synced=True) as db:
                db.execute("INSERT INTO workflow VALUES (?,?,?,?,?,?,?,?,?,?)", values)
        except sqlite3.IntegrityError:
            return False
        return True

    def update(
        self,
        row: WorkflowRow,
        fields_changed: bool,
        nodes: Iterable[tuple[str, bytes]],
        removed_nodes: Iterable[str],
    ) -> None:
        """Store what has changed of a workflow: its version, some nodes, and the row with `fields_changed`."""
        with self._transaction() as db:
            db.execute("UPDATE workflow SET version = ? WHERE uid = ?", (row.version, row.uid))
            if fields_changed:
                db.execute(
                    "UPDATE workflow SET completed = ?, metadata = ?, spec = ?, status = ?, control = ?"
                    " WHERE uid = ?",
                    (
                        row.completed,
                        json.dumps(row.metadata),
                        json.dumps(row.spec),
                        json.dumps(row.status),
                        json.dumps(row.control),
                        row.uid,
                    ),
                )
            for node in removed_nodes:
                db.execute("DELETE FROM node WHERE uid = ? AND id = ?", (row.uid, node))
            db.executemany(
                "INSERT INTO node VALUES (?,?,?) ON CONFLICT (uid, id) DO UPDATE SET body = excluded.body",
                [(row.uid, node, body.decode()) for node, body in nodes],
            )

    def delete(self, row: WorkflowRow, version: int, body: str) -> None:
        """Delete a workflow; its last `body` is kept among the last MAX_DELETIONS, for watches that resume."""
        with self._transaction() as db:
            db.execute("DELETE FROM node WHERE uid = ?", (row.uid,))
            db.execute("DELETE FROM workflow WHERE uid = ?", (row.uid,))
            db.execute("INSERT INTO deletion VALUES (?,?,?)", (version, row.namespace, body))
            oldest = "SELECT version FROM deletion ORDER BY version DESC LIMIT 1 OFFSET ?"
            found = db.execute(oldest, (MAX_DELETIONS,)).fetchone()
            if found:
                db.execute("DELETE FROM deletion WHERE version <= ?", found)
                db.execute("REPLACE INTO counter VALUES ('horizon', ?)", found)

    def horizon(self) -> int:
        """The resource version up to which deletions are forgotten: a watch cannot resume from before it."""
        return self._counter("horizon")

    def deletions(self, after: int) -> list[tuple[int, str, str]]:
        """Version, namespace and body of the workflows that were deleted after a version."""
        query = "SELECT version, namespace, body FROM deletion WHERE version > ? ORDER BY version"
        return list(self._db.execute(query, (after,)))

    def by_name(self, namespace: str, name: str) -> WorkflowRow | None:
        """The workflow of that name."""
        rows = self._rows("WHERE namespace = ? AND name = ?", (namespace, name))
        return next(rows, None)

    def by_uid(self, uid: str) -> WorkflowRow | None:
        """The workflow of that uid."""
        return next(self._rows("WHERE uid = ?", (uid,)), None)

    def incomplete(self) -> list[WorkflowRow]:
        """The workflows that have not ended, oldest first."""
        return list(self._rows("WHERE NOT completed ORDER BY created_version", ()))

    def workflows(self, namespace: str = "", after: int = -1) -> Iterator[WorkflowRow]:
        """The workflows of one namespace or, when it is empty, of all, that changed after a version; newest first."""
        where = "WHERE version > ? AND (? = '' OR namespace = ?) ORDER BY created_version DESC"
        return self._rows(where, (after, namespace, namespace))

    def _rows(self, where: str, values: tuple[Any, ...]) -> Iterator[WorkflowRow]:
        for found in self._db.execute(f"SELECT * FROM workflow {where}", values):  # noqa: S608 - our own texts
            uid, namespace, name, created_version, version, completed = found[:6]
            metadata, spec, status, control = (json.loads(text) for text in found[6:])
            yield WorkflowRow(
                uid=uid,
                namespace=namespace,
                name=name,
                created_version=created_version,
                version=version,
                completed=bool(completed),
                metadata=metadata,
                spec=spec,
                status=status,
                control=control,
            )

    def remove_oversized_nodes(self) -> dict[str, str]:
        """Remove the nodes of each workflow with more of them than one may have; the reasons by uid."""
        query = (
            "SELECT uid, count(*), sum(length(body)) FROM node GROUP BY uid"
            " HAVING count(*) > ? OR sum(length(body)) > ?"
        )
        reasons = {}
        for uid, count, characters in self._db.execute(query, (MAX_NODES, MAX_STORED_CHARACTERS)).fetchall():
            reasons[uid] = (
                f"the stored workflow has {count} nodes of {characters} characters;"
                f" at most {MAX_NODES} nodes of {MAX_STORED_CHARACTERS} characters can be held"
            )
            with self._transaction() as db:
                db.execute("DELETE FROM node WHERE uid = ?", (uid,))
        return reasons

    def node_bodies(self, uid: str) -> Iterator[tuple[str, str]]:
        """Id and JSON of every node of a workflow."""
        return iter(self._db.execute("SELECT id, body FROM node WHERE uid = ?", (uid,)))

    def nodes(self, uid: str) -> list[dict[str, Any]]:
        """The nodes of a workflow."""
        return [json.loads(body) for _, body in self.node_bodies(uid)]

    def add_template(self, kind: str, namespace: str, name: str, body: dict[str, Any]) -> bool:
        """Store a new template; False when its name is taken."""
        values = (kind, namespace, name, json.dumps(body))
        with self._transaction(synced=True) as db:
            added = db.execute("INSERT INTO template VALUES (?,?,?,?) ON CONFLICT DO NOTHING", values)
        return added.rowcount > 0

    def update_template(self, kind: str, namespace: str, name: str, body: dict[str, Any]) -> bool:
        """Replace a template; False when there is none."""
        query = "UPDATE template SET body = ? WHERE kind = ? AND namespace = ? AND name = ?"
        with self._transaction(synced=True) as db:
            updated = db.execute(query, (json.dumps(body), kind, namespace, name))
        return updated.rowcount > 0

    def delete_template(self, kind: str, namespace: str, name: str) -> bool:
        """Delete a template; False when there is none."""
        query = "DELETE FROM template WHERE kind = ? AND namespace = ? AND name = ?"
        with self._transaction() as db:
            deleted = db.execute(query, (kind, namespace, name))
        return deleted.rowcount > 0

    def templates(self, kind: str, namespace: str = "", name: str = "") -> list[dict[str, Any]]:
        """The templates of a kind, of one namespace or all, of one name or all."""
        query = (
            "SELECT body FROM template WHERE kind = ? AND (? = '' OR namespace = ?)"
            " AND (? = '' OR name = ?) ORDER BY namespace, name"
        )
        values = (kind, namespace, namespace, name, name)
        return [json.loads(body) for (body,) in self._db.execute(query, values)]
