"""One workflow that runs: its spec, its status, its nodes, and the actions that clients have taken on it."""

import asyncio
import contextlib
import datetime as dt
import json
import re
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol

from periplus_local.argo.controller import workflow_variables
from periplus_local.argo.controller.nodes import Nodes
from periplus_local.argo.controller.scope import Scope
from periplus_local.argo.controller.synchronization import Mutexes, Slots
from periplus_local.argo.controller.turns import Turns
from periplus_local.argo.executor.job import Job, JobResult
from periplus_local.argo.names import LABEL_PREFIX
from periplus_local.argo.scalars import now, parse_timestamp, timestamp
from periplus_local.argo.templates import TemplateGetter, TemplateResolver, template_set
from periplus_manifest.bounds import RunBounds


class Executor(Protocol):
    """Runs the pods of a workflow (see executor.process_executor)."""

    async def run(self, job: Job, on_start: Callable[[], Awaitable[None]] | None = None) -> JobResult:
        """Run a job to its end; `on_start` is awaited just before its process starts."""
        ...

    async def adopt(self, job: Job) -> JobResult | None:
        """The result of a job that an earlier server started; None when it must be run again."""
        ...

    async def stop(self, job_id: str, grace: dt.timedelta) -> None:
        """End the job's processes; SIGKILL follows SIGTERM after `grace`."""
        ...

    async def remove(self, job_id: str) -> None:
        """Remove the log and the records of an ended job."""
        ...


@dataclass(frozen=True)
class ControllerContext:
    """What all workflows of the server share.

    `repository` is the `artifactRepositoryRef` of their status; `grace` lies between SIGTERM and SIGKILL when a
    workflow is stopped; `transient_errors` finds the messages that OnTransientError retries, besides its own list.
    """

    executor: Executor
    templates: TemplateGetter
    mutexes: Mutexes
    repository: dict[str, Any]
    grace: dt.timedelta = dt.timedelta(seconds=10)
    transient_errors: re.Pattern[str] | None = None
    bounds: RunBounds = field(default_factory=RunBounds)

    @property
    def s3_endpoint(self) -> str:
        """The address of the artifact repository."""
        return str(self.repository["artifactRepository"]["s3"]["endpoint"])

    @property
    def key_format(self) -> str:
        """What the keys of artifacts begin with, with tags."""
        return str(self.repository["artifactRepository"]["s3"]["keyFormat"])


