"""The handlers of `/artifacts/…` and `/input-artifacts/…`: the bytes of what a step read or made."""

import tempfile
import urllib.parse
from pathlib import Path
from typing import Any, Protocol

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from periplus_local.argo.executor.artifact_repository import NoSuchKeyError
from periplus_local.argo.executor.job import PodError
from periplus_local.argo.faults import internal, missing
from periplus_local.argo.nodes import Node
from periplus_local.argo.rest import named
from periplus_local.argo.workflows import Workflows

# What a step made may be a web page; it may do nothing where it is shown.
SANDBOX = "sandbox; base-uri 'none'; default-src 'none'; img-src 'self'; style-src 'self' 'unsafe-inline'"


class ArtifactSource(Protocol):
    """Downloads artifacts (the executor)."""

    async def fetch(self, location: dict[str, Any], to: Path) -> None:
        """Download an S3 object to the file `to`, or the objects below its key to that folder."""
        ...


class Artifacts:
    """What clients ask of the artifacts of a node."""

    def __init__(self, workflows: Workflows, executor: ArtifactSource) -> None:
        """The artifacts of these workflows, which these pods can fetch."""
        self._workflows = workflows
        self._executor = executor

    async def made(self, request: Request) -> Response:
        """An artifact that a node put out."""
        return await self._sent(request, "outputs")

    async def read(self, request: Request) -> Response:
        """An artifact that a node took in."""
        return await self._sent(request, "inputs")

    async def _sent(self, request: Request, side: str) -> Response:
        place = self._place(request, side)
        folder = tempfile.TemporaryDirectory(prefix="argo-artifact-")
        file = Path(folder.name) / "content"
        try:
            await self._executor.fetch(place, file)
        except (PodError, NoSuchKeyError, OSError) as error:
            folder.cleanup()
            raise internal(f"the artifact cannot be fetched: {error}") from error
        if file.is_dir():
            folder.cleanup()
            raise internal(f"the artifact is a folder of objects: read those below the key {place['key']}")
        name = urllib.parse.quote(str(place["key"]).rpartition("/")[2])
        headers = {"Content-Disposition": f'filename="{name}"', "Content-Security-Policy": SANDBOX}
        return FileResponse(
            file,
            headers={**headers, "X-Content-Type-Options": "nosniff"},
            media_type="application/octet-stream",
            background=BackgroundTask(folder.cleanup),
        )

    def _place(self, request: Request, side: str) -> dict[str, Any]:
        asked = request.path_params
        row = named.workflow(self._workflows, request)
        nodes = [node for node in named.nodes(self._workflows, row) if node["id"] == asked["node"]]
        if not nodes:
            raise missing(f'node "{asked["node"]}" not found')
        return _place(nodes[0], side, asked["artifact"])


def _place(node: Node, side: str, name: str) -> dict[str, Any]:
    for artifact in (node.get(side) or {}).get("artifacts") or ():
        if artifact["name"] == name:
            if "s3" not in artifact:
                raise internal(f"artifact {name} has no place in the store")
            return dict(artifact["s3"])
    raise missing(f'artifact "{name}" not found')
