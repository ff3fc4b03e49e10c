"""The handlers of `/api/v1/workflows`: create, lint, submit from a template, get, list, delete."""

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from periplus_local.argo.api.field_mask import FieldMask
from periplus_local.argo.api.list_filter import list_filter
from periplus_local.argo.api.requests import read_json, string_list, workflow_of
from periplus_local.argo.api.responses import json_response
from periplus_local.argo.controller.workflow_controller import WorkflowController
from periplus_local.argo.controller.workflow_resubmit import with_parameters
from periplus_local.argo.errors import UNKNOWN, ArgoError, invalid_argument
from periplus_local.argo.storage.state_store import WorkflowRow
from periplus_local.argo.submission.new_workflow import ignored_fields_warning, new_metadata
from periplus_local.argo.submission.validate import ValidWorkflow, validated
from periplus_local.argo.template_store import CLUSTER_KIND, NAMESPACED_KIND, TemplateStore
from periplus_manifest.errors import ManifestError

RESOURCE_KINDS = {
    **dict.fromkeys(("workflowtemplate", "workflowtemplates", "wftmpl"), NAMESPACED_KIND),
    **dict.fromkeys(("clusterworkflowtemplate", "clusterworkflowtemplates", "cwftmpl", "cwft"), CLUSTER_KIND),
}
TEMPLATE_LABELS = {NAMESPACED_KIND: "workflow-template", CLUSTER_KIND: "cluster-workflow-template"}
TEXT_OPTIONS = ("name", "generateName", "entryPoint", "serviceAccount", "labels", "annotations")
SPEC_OPTIONS = {
    "entryPoint": "entrypoint",
    "serviceAccount": "serviceAccountName",
    "priority": "priority",
}
LIST_OPTIONS = ("parameters",)
DRY_RUN_OPTIONS = ("dryRun", "serverDryRun")
Body = dict[str, Any]


class WorkflowHandlers:
    """Requests about workflows as wholes."""

    def __init__(self, controller: WorkflowController, templates: TemplateStore) -> None:
        self._controller = controller
        self._templates = templates

    async def create(self, request: Request) -> Response:
        """Validate a workflow and start it."""
        body = await read_json(request)
        valid = self._validated(body, request.path_params["namespace"])
        if body.get("serverDryRun") or _is_dry_run(body.get("createOptions")):
            return json_response(valid.workflow)
        return json_response(self._controller.create(valid).to_json())

    async def lint(self, request: Request) -> Response:
        """Validate a workflow only; its status has the warning about ignored fields."""
        body = await read_json(request)
        try:
            valid = self._validated(body, request.path_params["namespace"])
        except (ArgoError, ManifestError) as error:
            raise ArgoError(UNKNOWN, str(error)) from error  # as Argo answers, whatever is wrong
        warning = ignored_fields_warning(valid.ignored_fields)
        return json_response({**valid.workflow, "status": warning} if warning else valid.workflow)

    def _validated(self, body: Body, namespace: str) -> ValidWorkflow:
        workflow = body.get("workflow")
        if not isinstance(workflow, dict):
            raise invalid_argument("workflow body not specified")
        metadata = workflow.get("metadata")
        if not isinstance(metadata, dict):
            raise invalid_argument("metadata: is not an object")
        if metadata.get("namespace", namespace) not in {"", namespace}:
            raise invalid_argument(
                "metadata.namespace: the namespace of the provided object does not match the namespace sent on "
                f"the request, {namespace}"
            )
        workflow = {**workflow, "metadata": {**metadata, "namespace": namespace}}
        return validated(workflow, self._templates, self._controller.context.s3_endpoint)

    async def submit(self, request: Request) -> Response:
        """Start a workflow from a stored template; with a dry run, answer what would be started."""
        body = await read_json(request)
        kind, name = str(body.get("resourceKind", "")), str(body.get("resourceName", ""))
        found = RESOURCE_KINDS.get(kind.lower())
        if found is None:
            raise invalid_argument(f"Resource kind '{kind}' is not supported for submitting")
        self._templates.spec_of(name, found == CLUSTER_KIND)
        options = _checked_options(body.get("submitOptions") or {})
        workflow = _workflow_from_template(found, name, options)
        workflow["metadata"]["namespace"] = request.path_params["namespace"]
        valid = validated(workflow, self._templates, self._controller.context.s3_endpoint)
        if options.get("dryRun"):
            return json_response(valid.workflow)
        if options.get("serverDryRun"):
            return json_response({**valid.workflow, "metadata": new_metadata(valid.workflow)})
        return json_response(self._controller.create(valid).to_json())

    async def get(self, request: Request) -> Response:
        """One workflow, or the fields of the mask."""
        mask = FieldMask(request.query_params.get("fields", ""))
        body = self._controller.workflow_json(workflow_of(self._controller, request))
        return json_response(body if mask.is_empty else mask.of_workflow(json.loads(body)))

    async def list(self, request: Request) -> Response:
        """The workflows of a namespace, newest first."""
        query, state = request.query_params, self._controller.state
        start, limit = _page(query.get("listOptions.continue"), query.get("listOptions.limit"))
        matches, mask = list_filter(query), FieldMask(query.get("fields", ""))
        rows = [row for row in state.workflows(request.path_params.get("namespace", "")) if matches(row)]
        page = rows[start : start + limit] if limit else rows[start:]
        metadata: Body = {"resourceVersion": str(state.version)}
        if start + len(page) < len(rows):
            metadata["continue"] = str(start + len(page))
        if mask.is_empty:
            bodies = b",".join(self._controller.workflow_json(row) for row in page)
            items = b"[" + bodies + b"]" if page else b"null"
            return json_response(b'{"metadata":%s,"items":%s}' % (json.dumps(metadata).encode(), items))
        needs_nodes = mask.includes("items.status.nodes")
        workflows = [
            json.loads(self._controller.workflow_json(row)) if needs_nodes else _without_nodes(row)
            for row in page
        ]
        return json_response(mask.of_list({"metadata": metadata, "items": workflows or None}))

    async def delete(self, request: Request) -> Response:
        """Delete a workflow; its running steps are ended first."""
        path = request.path_params
        await self._controller.delete(path["namespace"], path["name"])
        return json_response({})


