"""The handlers of `/api/v1/workflows`: make, find, list, remove."""

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from periplus_local.argo import birth, submission
from periplus_local.argo.faults import Fault, invalid
from periplus_local.argo.library import Shelves
from periplus_local.argo.rest import named
from periplus_local.argo.rest.answers import answer, sent
from periplus_local.argo.rest.chosen import chosen
from periplus_local.argo.rest.picked import Picked
from periplus_local.argo.store import Row
from periplus_local.argo.workflows import Workflows
from periplus_manifest.errors import ManifestError

UNKNOWN = 2  # as Argo's lint answers, whatever is wrong
Body = dict[str, Any]


class Flows:
    """What clients ask of workflows as wholes."""

    def __init__(self, workflows: Workflows, shelves: Shelves) -> None:
        """Ask these workflows; templates are on those shelves."""
        self._workflows = workflows
        self._shelves = shelves

    async def create(self, request: Request) -> Response:
        """Check a workflow and start it."""
        asked = await sent(request)
        workflow, stored, idle = self._accepted(asked, request.path_params["namespace"])
        if asked.get("serverDryRun") or _is_dry(asked.get("createOptions")):
            return answer(workflow)
        run = self._workflows.create(workflow, stored, idle)
        return answer(run.document())

    async def lint(self, request: Request) -> Response:
        """Check a workflow only; its status says what would have no effect."""
        asked = await sent(request)
        try:
            workflow, _, idle = self._accepted(asked, request.path_params["namespace"])
        except (Fault, ManifestError) as error:
            raise Fault(UNKNOWN, str(error)) from error
        said = birth.warning(idle)
        return answer({**workflow, "status": said} if said else workflow)

    def _accepted(self, asked: Body, namespace: str) -> tuple[Body, Body | None, list[str]]:
        workflow = asked.get("workflow")
        if not isinstance(workflow, dict):
            raise invalid("workflow body not specified")
        metadata = workflow.get("metadata")
        if not isinstance(metadata, dict):
            raise invalid("metadata: is not an object")
        if metadata.get("namespace", namespace) not in {"", namespace}:
            raise invalid(
                "metadata.namespace: the namespace of the provided object does not match the namespace sent on "
                f"the request, {namespace}"
            )
        workflow = {**workflow, "metadata": {**metadata, "namespace": namespace}}
        return submission.accepted(workflow, self._shelves, self._workflows.around.endpoint)

    async def get(self, request: Request) -> Response:
        """One workflow, or the fields of it that were asked for."""
        picked = Picked(request.query_params.get("fields", ""))
        body = self._workflows.body(named.workflow(self._workflows, request))
        return answer(body if picked.all else picked.workflow(json.loads(body)))

    async def find(self, request: Request) -> Response:
        """The workflows of a namespace, newest first."""
        query = request.query_params
        start, limit = _page(query.get("listOptions.continue"), query.get("listOptions.limit"))
        test, picked = chosen(query), Picked(query.get("fields", ""))
        rows = [
            row for row in self._workflows.store.all(request.path_params.get("namespace", "")) if test(row)
        ]
        page = rows[start : start + limit] if limit else rows[start:]
        metadata: Body = {"resourceVersion": str(self._workflows.store.version)}
        if start + len(page) < len(rows):
            metadata["continue"] = str(start + len(page))
        if picked.all:
            items = b"[" + b",".join(self._workflows.body(row) for row in page) + b"]" if page else b"null"
            return answer(b'{"metadata":%s,"items":%s}' % (json.dumps(metadata).encode(), items))
        nodes = picked.has("items.status.nodes")
        bodies = [json.loads(self._workflows.body(row)) if nodes else _slim(row) for row in page]
        return answer(picked.workflows({"metadata": metadata, "items": bodies or None}))

    async def delete(self, request: Request) -> Response:
        """Remove a workflow; what of it runs is ended first."""
        place = request.path_params
        await self._workflows.delete(place["namespace"], place["name"])
        return answer({})


def _is_dry(options: Any) -> bool:
    return isinstance(options, dict) and bool(options.get("dryRun"))


def _page(start: str | None, limit: str | None) -> tuple[int, int]:
    try:
        found = int(start or 0), int(limit or 0)
    except ValueError as error:
        raise invalid("listOptions: continue and limit are numbers") from error
    if min(found) < 0:
        raise invalid("listOptions: continue and limit are not below 0")
    return found


def _slim(row: Row) -> Body:
    metadata = {**row.metadata, "resourceVersion": str(row.version)}
    return {"metadata": metadata, "spec": row.spec, "status": row.status}
