"""The Pods of Workflows, through the API of Kubernetes: what Argo's own API does not have, the images that really ran."""

import re
from collections.abc import Iterator

import httpx

from periplus_common.errors import Unavailable
from periplus_dispatcher.domain import ContainerImage, Json
from periplus_dispatcher.kubernetes import read_body

PAGE_PODS = 500
MAX_PAGES = 40
"""As many pods as a workflow may have nodes."""
MAX_PAGE_BYTES = 64 << 20
_NODE_ANNOTATION = "workflows.argoproj.io/node-id"
_WORKFLOW_LABEL = "workflows.argoproj.io/workflow"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}$")


class KubernetesPods:
    """Implements `Pods`. Needs the verb list in each namespace."""

    def __init__(self, session: httpx.AsyncClient) -> None:
        self._session = session

    async def list_images(self, namespace: str, workflow: str) -> dict[str, tuple[ContainerImage, ...]]:
        path = f"/api/v1/namespaces/{namespace}/pods"
        found: dict[str, tuple[ContainerImage, ...]] = {}
        parameters = {"labelSelector": f"{_WORKFLOW_LABEL}={workflow}", "limit": str(PAGE_PODS)}
        for _ in range(MAX_PAGES):
            page = await self._get(path, parameters)
            for pod in page.get("items") or ():
                metadata = pod.get("metadata") or {}
                if node := (metadata.get("annotations") or {}).get(_NODE_ANNOTATION):
                    found[node] = tuple(_images(pod))
            parameters["continue"] = (page.get("metadata") or {}).get("continue") or ""
            if not parameters["continue"]:
                return found
        return found

    async def _get(self, path: str, parameters: dict[str, str]) -> Json:
        try:
            async with self._session.stream("GET", path, params=parameters) as response:
                body = await read_body(response, MAX_PAGE_BYTES)
                response.raise_for_status()
            page = httpx.Response(200, content=body).json()
            if not isinstance(page, dict):
                raise TypeError("it is no object")
        except (httpx.HTTPError, OSError, ValueError, TypeError) as error:
            raise Unavailable(f"the pods can not be listed: {error or type(error).__name__}") from error
        return page


def _images(pod: Json) -> Iterator[ContainerImage]:
    """The user's and Argo's containers of a pod: the image as the pod names it, and the digest of what ran."""
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    digests = {
        each.get("name"): _DIGEST.search(str(each.get("imageID") or ""))
        for field in ("initContainerStatuses", "containerStatuses")
        for each in status.get(field) or ()
    }
    for field in ("initContainers", "containers"):
        for container in spec.get(field) or ():
            name = str(container.get("name", ""))
            digest = digests.get(name)
            yield ContainerImage(name, str(container.get("image", "")), digest[0] if digest else "")
