"""The event stream: every workflow that there is, then every change of one."""

import asyncio
import json
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response

from periplus_local.argo import selector
from periplus_local.argo.faults import internal
from periplus_local.argo.hub import Watch
from periplus_local.argo.rest.answers import streamed
from periplus_local.argo.rest.chosen import only_name
from periplus_local.argo.rest.picked import Picked
from periplus_local.argo.workflows import Workflows

SECONDS_BETWEEN_SIGNS = 15.0


class Events:
    """The handler of `/api/v1/workflow-events/{namespace}`."""

    def __init__(self, workflows: Workflows) -> None:
        """Tell of these workflows."""
        self._workflows = workflows

    async def watch(self, request: Request) -> Response:
        """Stream the events of a namespace, of all when it is empty; from a resourceVersion on if given.

        Without one every workflow is told of first, as added.
        """
        query = request.query_params
        after = query.get("listOptions.resourceVersion") or query.get("resourceVersion") or ""
        if after and not after.isdigit():
            raise internal(f"resourceVersion: Invalid value: {after!r}: is not a number")
        matches = selector.labels(query.get("listOptions.labelSelector", ""))
        namespace = request.path_params.get("namespace", "")
        watch = Watch(namespace, matches, self._workflows.look)
        only = only_name(query.get("listOptions.fieldSelector", ""))
        wanted = self._workflows.row(namespace, only).uid if only else ""
        if wanted:
            watch.look = lambda uid: self._workflows.look(uid) if uid == wanted else None
        picked = Picked(query.get("fields", ""), "result.object.")
        return streamed(request, self._lines(watch, int(after or 0), wanted, picked))

    async def _lines(self, watch: Watch, after: int, wanted: str, picked: Picked) -> AsyncIterator[bytes]:
        workflows, hub = self._workflows, self._workflows.hub
        if 0 < after < workflows.store.horizon():
            old = {"http_code": 410, "message": f"too old resource version: {after}"}
            yield json.dumps({"error": {"grpc_code": 13, **old, "http_status": "Gone"}}).encode()
            return
        hub.join(watch)
        try:
            for body in self._removed(watch, after, wanted):
                yield _line("DELETED", body, picked)
            for row in sorted(workflows.store.all(watch.namespace, after or -1), key=lambda row: row.version):
                if after and row.born <= after:
                    watch.told.add(row.uid)
                watch.note(row.uid, "ADDED" if row.born > after else "MODIFIED")
            while True:
                try:
                    events = await asyncio.wait_for(watch.next(), SECONDS_BETWEEN_SIGNS)
                except TimeoutError:
                    continue
                for kind, body in events:
                    yield _line(kind, body, picked)
                if not events:
                    return
        finally:
            hub.leave(watch)

    def _removed(self, watch: Watch, after: int, wanted: str) -> list[bytes]:
        if not after:
            return []
        bodies = []
        for _, namespace, body in self._workflows.store.tombstones(after):
            metadata = json.loads(body)["metadata"]
            seen = watch.namespace in {"", namespace} and watch.matches(metadata.get("labels") or {})
            if seen and wanted in {"", metadata["uid"]}:
                bodies.append(body.encode())
        return bodies


def _line(kind: str, body: bytes, picked: Picked) -> bytes:
    if not picked.all:
        body = json.dumps(picked.workflow(json.loads(body)), ensure_ascii=False).encode()
    return b'{"result":{"type":"%s","object":%s}}' % (kind.encode(), body)
