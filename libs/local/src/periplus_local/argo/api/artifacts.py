"""The handlers of `/artifacts/…` and `/input-artifacts/…`: the bytes of the artifacts of a node."""

import tempfile
import urllib.parse
from pathlib import Path
from typing import Any, Protocol

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from periplus_local.argo.api.requests import nodes_of, workflow_of
from periplus_local.argo.controller.nodes import Node
from periplus_local.argo.controller.workflow_controller import WorkflowController
from periplus_local.argo.errors import internal, not_found
from periplus_local.argo.executor.artifact_repository import NoSuchKeyError
from periplus_local.argo.executor.job import PodError

# An artifact may be a web page; the browser must not run what is in it.
CONTENT_SECURITY_POLICY = (
    "sandbox; base-uri 'none'; default-src 'none'; img-src 'self'; style-src 'self' 'unsafe-inline'"
)


class ArtifactSource(Protocol):
    """Downloads artifacts (the executor)."""

    async def fetch(self, location: dict[str, Any], to: Path) -> None:
        """Download an S3 object to the file `to`, or the objects below its key to that folder."""
        ...


class ArtifactHandlers:
    """Requests for the artifacts of a node."""

    def __init__(self, controller: WorkflowController, executor: ArtifactSource) -> None:
        self._controller = controller
        self._executor = executor

    async def output(self, request: Request) -> Response:
        """An output artifact of a node."""
        return await self._download(request, "outputs")

    async def input(self, request: Request) -> Response:
        """An input artifact of a node."""
        return await self._download(request, "inputs")

    async def _download(self, request: Request, side: str) -> Response:
        location = self._location(request, side)
        folder = tempfile.TemporaryDirectory(prefix="argo-artifact-")
        file = Path(folder.name) / "content"
        try:
            await self._executor.fetch(location, file)
        except (PodError, NoSuchKeyError, OSError) as error:
            folder.cleanup()
            raise internal(f"the artifact cannot be fetched: {error}") from error
        if file.is_dir():
            folder.cleanup()
            raise internal(f"the artifact is a folder of objects: read those below the key {location['key']}")
        name = urllib.parse.quote(str(location["key"]).rpartition("/")[2])
        headers = {
            "Content-Disposition": f'filename="{name}"',
            "Content-Security-Policy": CONTENT_SECURITY_POLICY,
            "X-Content-Type-Options": "nosniff",
        }
        return FileResponse(
            file,
            headers=headers,
            media_type="application/octet-stream",
            background=BackgroundTask(folder.cleanup),
        )

    def _location(self, request: Request, side: str) -> dict[str, Any]:
        path = request.path_params
        row = workflow_of(self._controller, request)
        nodes = [node for node in nodes_of(self._controller, row) if node["id"] == path["node"]]
        if not nodes:
            raise not_found(f'node "{path["node"]}" not found')
        return _s3_location(nodes[0], side, path["artifact"])


def _s3_location(node: Node, side: str, name: str) -> dict[str, Any]:
    for artifact in (node.get(side) or {}).get("artifacts") or ():
        if artifact["name"] == name:
            if "s3" not in artifact:
                raise internal(f"artifact {name} has no S3 location")
            return dict(artifact["s3"])
    raise not_found(f'artifact "{name}" not found')
