"""All workflows of the server: the running ones in memory, the others on disk."""

import asyncio
import json
import logging
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from periplus_local.argo.controller.nodes import Node
from periplus_local.argo.controller.operate import operate
from periplus_local.argo.controller.pod import job_id
from periplus_local.argo.controller.watch import WatchHub, WorkflowSnapshot
from periplus_local.argo.controller.workflow_run import (
    ControllerContext,
    WorkflowRun,
    compact_json,
    workflow_json,
)
from periplus_local.argo.errors import already_exists, internal, not_found
from periplus_local.argo.names import LABEL_PREFIX
from periplus_local.argo.scalars import now, timestamp
from periplus_local.argo.storage.state_store import StateStore, WorkflowRow
from periplus_local.argo.submission import validate
from periplus_local.argo.submission.new_workflow import new_metadata, new_status
from periplus_local.argo.submission.validate import ValidWorkflow
from periplus_manifest import size
from periplus_manifest.errors import BoundError

log = logging.getLogger(__name__)
WRITE_RETRY_SECONDS = 1.0
LATEST = "@latest"
WRITE_ERROR = "the local Argo cannot write its state"


class WorkflowController:
    """Creates, finds, deletes and operates workflows.

    `active` holds the workflows in memory by uid: those that run, and ended ones until their last state is written.
    """

    def __init__(self, state: StateStore, watches: WatchHub, context: ControllerContext) -> None:
        self.state = state
        self.watches = watches
        self.context = context
        self.active: dict[str, WorkflowRun] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._dirty: set[str] = set()
        self._snapshots: dict[str, WorkflowSnapshot] = {}
        self._flush_scheduled = False

    def recover(self) -> None:
        """Go on with every workflow that had not ended when the last server stopped.

        One that is larger than a workflow may be, or that cannot be read, is ended with the reason.
        """
        rows = self.state.incomplete()
        for row in rows:
            for lock, owner in row.control.get("holding", {}).items():
                self.context.mutexes.restore(lock, owner)
        too_large = self.state.remove_oversized_nodes()
        for row in rows:
            try:
                nodes = self.state.nodes(row.uid)
                run = self._run(row.metadata, row.spec, row.status, row.control, nodes, recovered=True)
                run.failure = too_large.get(row.uid) or self._reason_not_to_go_on(run)
            except Exception as error:  # whatever the file holds, the server starts
                log.exception("the workflow %s cannot be read", row.name)
                self._end_unreadable(row, f"the state of the workflow cannot be read: {error!r}")
            else:
                self._start(run)

    def _reason_not_to_go_on(self, run: WorkflowRun) -> str:
        """Why a workflow that was accepted cannot be held; empty if it can."""
        try:
            size.check(run.exec_spec, "spec", referenced=validate.known_specs(self.context.templates))
        except BoundError as error:
            return str(error)
        return ""

    def _end_unreadable(self, row: WorkflowRow, reason: str) -> None:
        labels = {LABEL_PREFIX + "phase": "Error", LABEL_PREFIX + "completed": "true"}
        metadata = {**row.metadata, "name": row.name, "namespace": row.namespace, "labels": labels}
        status = {"phase": "Error", "message": reason, "finishedAt": timestamp(now())}
        version = self.state.next_version()
        ended = replace(row, metadata=metadata, status=status, version=version, completed=True, control={})
        self.state.update(ended, True, (), ())

    async def close(self) -> None:
        """Leave the workflows as they are; the next server goes on with them."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self.flush()

    def create(self, valid: ValidWorkflow, nodes: Sequence[Node] = ()) -> WorkflowRun:
        """Store a new workflow, with `nodes` that it has already, and start it; ArgoError when its name is taken."""
        metadata, version = new_metadata(valid.workflow), self.state.next_version()
        metadata["resourceVersion"] = str(version)
        status = new_status(self.context.repository, valid.template_spec, valid.ignored_fields)
        run = self._run(metadata, valid.workflow["spec"], status, {}, nodes)
        for node in nodes:
            run.nodes.mark_dirty(node)
        try:
            added = self.state.add(self._row(run, version, created_version=version))
        except sqlite3.Error as error:
            raise internal(f"{WRITE_ERROR}: {error}") from error
        if not added:
            raise already_exists(f'workflows.argoproj.io "{run.name}" already exists')
        self.watches.notify(metadata["namespace"], run.uid, "ADDED")
        self._start(run)
        if nodes:
            self._flush_run(run)
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
    ) -> WorkflowRun:
        run = WorkflowRun(
            context=self.context,
            metadata=metadata,
            spec=spec,
            status=status,
            control=control,
            recovered=recovered,
            on_change=self._schedule_flush,
            flush=self._flush_run,
        )
        for node in nodes:
            run.nodes.load(node)
        return run

    def _start(self, run: WorkflowRun) -> None:
        self.active[run.uid] = run
        task = self._tasks[run.uid] = asyncio.create_task(operate(run), name=run.name)
        task.add_done_callback(lambda ended: self._ended(run, ended))

    def _ended(self, run: WorkflowRun, task: "asyncio.Task[None]") -> None:
        if task.cancelled() or self._tasks.get(run.uid) is not task:
            return
        self._tasks.pop(run.uid)
        self._flush_run(run)

    def _schedule_flush(self, run: WorkflowRun) -> None:
        if run.uid not in self.active:
            return
        self._dirty.add(run.uid)
        if not self._flush_scheduled:
            self._flush_scheduled = True
            asyncio.get_running_loop().call_soon(self.flush)

    def flush(self) -> None:
        """Write all changes, then notify the watches."""
        self._flush_scheduled = False
        dirty, self._dirty = self._dirty, set()
        for uid in dirty:
            if uid in self.active:
                self._flush_run(self.active[uid])

    def _flush_run(self, run: WorkflowRun) -> None:
        nodes, version = run.nodes, self.state.next_version()
        if not (run.fields_dirty or nodes.dirty or nodes.removed):
            self._release(run)
            return
        run.metadata["resourceVersion"] = str(version)
        run.metadata["generation"] += 1
        dirty_nodes = [(node, nodes.node_json(node)) for node in nodes.dirty]
        try:
            self.state.update(self._row(run, version), run.fields_dirty, dirty_nodes, nodes.removed)
        except sqlite3.Error as error:
            self._write_failed(run, error)
            return
        nodes.dirty.clear()
        nodes.removed.clear()
        run.fields_dirty = False
        self._snapshots.pop(run.uid, None)
        self.watches.notify(run.metadata["namespace"], run.uid, "MODIFIED", ended=run.completed)
        self._release(run)

    def save(self, run: WorkflowRun) -> None:
        """Write the changes of a workflow and sync them to disk; raises ArgoError when that fails."""
        self.flush()
        try:
            self.state.sync()
        except sqlite3.Error as error:
            raise internal(f"{WRITE_ERROR}: {error}") from error
        if run.fields_dirty or run.nodes.dirty:
            raise internal(f"{WRITE_ERROR}; the workflow is ended")

    def _write_failed(self, run: WorkflowRun, error: sqlite3.Error) -> None:
        """Terminate the workflow, since its steps could not be recovered; its end is written once that works."""
        log.error("the state of %s cannot be written: %s", run.name, error)
        if not run.shutdown and not run.completed:
            reason = f"{WRITE_ERROR}: {error}"
            run.spec["shutdown"] = "Terminate"
            run.wake_waiters()
            self.context.mutexes.cancel_waits(f"{run.uid}/")
            run.run_in_background(run.stop_jobs(reason, include_exit_handlers=True))
        self._dirty.add(run.uid)
        self._flush_scheduled = True
        asyncio.get_running_loop().call_later(WRITE_RETRY_SECONDS, self.flush)

    def _release(self, run: WorkflowRun) -> None:
        if run.completed and run.uid not in self._tasks:
            self.active.pop(run.uid, None)
            self._snapshots.pop(run.uid, None)

    def _row(self, run: WorkflowRun, version: int, created_version: int = 0) -> WorkflowRow:
        return WorkflowRow(
            uid=run.uid,
            namespace=run.metadata["namespace"],
            name=run.name,
            created_version=created_version,
            version=version,
            completed=run.completed,
            metadata=run.metadata,
            spec=run.spec,
            status=run.status,
            control=run.control,
        )

    def row(self, namespace: str, name: str) -> WorkflowRow:
        """The stored workflow of that name, for "@latest" the newest; raises ArgoError when there is none."""
        if name == LATEST:
            newest = next(self.state.workflows(namespace), None)
            if newest is None:
                raise not_found("no workflows found")
            return newest
        found = self.state.by_name(namespace, name)
        if found is None:
            raise not_found(f'workflows.argoproj.io "{name}" not found')
        return found

    def active_run(self, namespace: str, name: str) -> WorkflowRun | None:
        """The workflow of that name if it is in memory; raises ArgoError when there is none at all."""
        return self.active.get(self.row(namespace, name).uid)

    def reopen(self, row: WorkflowRow) -> WorkflowRun:
        """An ended workflow loaded into memory; it is operated after `restart`."""
        return self._run(row.metadata, row.spec, row.status, row.control, self.state.nodes(row.uid))

    def restart(self, run: WorkflowRun) -> WorkflowRun:
        """Write a reopened workflow as it is now and operate it; gives the run that is operated."""
        self.active[run.uid] = run
        run.fields_changed()
        self.flush()
        restarted = self._run(run.metadata, run.spec, run.status, run.control, run.nodes)
        self._start(restarted)
        return restarted

    def workflow_json(self, row: WorkflowRow) -> bytes:
        """A workflow with its nodes as JSON."""
        run = self.active.get(row.uid)
        if run is not None:
            return run.to_json()
        bodies = self.state.node_bodies(row.uid)
        items = (b'"%s":%s' % (node.encode(), body.encode()) for node, body in bodies)
        nodes = b"{" + b",".join(items) + b"}"
        metadata = {**row.metadata, "resourceVersion": str(row.version)}
        return workflow_json(compact_json(metadata), compact_json(row.spec), row.status, nodes)

    def snapshot(self, uid: str) -> WorkflowSnapshot | None:
        """A workflow as it is sent to watches; encoded once per change, for all of them."""
        run = self.active.get(uid)
        if run is not None:
            if uid not in self._snapshots:
                labels = dict(run.metadata.get("labels") or {})
                self._snapshots[uid] = WorkflowSnapshot(labels, run.to_json(), run.completed)
            return self._snapshots[uid]
        row = self.state.by_uid(uid)
        if row is None:
            return None
        labels = row.metadata.get("labels") or {}
        return WorkflowSnapshot(labels, self.workflow_json(row), row.completed)

    async def delete(self, namespace: str, name: str) -> None:
        """End a workflow's processes and delete it."""
        row = self.row(namespace, name)
        run = self.active.get(row.uid)
        if run is not None:
            run.spec["shutdown"] = "Terminate"
            await run.stop_jobs("the workflow was deleted", include_exit_handlers=True)
            task = self._tasks.pop(row.uid, None)
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        body = self.workflow_json(row)
        self.active.pop(row.uid, None)
        self._snapshots.pop(row.uid, None)
        for node in self.state.nodes(row.uid):
            if node["type"] == "Pod":
                await self.context.executor.remove(job_id(row.uid, node["name"], row.control))
        slim = {"metadata": row.metadata, "status": {"phase": row.status.get("phase", "")}}
        self.state.delete(row, self.state.next_version(), json.dumps(slim))
        self.watches.notify_deleted(namespace, row.uid, body)
