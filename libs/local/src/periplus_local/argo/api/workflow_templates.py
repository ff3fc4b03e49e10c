"""The handlers of `/api/v1/workflow-templates` and `/api/v1/cluster-workflow-templates`."""

from starlette.requests import Request
from starlette.responses import Response

from periplus_local.argo.api.requests import read_json
from periplus_local.argo.api.responses import json_response
from periplus_local.argo.errors import invalid_argument
from periplus_local.argo.selectors import label_selector
from periplus_local.argo.template_store import TemplateStore


class TemplateHandlers:
    """Requests about templates of one kind ("WorkflowTemplate" or "ClusterWorkflowTemplate")."""

    def __init__(self, kind: str, templates: TemplateStore) -> None:
        self._kind = kind
        self._templates = templates

    async def create(self, request: Request) -> Response:
        """Store a new template."""
        template = (await read_json(request)).get("template")
        return json_response(self._templates.create(self._kind, _namespace(request), template))

    async def lint(self, request: Request) -> Response:
        """Validate a template only."""
        template = (await read_json(request)).get("template")
        return json_response(self._templates.validated(self._kind, template))

    async def get(self, request: Request) -> Response:
        """One template."""
        name = request.path_params["name"]
        return json_response(self._templates.get(self._kind, _namespace(request), name))

    async def update(self, request: Request) -> Response:
        """Replace a template; its name is in the path or, as Argo's own client sends it, only in the template."""
        template = (await read_json(request)).get("template")
        metadata = template.get("metadata") if isinstance(template, dict) else None
        own_name = metadata.get("name") if isinstance(metadata, dict) else None
        name = request.path_params.get("name") or own_name
        if not isinstance(name, str):
            raise invalid_argument("template.metadata.name: is required")
        return json_response(self._templates.update(self._kind, _namespace(request), name, template))

    async def list(self, request: Request) -> Response:
        """The templates, by name."""
        matches = label_selector(request.query_params.get("listOptions.labelSelector", ""))
        pattern = request.query_params.get("namePattern", "")
        items = [
            template
            for template in self._templates.templates(self._kind, _namespace(request))
            if pattern in template["metadata"]["name"] and matches(template["metadata"].get("labels") or {})
        ]
        return json_response({"metadata": {}, "items": items or None})

    async def delete(self, request: Request) -> Response:
        """Delete a template."""
        self._templates.delete(self._kind, _namespace(request), request.path_params["name"])
        return json_response({})


def _namespace(request: Request) -> str:
    return str(request.path_params.get("namespace", ""))
