"""The handlers of `/api/v1/workflow-templates` and `/api/v1/cluster-workflow-templates`."""

from starlette.requests import Request
from starlette.responses import Response

from periplus_local.argo import selector
from periplus_local.argo.faults import invalid
from periplus_local.argo.library import Shelves
from periplus_local.argo.rest.answers import answer, sent


class Shelf:
    """What clients do with templates of one kind."""

    def __init__(self, kind: str, shelves: Shelves) -> None:
        """Templates of a kind ("WorkflowTemplate" or "ClusterWorkflowTemplate")."""
        self._kind = kind
        self._shelves = shelves

    async def create(self, request: Request) -> Response:
        """Keep a new template."""
        asked = await sent(request)
        namespace = request.path_params.get("namespace", "")
        return answer(self._shelves.create(self._kind, namespace, asked.get("template")))

    async def lint(self, request: Request) -> Response:
        """Check a template only."""
        return answer(self._shelves.checked(self._kind, (await sent(request)).get("template")))

    async def get(self, request: Request) -> Response:
        """One template."""
        place = request.path_params
        return answer(self._shelves.get(self._kind, place.get("namespace", ""), place["name"]))

    async def change(self, request: Request) -> Response:
        """Replace a template, which the path names or, as Argo's own client does, only the template itself."""
        asked, place = await sent(request), request.path_params
        template = asked.get("template")
        own = template.get("metadata") if isinstance(template, dict) else None
        name = place.get("name") or (own.get("name") if isinstance(own, dict) else None)
        if not isinstance(name, str):
            raise invalid("template.metadata.name: is required")
        return answer(self._shelves.change(self._kind, place.get("namespace", ""), name, template))

    async def find(self, request: Request) -> Response:
        """The templates, by name."""
        matches = selector.labels(request.query_params.get("listOptions.labelSelector", ""))
        found = self._shelves.all(self._kind, request.path_params.get("namespace", ""))
        pattern = request.query_params.get("namePattern", "")
        found = [item for item in found if pattern in item["metadata"]["name"]]
        items = [item for item in found if matches(item["metadata"].get("labels") or {})]
        return answer({"metadata": {}, "items": items or None})

    async def delete(self, request: Request) -> Response:
        """Take a template away."""
        place = request.path_params
        self._shelves.delete(self._kind, place.get("namespace", ""), place["name"])
        return answer({})
