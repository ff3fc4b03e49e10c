"""The handler of logs: what the steps of a workflow printed, and with `follow` what they print."""

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import Response

from periplus_local.argo import leaf, names
from periplus_local.argo.faults import missing
from periplus_local.argo.nodes import fulfilled
from periplus_local.argo.rest.answers import streamed
from periplus_local.argo.store import Row
from periplus_local.argo.workflows import Workflows


class Printed(Protocol):
    """Where the logs of jobs are."""

    def follow(self, job_id: str, over: Callable[[], bool]) -> AsyncIterator[str]:
        """The lines of a job, until it has ended or nobody is to be told any more."""
        ...

    def logs(self, job_id: str) -> Path:
        """The file with what a job printed."""
        ...


class Logs:
    """The handler of `/api/v1/workflows/{namespace}/{name}/log`."""

    def __init__(self, workflows: Workflows, pods: Printed) -> None:
        """The logs that these pods have of these workflows."""
        self._workflows = workflows
        self._pods = pods

    async def log(self, request: Request) -> Response:
        """Stream the lines of one pod, or of all the pods of a workflow one after another."""
        query, place = request.query_params, request.path_params
        row = self._workflows.row(place["namespace"], place["name"])
        pod = place.get("pod") or query.get("podName", "")
        chosen = [node for node in self._nodes(row) if not pod or self._pod(row, node) == pod]
        if pod and not chosen:
            raise missing(f'pods "{pod}" not found')
        follow = query.get("logOptions.follow", "").lower() == "true"
        wanted = query.get("grep", "")
        return streamed(request, self._lines(row, chosen, follow, wanted))

    def _nodes(self, row: Row) -> list[dict[str, Any]]:
        run = self._workflows.live.get(row.uid)
        if run is not None:
            nodes = list(run.nodes)
        else:
            nodes = [json.loads(body) for _, body in self._workflows.store.nodes(row.uid)]
        pods = [node for node in nodes if node["type"] == "Pod"]
        return sorted(pods, key=lambda node: (node["startedAt"], node["name"]))

    @staticmethod
    def _pod(row: Row, node: dict[str, Any]) -> str:
        reference = node.get("templateRef") or {}
        template = reference.get("template") or node.get("templateName", "")
        return names.pod_name(row.name, node["name"], template)

    async def _lines(
        self, row: Row, nodes: list[dict[str, Any]], follow: bool, wanted: str
    ) -> AsyncIterator[bytes]:
        for node in nodes:
            if not follow and not fulfilled(node):
                lines = self._so_far(row, node)
            else:
                job = leaf.job_id(row.uid, node["name"], row.control)
                lines = self._pods.follow(job, lambda: self._workflows.hub.closed)
            async for line in lines:
                if wanted in line:
                    said = {"content": line.rstrip("\n"), "podName": self._pod(row, node)}
                    yield json.dumps({"result": said}, ensure_ascii=False).encode()

    async def _so_far(self, row: Row, node: dict[str, Any]) -> AsyncIterator[str]:
        path = self._pods.logs(leaf.job_id(row.uid, node["name"], row.control))
        if path.exists():
            with path.open(encoding="utf-8", errors="replace") as lines:
                for line in lines:
                    yield line
