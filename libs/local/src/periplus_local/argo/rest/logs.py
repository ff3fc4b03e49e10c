"""The handler of logs: what the steps of a workflow printed, and with `follow` what they print."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import Response

from periplus_local.argo import leaf, names, selector
from periplus_local.argo.faults import internal, invalid, missing
from periplus_local.argo.nodes import Node, fulfilled
from periplus_local.argo.rest import named
from periplus_local.argo.rest.answers import streamed
from periplus_local.argo.run import LABEL
from periplus_local.argo.store import Row
from periplus_local.argo.workflows import Workflows
from periplus_manifest import regex
from periplus_manifest.errors import ManifestError

CONTAINERS = {"", "main"}
TIMELESS = ("timestamps", "sinceSeconds", "sinceTime", "previous", "limitBytes")
PAUSE_SECONDS = 0.2
LINES_AHEAD = 256


class LogSource(Protocol):
    """Where the logs of jobs are (the executor)."""

    def follow_log(self, job_id: str, is_cancelled: Callable[[], bool]) -> AsyncIterator[str]:
        """The lines that a job prints, from the first, until it has ended or `is_cancelled`."""
        ...

    def log_path(self, job_id: str) -> Path:
        """The file with what a job printed."""
        ...


@dataclass(frozen=True)
class Wanted:
    """What a client asked for: of which pods and which container, which lines, and whether those to come."""

    pod: str
    pods: selector.Test
    main: bool
    follow: bool
    tail: int | None
    grep: regex.Regex | None

    @classmethod
    def of(cls, request: Request) -> "Wanted":
        """Read the query; Fault for what it may not say."""
        query = request.query_params
        for name in TIMELESS:
            if query.get(f"logOptions.{name}", "false").lower() not in {"false", "0"}:
                raise invalid(f"logOptions.{name}: lines are kept here without their times, and all of them")
        tail = query.get("logOptions.tailLines", "")
        if tail and not tail.isdigit():
            raise invalid(f"logOptions.tailLines: {tail} is not a number of lines")
        return cls(
            pod=request.path_params.get("pod") or query.get("podName", ""),
            pods=selector.labels(query.get("selector", "")),
            main=query.get("logOptions.container", "") in CONTAINERS,
            follow=query.get("logOptions.follow", "").lower() == "true",
            tail=int(tail) if tail else None,
            grep=_pattern(query.get("grep", "")),
        )

    def line(self, text: str) -> bool:
        """Whether a line is one of those."""
        return self.grep is None or self.grep.search(text, lambda _: None)


def _pattern(text: str) -> regex.Regex | None:
    try:
        return regex.compile(text) if text else None
    except ManifestError as error:
        raise internal(f"failed to compile {text!r}: {error}") from error


class Logs:
    """The handler of `/api/v1/workflows/{namespace}/{name}/log`."""

    def __init__(self, workflows: Workflows, executor: LogSource) -> None:
        """The logs that these pods have of these workflows."""
        self._workflows = workflows
        self._executor = executor

    async def log(self, request: Request) -> Response:
        """Stream the lines of the pods of a workflow: what there is, or with `follow` until it has ended."""
        row, wanted = named.workflow(self._workflows, request), Wanted.of(request)
        if wanted.follow:
            return streamed(request, self._followed(row, wanted))
        if wanted.pod and not self._nodes(row, wanted):
            raise missing(f'pods "{wanted.pod}" not found')
        return streamed(request, self._so_far(row, wanted))

    def _nodes(self, row: Row, wanted: Wanted) -> list[Node]:
        nodes = named.nodes(self._workflows, row)
        pods = [node for node in nodes if node["type"] == "Pod" and self._is_wanted(row, node, wanted)]
        return sorted(pods, key=lambda node: (node["startedAt"], node["name"]))

    def _is_wanted(self, row: Row, node: Node, wanted: Wanted) -> bool:
        labels = {LABEL + "workflow": row.name, LABEL + "completed": str(fulfilled(node)).lower()}
        return wanted.pods(labels) and (not wanted.pod or wanted.pod == self._pod(row, node))

    @staticmethod
    def _pod(row: Row, node: Node) -> str:
        reference: dict[str, Any] = node.get("templateRef") or {}
        template = reference.get("template") or node.get("templateName", "")
        return names.pod_name(row.name, node["name"], template)

    def _job(self, row: Row, node: Node) -> str:
        run = self._workflows.live.get(row.uid)
        return leaf.job_id(row.uid, node["name"], run.control if run is not None else row.control)

    async def _so_far(self, row: Row, wanted: Wanted) -> AsyncIterator[bytes]:
        for node in self._nodes(row, wanted) if wanted.main else ():
            path, skipped = self._executor.log_path(self._job(row, node)), self._skipped(row, node, wanted)
            with (
                suppress(FileNotFoundError),
                path.open(encoding="utf-8", errors="replace", newline="\n") as lines,
            ):
                for number, line in enumerate(lines):
                    text = line.rstrip("\n")
                    if number >= skipped and wanted.line(text):
                        yield self._told(row, node, text)

    def _skipped(self, row: Row, node: Node, wanted: Wanted) -> int:
        """How many lines of a pod come before the last ones that are wanted."""
        if wanted.tail is None:
            return 0
        with suppress(FileNotFoundError), self._executor.log_path(self._job(row, node)).open("rb") as lines:
            return max(0, sum(1 for _ in lines) - wanted.tail)
        return 0

    async def _followed(self, row: Row, wanted: Wanted) -> AsyncIterator[bytes]:
        """The lines of all pods as they come, of those that start later, too."""
        ahead: asyncio.Queue[bytes] = asyncio.Queue(LINES_AHEAD)
        tasks: dict[str, asyncio.Task[None]] = {}
        try:
            over = False
            while True:
                if not over:
                    over = self._is_over(row)
                    for node in self._nodes(row, wanted) if wanted.main else ():
                        if node["id"] not in tasks and (over or node["phase"] != "Pending"):
                            tasks[node["id"]] = asyncio.create_task(self._pump(row, node, wanted, ahead))
                with suppress(TimeoutError):
                    yield await asyncio.wait_for(ahead.get(), PAUSE_SECONDS)
                    while not ahead.empty():
                        yield ahead.get_nowait()
                if over and ahead.empty() and all(task.done() for task in tasks.values()):
                    return
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)

    def _is_over(self, row: Row) -> bool:
        run = self._workflows.live.get(row.uid)
        return self._workflows.hub.closed or run is None or run.completed

    async def _pump(self, row: Row, node: Node, wanted: Wanted, ahead: "asyncio.Queue[bytes]") -> None:
        left = self._skipped(row, node, wanted)
        async for line in self._executor.follow_log(self._job(row, node), lambda: self._workflows.hub.closed):
            left -= 1
            if left < 0 and wanted.line(line):
                await ahead.put(self._told(row, node, line))

    def _told(self, row: Row, node: Node, text: str) -> bytes:
        said = {"content": text, "podName": self._pod(row, node)}
        return json.dumps({"result": said}, ensure_ascii=False).encode()
