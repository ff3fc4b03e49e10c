"""A server for the Kubernetes API with Secrets and ConfigMaps that tests write."""

import base64
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote

METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"


@dataclass
class KubernetesApi:
    """Its objects by path, the status of each answer, and the requests with the type that they accept."""

    url: str = ""
    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    status: int = 200
    body: bytes | None = None
    delay_seconds: float = 0.0
    requests: list[tuple[str, str]] = field(default_factory=list)
    writes: int = 0

    def write(self, name: str, kind: str = "Secret", **data: str) -> None:
        """Create or replace an object of the namespace `argo`."""
        self.writes += 1
        encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
        self.objects[_path(kind, name)] = {
            "kind": kind,
            "metadata": {"name": name, "resourceVersion": str(1000 + self.writes)},
            "data": encoded if kind == "Secret" else data,
        }

    def delete(self, name: str, kind: str = "Secret") -> None:
        del self.objects[_path(kind, name)]

    @property
    def paths(self) -> list[str]:
        return [path for path, _ in self.requests]


def _path(kind: str, name: str) -> str:
    return f"/api/v1/namespaces/argo/{kind.lower()}s/{name}"


@contextmanager
def kubernetes_api() -> Iterator[KubernetesApi]:
    api = KubernetesApi()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            accept = self.headers.get("Accept", "")
            api.requests.append((unquote(self.path), accept))
            time.sleep(api.delay_seconds)
            found = api.objects.get(unquote(self.path))
            status = api.status if found or api.status != 200 else 404
            answer = {"kind": "Status"} if found is None else found
            if accept == METADATA_ONLY and found:
                answer = {"kind": "PartialObjectMetadata", "metadata": found["metadata"]}
            body = api.body if api.body is not None and status == 200 else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            try:
                self.wfile.write(body)
            except OSError:
                return  # whoever asked had enough

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        api.url = f"http://127.0.0.1:{server.server_port}"
        yield api
        server.shutdown()
