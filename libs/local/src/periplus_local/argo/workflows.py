"""All workflows of the server: those under way in memory, the others on disk."""

import asyncio
import json
import logging
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from periplus_local.argo import birth
from periplus_local.argo.drive import drive
from periplus_local.argo.faults import exists, internal, missing
from periplus_local.argo.hub import Hub, Seen
from periplus_local.argo.leaf import job_id
from periplus_local.argo.nodes import Node
from periplus_local.argo.run import Run, Surroundings, document
from periplus_local.argo.store import Row, Store

log = logging.getLogger(__name__)
SECONDS_TO_TRY_AGAIN = 1.0
LATEST = "@latest"
UNWRITTEN = "the local Argo cannot write its state"


class Workflows:
    """Creates, keeps, finds and removes workflows, and has each driven to its end."""

    def __init__(self, store: Store, hub: Hub, around: Surroundings) -> None:
        """Workflows that are kept in the store and told of through the hub."""
        self.store = store
        self.hub = hub
        self.around = around
        self.live: dict[str, Run] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._changed: set[str] = set()
        self._seen: dict[str, Seen] = {}
        self._planned = False

    def recover(self) -> None:
        """Go on with every workflow that had not ended when the server did."""
        for row in self.store.unfinished():
            for lock, owner in row.control.get("holding", {}).items():
                self.around.mutexes.restore(lock, owner)
        for row in self.store.unfinished():
            tree = self.store.tree(row.uid)
            self._drive(self._run(row.metadata, row.spec, row.status, row.control, tree, recovered=True))

    async def close(self) -> None:
        """Leave the workflows as they are; the next server goes on with them."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self.flush()

    def create(
        self,
        workflow: dict[str, Any],
        stored: dict[str, Any] | None,
        idle: list[str],
        nodes: Sequence[Node] = (),
    ) -> Run:
        """Keep a new workflow, with the nodes it has already, and start it; Fault when its name is taken."""
        metadata, version = birth.metadata(workflow), self.store.next_version()
        metadata["resourceVersion"] = str(version)
        status = birth.status(self.around.repository, stored, idle)
        run = self._run(metadata, workflow["spec"], status, {}, nodes)
        for node in nodes:
            run.nodes.touch(node)
        try:
            added = self.store.add(self._row(run, version, version))
        except sqlite3.Error as error:
            raise internal(f"{UNWRITTEN}: {error}") from error
        if not added:
            raise exists(f'workflows.argoproj.io "{run.name}" already exists')
        self.hub.tell(metadata["namespace"], run.uid, "ADDED")
        self._drive(run)
        if nodes:
            self._flush(run)
        return run

    def _run(
        self,
        metadata: dict[str, Any],
        spec: dict[str, Any],
        status: dict[str, Any],
        control: dict[str, Any],
        nodes: Iterable[Node],
        *,
        recovered: bool = False,
    ) -> Run:
        run = Run(self.around, metadata, spec, status, control, recovered, self._note, self._flush)
        for node in nodes:
            run.nodes.load(node)
        return run

    def _drive(self, run: Run) -> None:
        self.live[run.uid] = run
        task = self._tasks[run.uid] = asyncio.create_task(drive(run), name=run.name)
        task.add_done_callback(lambda done: self._driven(run, done))

    def _driven(self, run: Run, done: "asyncio.Task[None]") -> None:
        if done.cancelled() or self._tasks.get(run.uid) is not done:
            return
        self._tasks.pop(run.uid)
        self._flush(run)

    def _note(self, run: Run) -> None:
        if run.uid not in self.live:
            return
        self._changed.add(run.uid)
        if not self._planned:
            self._planned = True
            asyncio.get_running_loop().call_soon(self.flush)

    def flush(self) -> None:
        """Write what has changed, then tell those who watch."""
        self._planned = False
        changed, self._changed = self._changed, set()
        for uid in changed:
            if uid in self.live:
                self._flush(self.live[uid])

    def _flush(self, run: Run) -> None:
        nodes, version = run.nodes, self.store.next_version()
        if not (run.head_dirty or nodes.dirty or nodes.gone):
            self._release(run)
            return
        run.metadata["resourceVersion"] = str(version)
        run.metadata["generation"] += 1
        fresh = [(node, nodes.fragment(node)) for node in nodes.dirty]
        try:
            self.store.write(self._row(run, version, 0), run.head_dirty, fresh, nodes.gone)
        except sqlite3.Error as error:
            self._unwritten(run, error)
            return
        nodes.dirty.clear()
        nodes.gone.clear()
        run.head_dirty = False
        self._seen.pop(run.uid, None)
        self.hub.tell(run.metadata["namespace"], run.uid, "MODIFIED", ended=run.completed)
        self._release(run)

    def keep(self, run: Run) -> None:
        """Write what has changed of a workflow, before somebody is told; Fault when it cannot be."""
        self.flush()
        try:
            self.store.force()
        except sqlite3.Error as error:
            raise internal(f"{UNWRITTEN}: {error}") from error
        if run.head_dirty or run.nodes.dirty:
            raise internal(f"{UNWRITTEN}; the workflow is ended")

    def _unwritten(self, run: Run, error: sqlite3.Error) -> None:
        log.error("the state of %s cannot be written: %s", run.name, error)
        if not run.shutdown and not run.completed:
            reason = f"{UNWRITTEN}: {error}"
            run.spec["shutdown"] = "Terminate"
            run.stir()
            self.around.mutexes.abandon(f"{run.uid}/")
            run.background(run.end_jobs(reason, exit_parts=True))
        self._changed.add(run.uid)
        self._planned = True
        asyncio.get_running_loop().call_later(SECONDS_TO_TRY_AGAIN, self.flush)

    def _release(self, run: Run) -> None:
        if run.completed and run.uid not in self._tasks:
            self.live.pop(run.uid, None)
            self._seen.pop(run.uid, None)

    def _row(self, run: Run, version: int, born: int) -> Row:
        return Row(
            run.uid, run.metadata["namespace"], run.name, born, version, run.completed,
            run.metadata, run.spec, run.status, run.control,
        )  # fmt: skip

    def row(self, namespace: str, name: str) -> Row:
        """The kept workflow of that name, for "@latest" the newest; Fault when there is none."""
        if name == LATEST:
            newest = next(self.store.all(namespace), None)
            if newest is None:
                raise missing("no workflows found")
            return newest
        found = self.store.named(namespace, name)
        if found is None:
            raise missing(f'workflows.argoproj.io "{name}" not found')
        return found

    def run(self, namespace: str, name: str) -> Run | None:
        """The workflow of that name if it is under way; Fault when there is no such workflow at all."""
        return self.live.get(self.row(namespace, name).uid)

    def reopened(self, row: Row) -> Run:
        """A workflow that has ended, in memory once more; it is driven when `go_on` is called."""
        return self._run(row.metadata, row.spec, row.status, row.control, self.store.tree(row.uid))

    def go_on(self, run: Run) -> Run:
        """Drive a reopened workflow, as it is now written; gives it as it is driven."""
        self.live[run.uid] = run
        run.note_head()
        self.flush()
        fresh = self._run(run.metadata, run.spec, run.status, run.control, run.nodes)
        self._drive(fresh)
        return fresh

    def body(self, row: Row) -> bytes:
        """A workflow as JSON."""
        run = self.live.get(row.uid)
        if run is not None:
            return run.document()
        parts = (b'"%s":%s' % (node.encode(), body.encode()) for node, body in self.store.nodes(row.uid))
        nodes = b"{" + b",".join(parts) + b"}"
        metadata = {**row.metadata, "resourceVersion": str(row.version)}
        return document(_json(metadata), _json(row.spec), row.status, nodes)

    def look(self, uid: str) -> Seen | None:
        """A workflow as those who watch are told of it; made once per change, for all of them."""
        run = self.live.get(uid)
        if run is not None:
            if uid not in self._seen:
                labels = dict(run.metadata.get("labels") or {})
                self._seen[uid] = Seen(labels, run.document(), run.completed)
            return self._seen[uid]
        row = self.store.with_uid(uid)
        if row is None:
            return None
        return Seen(row.metadata.get("labels") or {}, self.body(row), row.completed)

    async def delete(self, namespace: str, name: str) -> None:
        """End a workflow's processes and take it away."""
        row = self.row(namespace, name)
        run = self.live.get(row.uid)
        if run is not None:
            run.spec["shutdown"] = "Terminate"
            await run.end_jobs("the workflow was deleted", exit_parts=True)
            task = self._tasks.pop(row.uid, None)
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        body = self.body(row)
        self.live.pop(row.uid, None)
        self._seen.pop(row.uid, None)
        for node in self.store.tree(row.uid):
            if node["type"] == "Pod":
                await self.around.executor.remove(job_id(row.uid, node["name"], row.control))
        slim = {"metadata": row.metadata, "status": {"phase": row.status.get("phase", "")}}
        self.store.remove(row, self.store.next_version(), json.dumps(slim))
        self.hub.tell_removed(namespace, row.uid, body)


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
