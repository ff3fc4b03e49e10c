"""The event stream `/api/v1/workflow-events`: every workflow that exists, then every change of one."""

import asyncio
import json
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response

from periplus_local.argo.api.field_mask import FieldMask
from periplus_local.argo.api.list_filter import selected_name
from periplus_local.argo.api.responses import stream_response
from periplus_local.argo.controller.watch import Watch
from periplus_local.argo.controller.workflow_controller import WorkflowController
from periplus_local.argo.errors import internal
from periplus_local.argo.selectors import label_selector

# How often a stream without events checks that the server is still running.
IDLE_SECONDS = 15.0


class EventHandlers:
    """The handler of `/api/v1/workflow-events/{namespace}`."""

    def __init__(self, controller: WorkflowController) -> None:
        self._controller = controller

    async def watch(self, request: Request) -> Response:
        """Stream the events of a namespace, or of all when it is empty, after a resourceVersion.

        Without a resourceVersion every existing workflow is sent first, as ADDED.
        """
        query, controller = request.query_params, self._controller
        after = query.get("listOptions.resourceVersion") or query.get("resourceVersion") or ""
        if after and not after.isdigit():
            raise internal(f"resourceVersion: Invalid value: {after!r}: is not a number")
        matches = label_selector(query.get("listOptions.labelSelector", ""))
        namespace = request.path_params.get("namespace", "")
        watch = Watch(namespace, matches, controller.snapshot)
        name = selected_name(query.get("listOptions.fieldSelector", ""))
        only_uid = controller.row(namespace, name).uid if name else ""
        if only_uid:
            watch.snapshot = lambda uid: controller.snapshot(uid) if uid == only_uid else None
        mask = FieldMask(query.get("fields", ""), "result.object.")
        return stream_response(request, self._events(watch, int(after or 0), only_uid, mask))

    async def _events(self, watch: Watch, after: int, only_uid: str, mask: FieldMask) -> AsyncIterator[bytes]:
        state, watches = self._controller.state, self._controller.watches
        if 0 < after < state.horizon():
            error = {"http_code": 410, "message": f"too old resource version: {after}"}
            yield json.dumps({"error": {"grpc_code": 13, **error, "http_status": "Gone"}}).encode()
            return
        watches.add(watch)
        try:
            for body in self._deletions(watch, after, only_uid):
                yield _event("DELETED", body, mask)
            for row in sorted(state.workflows(watch.namespace, after or -1), key=lambda row: row.version):
                if after and row.created_version <= after:
                    watch.sent.add(row.uid)
                watch.changed(row.uid, "ADDED" if row.created_version > after else "MODIFIED")
            while True:
                try:
                    async with asyncio.timeout(IDLE_SECONDS):
                        events = await watch.next_events()
                except TimeoutError:
                    continue
                for kind, body in events:
                    yield _event(kind, body, mask)
                if not events:
                    return
        finally:
            watches.remove(watch)

    def _deletions(self, watch: Watch, after: int, only_uid: str) -> list[bytes]:
        """The workflows that the client knew at a resourceVersion and that were deleted since."""
        if not after:
            return []
        bodies = []
        for _, namespace, body in self._controller.state.deletions(after):
            metadata = json.loads(body)["metadata"]
            is_watched = watch.namespace in {"", namespace} and watch.matches(metadata.get("labels") or {})
            if is_watched and only_uid in {"", metadata["uid"]}:
                bodies.append(body.encode())
        return bodies


def _event(kind: str, body: bytes, mask: FieldMask) -> bytes:
    if not mask.is_empty:
        body = json.dumps(mask.of_workflow(json.loads(body)), ensure_ascii=False).encode()
    return b'{"result":{"type":"%s","object":%s}}' % (kind.encode(), body)
