"""The log stream: the lines that the steps of a workflow printed, and with `follow` those they go on to print."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import Response

from periplus_local.argo import names
from periplus_local.argo.api.requests import nodes_of, workflow_of
from periplus_local.argo.api.responses import stream_response
from periplus_local.argo.controller.nodes import Node, is_fulfilled
from periplus_local.argo.controller.pod import job_id
from periplus_local.argo.controller.workflow_controller import WorkflowController
from periplus_local.argo.errors import internal, invalid_argument, not_found
from periplus_local.argo.names import LABEL_PREFIX
from periplus_local.argo.selectors import LabelTest, label_selector
from periplus_local.argo.storage.state_store import WorkflowRow
from periplus_manifest import regex
from periplus_manifest.errors import ManifestError

CONTAINERS = {"", "main"}
UNSUPPORTED_OPTIONS = ("timestamps", "sinceSeconds", "sinceTime", "previous", "limitBytes")
POLL_SECONDS = 0.2
MAX_QUEUED_LINES = 256


class LogSource(Protocol):
    """Where the logs of jobs are (the executor)."""

    def follow_log(self, job_id: str, is_cancelled: Callable[[], bool]) -> AsyncIterator[str]:
        """The lines that a job prints, from the first, until it has ended or `is_cancelled`."""
        ...

    def log_path(self, job_id: str) -> Path:
        """The file with what a job printed."""
        ...


@dataclass(frozen=True)
class LogOptions:
    """Which lines a client wants: of which pods, whether of the main container, the last `tail`, matching `grep`."""

    pod: str
    pods: LabelTest
    main: bool
    follow: bool
    tail: int | None
    grep: regex.Regex | None

    @classmethod
    def of(cls, request: Request) -> "LogOptions":
        """The options of a query; raises ArgoError for one that is invalid or does not work here."""
        query = request.query_params
        for name in UNSUPPORTED_OPTIONS:
            if query.get(f"logOptions.{name}", "false").lower() not in {"false", "0"}:
                raise invalid_argument(f"logOptions.{name}: logs are stored in full and without timestamps")
        tail = query.get("logOptions.tailLines", "")
        if tail and not tail.isdigit():
            raise invalid_argument(f"logOptions.tailLines: {tail} is not a number of lines")
        return cls(
            pod=request.path_params.get("pod") or query.get("podName", ""),
            pods=label_selector(query.get("selector", "")),
            main=query.get("logOptions.container", "") in CONTAINERS,
            follow=query.get("logOptions.follow", "").lower() == "true",
            tail=int(tail) if tail else None,
            grep=_compiled(query.get("grep", "")),
        )

    def matches(self, line: str) -> bool:
        """Whether a line matches the pattern."""
        return self.grep is None or self.grep.search(line, lambda _: None)


def _compiled(pattern: str) -> regex.Regex | None:
    try:
        return regex.compile(pattern) if pattern else None
    except ManifestError as error:
        raise internal(f"failed to compile {pattern!r}: {error}") from error


class LogHandlers:
    """The handler of `/api/v1/workflows/{namespace}/{name}/log`."""

    def __init__(self, controller: WorkflowController, executor: LogSource) -> None:
        self._controller = controller
        self._executor = executor

    async def log(self, request: Request) -> Response:
        """Stream the lines of a workflow's pods: those printed so far, or with `follow` until it has ended."""
        row, options = workflow_of(self._controller, request), LogOptions.of(request)
        if options.follow:
            return stream_response(request, self._follow(row, options))
        if options.pod and not self._selected_nodes(row, options):
            raise not_found(f'pods "{options.pod}" not found')
        return stream_response(request, self._printed_so_far(row, options))

    def _selected_nodes(self, row: WorkflowRow, options: LogOptions) -> list[Node]:
        nodes = nodes_of(self._controller, row)
        pods = [node for node in nodes if node["type"] == "Pod" and self._is_selected(row, node, options)]
        return sorted(pods, key=lambda node: (node["startedAt"], node["name"]))

    def _is_selected(self, row: WorkflowRow, node: Node, options: LogOptions) -> bool:
        labels = {
            LABEL_PREFIX + "workflow": row.name,
            LABEL_PREFIX + "completed": str(is_fulfilled(node)).lower(),
        }
        return options.pods(labels) and (not options.pod or options.pod == _pod_name(row, node))

    def _job_id(self, row: WorkflowRow, node: Node) -> str:
        run = self._controller.active.get(row.uid)
        return job_id(row.uid, node["name"], run.control if run is not None else row.control)

    async def _printed_so_far(self, row: WorkflowRow, options: LogOptions) -> AsyncIterator[bytes]:
        for node in self._selected_nodes(row, options) if options.main else ():
            path = self._executor.log_path(self._job_id(row, node))
            skipped = self._lines_before_tail(row, node, options)
            with (
                suppress(FileNotFoundError),
                path.open(encoding="utf-8", errors="replace", newline="\n") as lines,
            ):
                for number, line in enumerate(lines):
                    text = line.rstrip("\n")
                    if number >= skipped and options.matches(text):
                        yield _entry(row, node, text)

    def _lines_before_tail(self, row: WorkflowRow, node: Node, options: LogOptions) -> int:
        """How many lines of a pod come before its last `tail` lines."""
        if options.tail is None:
            return 0
        with (
            suppress(FileNotFoundError),
            self._executor.log_path(self._job_id(row, node)).open("rb") as lines,
        ):
            return max(0, sum(1 for _ in lines) - options.tail)
        return 0

    async def _follow(self, row: WorkflowRow, options: LogOptions) -> AsyncIterator[bytes]:
        """The lines of all pods as they are printed, also of pods that start later."""
        queue: asyncio.Queue[bytes] = asyncio.Queue(MAX_QUEUED_LINES)
        tasks: dict[str, asyncio.Task[None]] = {}
        try:
            ended = False
            while True:
                if not ended:
                    ended = self._has_ended(row)
                    for node in self._selected_nodes(row, options) if options.main else ():
                        if node["id"] not in tasks and (ended or node["phase"] != "Pending"):
                            tasks[node["id"]] = asyncio.create_task(
                                self._follow_pod(row, node, options, queue)
                            )
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL_SECONDS):
                        entry = await queue.get()
                    yield entry
                    while not queue.empty():
                        yield queue.get_nowait()
                if ended and queue.empty() and all(task.done() for task in tasks.values()):
                    return
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)

    def _has_ended(self, row: WorkflowRow) -> bool:
        run = self._controller.active.get(row.uid)
        return self._controller.watches.closed or run is None or run.completed

    async def _follow_pod(
        self, row: WorkflowRow, node: Node, options: LogOptions, queue: "asyncio.Queue[bytes]"
    ) -> None:
        skip = self._lines_before_tail(row, node, options)
        lines = self._executor.follow_log(self._job_id(row, node), lambda: self._controller.watches.closed)
        async for line in lines:
            skip -= 1
            if skip < 0 and options.matches(line):
                await queue.put(_entry(row, node, line))


def _pod_name(row: WorkflowRow, node: Node) -> str:
    reference: dict[str, Any] = node.get("templateRef") or {}
    template = reference.get("template") or node.get("templateName", "")
    return names.pod_name(row.name, node["name"], template)


def _entry(row: WorkflowRow, node: Node, line: str) -> bytes:
    entry = {"content": line, "podName": _pod_name(row, node)}
    return json.dumps({"result": entry}, ensure_ascii=False).encode()
