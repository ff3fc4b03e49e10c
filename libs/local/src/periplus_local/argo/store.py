"""What outlives the server: workflows, their nodes and templates in one SQLite file.

Every pass of a workflow is one transaction, made before anybody is told of it. The journal is written
ahead, so that a killed process loses nothing; a new workflow, and what somebody does to one, is also forced
to the disk before the caller hears of it. A machine that loses its power may forget the last steps that ended,
which are then run again.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from periplus_local.argo import damage

TOMBSTONES = 1_000
SCHEMA = """
CREATE TABLE IF NOT EXISTS workflow (
  uid TEXT PRIMARY KEY, namespace TEXT NOT NULL, name TEXT NOT NULL,
  born INTEGER NOT NULL, version INTEGER NOT NULL, completed INTEGER NOT NULL,
  metadata TEXT NOT NULL, spec TEXT NOT NULL, status TEXT NOT NULL, control TEXT NOT NULL,
  UNIQUE (namespace, name));
CREATE INDEX IF NOT EXISTS workflow_version ON workflow (version);
CREATE TABLE IF NOT EXISTS node (
  uid TEXT NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (uid, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tombstone (
  version INTEGER PRIMARY KEY, namespace TEXT NOT NULL, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS template (
  kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, body TEXT NOT NULL,
  PRIMARY KEY (kind, namespace, name));
CREATE TABLE IF NOT EXISTS counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
"""


@dataclass(frozen=True)
class Row:
    """A workflow as it is kept, without its nodes."""

    uid: str
    namespace: str
    name: str
    born: int
    version: int
    completed: bool
    metadata: dict[str, Any]
    spec: dict[str, Any]
    status: dict[str, Any]
    control: dict[str, Any]


class Store:
    """The file; used from one thread."""

    def __init__(self, path: Path) -> None:
        """Open the file, or make it, readable by its owner only; RuntimeError where that cannot be."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
        self._base = damage.opened(path, SCHEMA)
        self.version = max(self._number("workflow"), self._number("tombstone"), self._counter())

    def close(self) -> None:
        """Close the file."""
        self._base.close()

    def _number(self, table: str) -> int:
        query = f"SELECT coalesce(max(version), 0) FROM {table}"
        return int(self._base.execute(query).fetchone()[0])

    def _counter(self) -> int:
        found = self._base.execute("SELECT value FROM counter WHERE name = 'version'").fetchone()
        return int(found[0]) if found else 0

    def force(self) -> None:
        """Have all that was written reach the disk, where not even the loss of power undoes it."""
        self._base.execute("PRAGMA wal_checkpoint(FULL)")

    def next_version(self) -> int:
        """A resource version greater than any before it."""
        self.version += 1
        return self.version

    @contextmanager
    def _transaction(self, *, forced: bool = False) -> Iterator[sqlite3.Connection]:
        if forced:
            self._base.execute("PRAGMA synchronous=FULL")
        try:
            self._base.execute("BEGIN IMMEDIATE")
            try:
                yield self._base
            except BaseException:
                self._base.execute("ROLLBACK")
                raise
            self._base.execute("COMMIT")
        finally:
            if forced:
                self._base.execute("PRAGMA synchronous=NORMAL")

    def add(self, row: Row) -> bool:
        """Keep a new workflow, forced to the disk; False when its name is taken."""
        values = (
            row.uid, row.namespace, row.name, row.born, row.version, row.completed,
            json.dumps(row.metadata), json.dumps(row.spec), json.dumps(row.status),
            json.dumps(row.control),
        )  # fmt: skip
        try:
            with self._transaction(forced=True) as base:
                base.execute("INSERT INTO workflow VALUES (?,?,?,?,?,?,?,?,?,?)", values)
        except sqlite3.IntegrityError:
            return False
        return True

    def write(
        self,
        row: Row,
        head: bool,
        nodes: Iterable[tuple[str, bytes]],
        gone: Iterable[str],
    ) -> None:
        """Keep what has changed of a workflow: its nodes, those that are gone, and with `head` the rest."""
        with self._transaction() as base:
            base.execute("UPDATE workflow SET version = ? WHERE uid = ?", (row.version, row.uid))
            if head:
                base.execute(
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
            for node in gone:
                base.execute("DELETE FROM node WHERE uid = ? AND id = ?", (row.uid, node))
            base.executemany(
                "INSERT INTO node VALUES (?,?,?) ON CONFLICT (uid, id) DO UPDATE SET body = excluded.body",
                [(row.uid, node, body.decode()) for node, body in nodes],
            )

    def remove(self, row: Row, version: int, body: str) -> None:
        """Take a workflow away and keep for a while what it last was, for those who watch."""
        with self._transaction() as base:
            base.execute("DELETE FROM node WHERE uid = ?", (row.uid,))
            base.execute("DELETE FROM workflow WHERE uid = ?", (row.uid,))
            base.execute("INSERT INTO tombstone VALUES (?,?,?)", (version, row.namespace, body))
            old = "SELECT version FROM tombstone ORDER BY version DESC LIMIT 1 OFFSET ?"
            found = base.execute(old, (TOMBSTONES,)).fetchone()
            if found:
                base.execute("DELETE FROM tombstone WHERE version <= ?", found)
                base.execute("REPLACE INTO counter VALUES ('horizon', ?)", found)

    def horizon(self) -> int:
        """The resource version up to which removals are no longer known."""
        found = self._base.execute("SELECT value FROM counter WHERE name = 'horizon'").fetchone()
        return int(found[0]) if found else 0

    def tombstones(self, after: int) -> list[tuple[int, str, str]]:
        """Version, namespace and body of what was removed after a version."""
        query = "SELECT version, namespace, body FROM tombstone WHERE version > ? ORDER BY version"
        return list(self._base.execute(query, (after,)))

    def named(self, namespace: str, name: str) -> Row | None:
        """The workflow of that name."""
        rows = self._rows("WHERE namespace = ? AND name = ?", (namespace, name))
        return next(rows, None)

    def with_uid(self, uid: str) -> Row | None:
        """The workflow of that uid."""
        return next(self._rows("WHERE uid = ?", (uid,)), None)

    def unfinished(self) -> list[Row]:
        """The workflows that are to go on."""
        return list(self._rows("WHERE NOT completed ORDER BY born", ()))

    def all(self, namespace: str = "", after: int = -1) -> Iterator[Row]:
        """All workflows, of one namespace or of all, that changed after a version; newest first."""
        where = "WHERE version > ? AND (? = '' OR namespace = ?) ORDER BY born DESC"
        return self._rows(where, (after, namespace, namespace))

    def _rows(self, where: str, values: tuple[Any, ...]) -> Iterator[Row]:
        for found in self._base.execute(f"SELECT * FROM workflow {where}", values):
            uid, space, name, born, version, completed = found[:6]
            metadata, spec, status, control = (json.loads(text) for text in found[6:])
            yield Row(
                uid, space, name, born, version, bool(completed), metadata, spec, status, control
            )  # fmt: skip

    def nodes(self, uid: str) -> Iterator[tuple[str, str]]:
        """Id and body of every node of a workflow."""
        return iter(self._base.execute("SELECT id, body FROM node WHERE uid = ?", (uid,)))

    def tree(self, uid: str) -> list[dict[str, Any]]:
        """The nodes of a workflow, read."""
        return [json.loads(body) for _, body in self.nodes(uid)]

    def put_template(self, kind: str, namespace: str, name: str, body: dict[str, Any]) -> bool:
        """Keep a new template; False when its name is taken."""
        values = (kind, namespace, name, json.dumps(body))
        with self._transaction(forced=True) as base:
            made = base.execute("INSERT INTO template VALUES (?,?,?,?) ON CONFLICT DO NOTHING", values)
        return made.rowcount > 0

    def change_template(self, kind: str, namespace: str, name: str, body: dict[str, Any]) -> bool:
        """Replace a template; False when there is none."""
        query = "UPDATE template SET body = ? WHERE kind = ? AND namespace = ? AND name = ?"
        with self._transaction(forced=True) as base:
            made = base.execute(query, (json.dumps(body), kind, namespace, name))
        return made.rowcount > 0

    def drop_template(self, kind: str, namespace: str, name: str) -> bool:
        """Take a template away; False when there is none."""
        query = "DELETE FROM template WHERE kind = ? AND namespace = ? AND name = ?"
        with self._transaction() as base:
            made = base.execute(query, (kind, namespace, name))
        return made.rowcount > 0

    def templates(self, kind: str, namespace: str = "", name: str = "") -> list[dict[str, Any]]:
        """The templates of a kind, of one namespace or all, of one name or all."""
        query = (
            "SELECT body FROM template WHERE kind = ? AND (? = '' OR namespace = ?)"
            " AND (? = '' OR name = ?) ORDER BY namespace, name"
        )
        values = (kind, namespace, namespace, name, name)
        return [json.loads(body) for (body,) in self._base.execute(query, values)]
