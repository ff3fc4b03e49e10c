"""The handlers of `/api/v1/workflows`: make, find, list, remove."""

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from periplus_local.argo import selector, submission
from periplus_local.argo.faults import invalid
from periplus_local.argo.library import Shelves
from periplus_local.argo.rest.answers import answer, sent, texts
from periplus_local.argo.store import Row
from periplus_local.argo.workflows import Workflows

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
        """Check a workflow only."""
        workflow, _, _ = self._accepted(await sent(request), request.path_params["namespace"])
        return answer(workflow)

    def _accepted(self, asked: Body, namespace: str) -> tuple[Body, Body | None, list[str]]:
        workflow = asked.get("workflow")
        if not isinstance(workflow, dict):
            raise invalid("workflow body not specified")
        metadata = workflow.get("metadata")
        if not isinstance(metadata, dict):
            raise invalid("metadata: is not an object")
        workflow = {**workflow, "metadata": {**metadata, "namespace": metadata.get("namespace") or namespace}}
        return submission.accepted(workflow, self._shelves, self._workflows.around.endpoint)

    async def submit(self, request: Request) -> Response:
        """Start a workflow from a WorkflowTemplate."""
        asked = await sent(request)
        kind, name = str(asked.get("resourceKind", "")), str(asked.get("resourceName", ""))
        if kind.lower() not in {"workflowtemplate", "clusterworkflowtemplate"}:
            raise invalid(f"resource kind '{kind}' is not a WorkflowTemplate")
        cluster = kind.lower().startswith("cluster")
        self._shelves.spec_of(name, cluster)
        options = asked.get("submitOptions") or {}
        if not isinstance(options, dict) or not isinstance(options.get("labels", ""), str):
            raise invalid("submitOptions: is not an object with labels as a text")
        reference = {"name": name, **({"clusterScope": True} if cluster else {})}
        spec: Body = {"workflowTemplateRef": reference, **_arguments(texts(options, "parameters"))}
        for key, field in (("entryPoint", "entrypoint"), ("serviceAccount", "serviceAccountName")):
            if options.get(key):
                spec[field] = options[key]
        label = "cluster-workflow-template" if cluster else "workflow-template"
        labels = {**_pairs(options.get("labels", "")), f"workflows.argoproj.io/{label}": name}
        named = {"name": options["name"]} if options.get("name") else {"generateName": f"{name}-"}
        if options.get("generateName"):
            named = {"generateName": options["generateName"]}
        workflow = {"metadata": {**named, "labels": labels}, "spec": spec}
        made = self._accepted({"workflow": workflow}, request.path_params["namespace"])
        return answer(self._workflows.create(*made).document())

    async def get(self, request: Request) -> Response:
        """One workflow."""
        place = request.path_params
        return answer(self._workflows.body(self._workflows.row(place["namespace"], place["name"])))

    async def find(self, request: Request) -> Response:
        """The workflows of a namespace, newest first."""
        query = request.query_params
        matches = selector.labels(query.get("listOptions.labelSelector", ""))
        start, limit = _page(query.get("listOptions.continue"), query.get("listOptions.limit"))
        rows = [row for row in self._rows(request) if matches(row.metadata.get("labels") or {})]
        chosen = rows[start : start + limit] if limit else rows[start:]
        metadata: Body = {"resourceVersion": str(self._workflows.store.version)}
        if start + len(chosen) < len(rows):
            metadata["continue"] = str(start + len(chosen))
        head = json.dumps(metadata).encode()
        slim = _leaves_out_nodes(query.get("fields", ""))
        bodies = [_slim(row) if slim else self._workflows.body(row) for row in chosen]
        items = b"[" + b",".join(bodies) + b"]" if bodies else b"null"
        return answer(b'{"metadata":%s,"items":%s}' % (head, items))

    def _rows(self, request: Request) -> list[Row]:
        return list(self._workflows.rows(request.path_params.get("namespace", "")))

    async def delete(self, request: Request) -> Response:
        """Remove a workflow; what of it runs is ended first."""
        place = request.path_params
        await self._workflows.delete(place["namespace"], place["name"])
        return answer({})


def _is_dry(options: Any) -> bool:
    return isinstance(options, dict) and bool(options.get("dryRun"))


def _arguments(parameters: list[str]) -> Body:
    made = []
    for pair in parameters:
        name, equals, value = pair.partition("=")
        if not equals:
            raise invalid(f"expected parameter of the form: NAME=VALUE. Received: {pair}")
        made.append({"name": name, "value": value})
    return {"arguments": {"parameters": made}} if made else {}


def _pairs(text: str) -> dict[str, str]:
    pairs = (pair.partition("=") for pair in text.split(",") if pair)
    return {key: value for key, _, value in pairs}


def _page(start: str | None, limit: str | None) -> tuple[int, int]:
    try:
        return int(start or 0), int(limit or 0)
    except ValueError as error:
        raise invalid("listOptions: continue and limit are numbers") from error


def _leaves_out_nodes(fields: str) -> bool:
    wanted = [field.strip() for field in fields.removeprefix("-").split(",") if field.strip()]
    if fields.startswith("-"):
        return any(field.endswith("status.nodes") for field in wanted)
    return bool(wanted) and not any("status.nodes" in field or field.endswith("status") for field in wanted)


def _slim(row: Row) -> bytes:
    metadata = {**row.metadata, "resourceVersion": str(row.version)}
    body = {"metadata": metadata, "spec": row.spec, "status": row.status}
    return json.dumps(body, ensure_ascii=False).encode()