@dataclass
class WorkflowRun:
    """The state of a workflow in memory.

    `control` is the server's own state of it: held mutexes and the number of retries. `recovered` says that an
    earlier server started it. `on_change` is called after each change; `flush` writes the changes to disk.
    """

    context: ControllerContext
    metadata: dict[str, Any]
    spec: dict[str, Any]
    status: dict[str, Any]
    control: dict[str, Any] = field(default_factory=dict)
    recovered: bool = False
    on_change: Callable[["WorkflowRun"], None] = lambda _: None
    flush: Callable[["WorkflowRun"], None] = lambda _: None

    def __post_init__(self) -> None:
        """Derive what follows from the spec."""
        self.nodes = Nodes(self.name, self.changed, self.fail, self.context.bounds)
        self.turns = Turns()
        self.failure = ""  # why this server ends the workflow before its steps have ended
        self.on_failure: Callable[[], object] = lambda: None
        # The spec that runs: that of the WorkflowTemplate, if the workflow refers to one.
        self.exec_spec = self.status.get("storedWorkflowTemplateSpec") or self.spec
        local_name = "" if "workflowTemplateRef" in self.spec else self.name
        local = template_set(f"local/{local_name}", self.exec_spec)
        self.templates = TemplateResolver(
            local, self.exec_spec.get("templateDefaults"), self.context.templates
        )
        self.pod_slots = Slots(self.exec_spec.get("parallelism"))
        self.jobs: dict[str, bool] = {}  # running jobs, and whether each belongs to an exit handler
        self.stop_reasons: dict[str, str] = {}
        self.finished_at: dict[
            str, float
        ] = {}  # Unix seconds by node id; timestamps in nodes are whole seconds
        self.fields_dirty = True
        self._background_tasks: set[asyncio.Task[None]] = set()
        self._waiters: set[asyncio.Event] = set()
        self._spec_json: bytes | None = None
        self.globals: Scope = workflow_variables.workflow_scope(self.metadata, self.exec_spec, self.status)

    @property
    def name(self) -> str:
        """The workflow's name."""
        return str(self.metadata["name"])

    @property
    def uid(self) -> str:
        """The workflow's uid."""
        return str(self.metadata["uid"])

    @property
    def shutdown(self) -> str:
        """The shutdown strategy that a client has requested: "Stop", "Terminate", or empty."""
        return str(self.spec.get("shutdown") or "")

    def is_shut_down(self, *, in_exit_handler: bool) -> bool:
        """Whether a step may no longer start; "Stop" lets exit handlers run."""
        return self.shutdown == "Terminate" or (self.shutdown == "Stop" and not in_exit_handler)

    def changed(self) -> None:
        """Report that something has changed."""
        self.on_change(self)

    def fields_changed(self) -> None:
        """Report that the metadata, the spec or the status outside of the nodes has changed."""
        self.fields_dirty = True
        self._spec_json = None
        self.changed()

    def fail(self, reason: str) -> None:
        """Have the workflow ended with phase Error for a reason of its own."""
        if not self.failure and not self.completed:
            self.failure = reason
            self.on_failure()

    def run_in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something alongside the steps."""
        task = asyncio.create_task(work)
        self._background_tasks.add(task)
        task.add_done_callback(self._background_tasks.discard)

    def record_locks(self, locks: list[str], owner: str) -> None:
        """Record that the owner holds the mutexes, so that it holds them after a restart."""
        self.control.setdefault("holding", {}).update(dict.fromkeys(locks, owner))
        self.fields_changed()

    def record_release(self, locks: list[str], owner: str) -> None:
        """Record that the owner no longer holds the mutexes."""
        holding = self.control.get("holding", {})
        for lock in locks:
            if holding.get(lock) == owner:
                del holding[lock]
                self.fields_changed()

    def wake_waiters(self) -> None:
        """Have every `wait_until` check its condition again."""
        for waiter in self._waiters:
            waiter.set()

    async def wait_until(
        self,
        condition: Callable[[], bool],
        timeout_seconds: float | None = None,
        wakeup: asyncio.Event | None = None,
    ) -> bool:
        """Wait until the condition holds; False when the timeout passes first.

        The condition is checked after `wake_waiters`, and when `wakeup` is set.
        """
        loop = asyncio.get_running_loop()
        end = None if timeout_seconds is None else loop.time() + timeout_seconds
        wakeup = wakeup or asyncio.Event()
        self._waiters.add(wakeup)
        try:
            while not condition():
                left = None if end is None else end - loop.time()
                if left is not None and left <= 0:
                    return False
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await wakeup.wait()
                wakeup.clear()
            return True
        finally:
            self._waiters.discard(wakeup)

    async def wait_while_suspended(self) -> None:
        """Wait while the workflow as a whole is suspended."""
        await self.wait_until(lambda: not self.spec.get("suspend") or bool(self.shutdown))

    def deadline(self) -> dt.datetime | None:
        """When the workflow's `activeDeadlineSeconds` end."""
        seconds = self.exec_spec.get("activeDeadlineSeconds")
        started = self.status.get("startedAt")
        if seconds is None or not started:
            return None
        return parse_timestamp(started) + dt.timedelta(seconds=int(seconds))

    def is_deadline_passed(self) -> bool:
        """Whether the workflow's deadline has passed."""
        end = self.deadline()
        return end is not None and now() >= end

    async def stop_jobs(self, reason: str, *, include_exit_handlers: bool) -> None:
        """End the processes of the running steps; the reason becomes the message of their nodes."""
        stops: list[Awaitable[None]] = []
        for job, in_exit_handler in list(self.jobs.items()):
            if include_exit_handlers or not in_exit_handler:
                self.stop_reasons.setdefault(job, reason)
                stops.append(self.context.executor.stop(job, self.context.grace))
        await asyncio.gather(*stops)

    def set_phase(self, phase: str, message: str | None = None) -> None:
        """Change the phase of the workflow as a whole."""
        self.status["phase"] = phase
        if message:
            self.status["message"] = message
        labels = self.metadata.setdefault("labels", {})
        labels[LABEL_PREFIX + "phase"] = phase
        if phase in {"Succeeded", "Failed", "Error"}:
            labels[LABEL_PREFIX + "completed"] = "true"
            self.status["finishedAt"] = timestamp(now())
        elif phase == "Running":
            labels[LABEL_PREFIX + "completed"] = "false"
            self.status.setdefault("startedAt", timestamp(now()))
        workflow_variables.put_state(self.globals, phase, self.metadata)
        self.fields_changed()

    @property
    def completed(self) -> bool:
        """Whether the workflow has its final phase."""
        return self.status.get("phase") in {"Succeeded", "Failed", "Error"}

    def to_json(self) -> bytes:
        """The whole workflow, as `GET` gives it."""
        if self._spec_json is None:
            self._spec_json = compact_json(self.spec)
        progress = f"{self.nodes.progress_done}/{self.nodes.progress_total}"
        status = {**self.status, "progress": progress}
        return workflow_json(compact_json(self.metadata), self._spec_json, status, self.nodes.to_json())


def workflow_json(metadata: bytes, spec: bytes, status: dict[str, Any], nodes: bytes) -> bytes:
    """A workflow as JSON, from its parts; `metadata`, `spec` and `nodes` are JSON already."""
    fields = compact_json(status)[:-1]
    comma = b"," if status else b""
    nodes_field = comma + b'"nodes":' + nodes if nodes != b"{}" else b""
    return b'{"metadata":%s,"spec":%s,"status":%s%s}}' % (metadata, spec, fields, nodes_field)


def compact_json(value: Any) -> bytes:
    """A value as UTF-8 JSON without white space."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