def _is_dry_run(options: Any) -> bool:
    return isinstance(options, dict) and bool(options.get("dryRun"))


def _page(start: str | None, limit: str | None) -> tuple[int, int]:
    try:
        page = int(start or 0), int(limit or 0)
    except ValueError as error:
        raise invalid_argument("listOptions: continue and limit are numbers") from error
    if min(page) < 0:
        raise invalid_argument("listOptions: continue and limit are not below 0")
    return page


def _without_nodes(row: WorkflowRow) -> Body:
    metadata = {**row.metadata, "resourceVersion": str(row.version)}
    return {"metadata": metadata, "spec": row.spec, "status": row.status}


def _checked_options(options: Any) -> Body:
    if not isinstance(options, dict):
        raise invalid_argument("submitOptions: is not an object")
    for key, value in options.items():
        if not value:
            continue
        if key not in {*TEXT_OPTIONS, *SPEC_OPTIONS, *LIST_OPTIONS, *DRY_RUN_OPTIONS}:
            raise invalid_argument(f"submitOptions.{key}: does not work here")
        if key in TEXT_OPTIONS and not isinstance(value, str):
            raise invalid_argument(f"submitOptions.{key}: is not a string")
    return options


def _workflow_from_template(kind: str, name: str, options: Body) -> Body:
    reference = {"name": name, **({"clusterScope": True} if kind == CLUSTER_KIND else {})}
    spec: Body = {"workflowTemplateRef": reference}
    spec |= {field: options[key] for key, field in SPEC_OPTIONS.items() if options.get(key)}
    labels = {
        "workflows.argoproj.io/" + TEMPLATE_LABELS[kind]: name,
        **_pairs("labels", options.get("labels") or ""),
    }
    metadata: Body = {"labels": labels}
    if options.get("annotations"):
        metadata["annotations"] = _pairs("annotations", options["annotations"])
    if options.get("name"):
        metadata["name"] = options["name"]
    else:
        metadata["generateName"] = options.get("generateName") or f"{name}-"
    return {"metadata": metadata, "spec": with_parameters(spec, string_list(options, "parameters"))}


def _pairs(field: str, text: str) -> dict[str, str]:
    found = [pair.partition("=") for pair in text.split(",") if pair]
    if not all(equals for _, equals, _ in found):
        raise invalid_argument(f"submitOptions.{field}: {text!r} is not of the form KEY=VALUE,…")
    return {key: value for key, _, value in found}
