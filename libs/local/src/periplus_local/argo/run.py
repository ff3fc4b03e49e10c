"""One workflow that is under way: its spec, its nodes, and what people ask of it meanwhile."""

import asyncio
import contextlib
import datetime as dt
import json
import re
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol

from periplus_local.argo import names, variables
from periplus_local.argo.executor.job import Job, JobResult
from periplus_local.argo.limits import Mutexes, Slots
from periplus_local.argo.nodes import Nodes
from periplus_local.argo.scope import Scope
from periplus_local.argo.templates import Library, Shelf, source_of

LABEL = "workflows.argoproj.io/"


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
class Surroundings:
    """What the server has and every workflow uses."""

    executor: Executor
    library: Library
    mutexes: Mutexes
    repository: dict[str, Any]
    grace: dt.timedelta = dt.timedelta(seconds=10)
    transient: re.Pattern[str] | None = None

    @property
    def endpoint(self) -> str:
        """The address of the S3 store."""
        return str(self.repository["artifactRepository"]["s3"]["endpoint"])


@dataclass
class Run:
    """The state of a workflow in memory; what of it is new is written by the keeper of the run."""

    around: Surroundings
    metadata: dict[str, Any]
    spec: dict[str, Any]
    status: dict[str, Any]
    control: dict[str, Any] = field(default_factory=dict)
    recovered: bool = False
    changed: Callable[["Run"], None] = lambda _: None
    write: Callable[["Run"], None] = lambda _: None

    def __post_init__(self) -> None:
        """Make what follows from the spec."""
        self.nodes = Nodes(self.name, self.note)
        self.plain = self.status.get("storedWorkflowTemplateSpec") or self.spec
        named = "" if "workflowTemplateRef" in self.spec else self.name
        local = source_of(f"local/{named}", self.plain)
        self.shelf = Shelf(local, self.plain.get("templateDefaults"), self.around.library)
        self.pod_slots = Slots(self.plain.get("parallelism"))
        self.jobs: dict[str, bool] = {}
        self.reasons: dict[str, str] = {}
        self.finished: dict[str, float] = {}
        self.head_dirty = True
        self._beside: set[asyncio.Task[None]] = set()
        self._waiting: set[asyncio.Event] = set()
        self._spec_json: bytes | None = None
        self.globals: Scope = variables.workflow_scope(self.metadata, self.plain, self.status)

    @property
    def name(self) -> str:
        """The workflow's name."""
        return str(self.metadata["name"])

    @property
    def uid(self) -> str:
        """The workflow's unique id."""
        return str(self.metadata["uid"])

    @property
    def shutdown(self) -> str:
        """What somebody has asked for: "Stop", "Terminate", or nothing yet."""
        return str(self.spec.get("shutdown") or "")

    def shuts(self, exit_part: bool) -> bool:
        """Whether a step may no longer start; a Stop lets exit handlers run."""
        return self.shutdown == "Terminate" or (self.shutdown == "Stop" and not exit_part)

    def note(self) -> None:
        """Say that something has changed."""
        self.changed(self)

    def background(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something beside the steps."""
        task = asyncio.create_task(work)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)

    def note_head(self) -> None:
        """Say that the metadata, the spec or the status outside of the nodes has changed."""
        self.head_dirty = True
        self._spec_json = None
        self.note()

    def hold(self, locks: list[str], owner: str) -> None:
        """Write down which mutexes the owner has, so that nobody else gets them after a restart."""
        self.control.setdefault("holding", {}).update(dict.fromkeys(locks, owner))
        self.note_head()

    def let_go(self, locks: list[str], owner: str) -> None:
        """Write down that the owner has the mutexes no more."""
        holding = self.control.get("holding", {})
        for lock in locks:
            if holding.get(lock) == owner:
                del holding[lock]
                self.note_head()

    def stir(self) -> None:
        """Wake whoever waits for a change of what people ask."""
        for waiting in self._waiting:
            waiting.set()

    async def until(
        self,
        holds: Callable[[], bool],
        seconds: float | None = None,
        stirred: asyncio.Event | None = None,
    ) -> bool:
        """Wait until something holds that people bring about; False when the seconds are over first.

        `stirred` is set by whoever changes what only this caller waits for.
        """
        loop = asyncio.get_running_loop()
        end = None if seconds is None else loop.time() + seconds
        stirred = stirred or asyncio.Event()
        self._waiting.add(stirred)
        try:
            while not holds():
                left = None if end is None else end - loop.time()
                if left is not None and left <= 0:
                    return False
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stirred.wait(), left)
                stirred.clear()
            return True
        finally:
            self._waiting.discard(stirred)

    async def proceed(self) -> None:
        """Wait while the workflow as a whole is suspended."""
        await self.until(lambda: not self.spec.get("suspend") or bool(self.shutdown))

    def deadline(self) -> dt.datetime | None:
        """When `activeDeadlineSeconds` of the workflow ends."""
        seconds = self.plain.get("activeDeadlineSeconds")
        started = self.status.get("startedAt")
        if seconds is None or not started:
            return None
        return names.parse(started) + dt.timedelta(seconds=int(seconds))

    def expired(self) -> bool:
        """Whether the workflow's deadline has passed."""
        end = self.deadline()
        return end is not None and names.now() >= end

    async def end_jobs(self, reason: str, *, exit_parts: bool) -> None:
        """End the processes of the steps that are running; their nodes will say the reason."""
        ending: list[Awaitable[None]] = []
        for job, exit_part in list(self.jobs.items()):
            if exit_parts or not exit_part:
                self.reasons.setdefault(job, reason)
                ending.append(self.around.executor.stop(job, self.around.grace))
        await asyncio.gather(*ending)

    def set_phase(self, phase: str, message: str | None = None) -> None:
        """Change the phase of the workflow as a whole."""
        self.status["phase"] = phase
        if message:
            self.status["message"] = message
        labels = self.metadata.setdefault("labels", {})
        labels[LABEL + "phase"] = phase
        if phase in {"Succeeded", "Failed", "Error"}:
            labels[LABEL + "completed"] = "true"
            self.status["finishedAt"] = names.stamp(names.now())
        elif phase == "Running":
            labels[LABEL + "completed"] = "false"
            self.status.setdefault("startedAt", names.stamp(names.now()))
        variables.put_state(self.globals, phase, self.metadata)
        self.note_head()

    @property
    def completed(self) -> bool:
        """Whether the workflow has ended."""
        return self.status.get("phase") in {"Succeeded", "Failed", "Error"}

    def document(self) -> bytes:
        """The whole workflow as JSON, as `GET` gives it."""
        if self._spec_json is None:
            self._spec_json = _json(self.spec)
        status = {**self.status, "progress": f"{self.nodes.complete}/{self.nodes.counted}"}
        return document(_json(self.metadata), self._spec_json, status, self.nodes.document())


def document(metadata: bytes, spec: bytes, status: dict[str, Any], nodes: bytes) -> bytes:
    """A workflow as JSON, from its parts."""
    plain = _json(status)[:-1]
    joint = b"," if status else b""
    tail = joint + b'"nodes":' + nodes if nodes != b"{}" else b""
    return b'{"metadata":%s,"spec":%s,"status":%s%s}}' % (metadata, spec, plain, tail)


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
