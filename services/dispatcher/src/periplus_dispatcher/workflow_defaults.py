"""What the controller of Argo adds to every Workflow: `workflowDefaults` of its ConfigMap, through the API of Kubernetes."""

import json
from functools import lru_cache
from urllib.parse import quote

import httpx

from periplus_common.errors import Unavailable
from periplus_dispatcher.domain import Json
from periplus_manifest.errors import ManifestError
from periplus_manifest.read import read

MAX_BYTES = 4 << 20
"""Kubernetes takes ConfigMaps of 1 MiB; the rest is metadata."""


class KubernetesDefaults:
    """Implements `WorkflowDefaults`. Needs the verb get for the ConfigMap; `config_map` is its namespace and name, with a slash."""

    def __init__(self, session: httpx.AsyncClient, config_map: str) -> None:
        self._session = session
        namespace, _, name = config_map.partition("/")
        self._path = f"api/v1/namespaces/{quote(namespace, safe='')}/configmaps/{quote(name, safe='')}"
        self._name = config_map

    async def read(self) -> Json:
        try:
            async with self._session.stream("GET", self._path) as response:
                body = bytearray()
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > MAX_BYTES:
                        raise Unavailable(f"the ConfigMap {self._name} is too large")
            if not response.is_success:
                raise Unavailable(
                    f"the ConfigMap {self._name} can not be read: Kubernetes answers {response.status_code}"
                )
            text = (json.loads(body).get("data") or {}).get("workflowDefaults") or "{}"
            return _parsed(str(text))
        except (httpx.HTTPError, OSError, ValueError, AttributeError, ManifestError) as error:
            raise Unavailable(
                f"the ConfigMap {self._name} can not be read: {error or type(error).__name__}"
            ) from error


@lru_cache(1)
def _parsed(text: str) -> Json:
    found = read(text)
    if not all(isinstance(found.get(field) or {}, dict) for field in ("spec", "metadata")):
        raise ValueError("its workflowDefaults are no Workflow")
    return found
