"""A registry of images on loopback that misbehaves as its test says, and what was sent to it."""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@dataclass
class Reply:
    """What is sent back; `close` ends the connection after the head."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


Answer = Callable[["Registry", str, str, dict[str, str]], Reply | None]
"""From the registry, method, path and headers of a request to a reply; None: as a registry should."""


@dataclass
class Registry:
    """Its images by repository and tag or digest, and every request that it got."""

    name: str
    answer: Answer
    contents: dict[tuple[str, str], tuple[bytes, str]] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    def put(self, repository: str, tag: str, document: dict[str, object], media_type: str = MANIFEST) -> str:
        """Store a manifest by its tag and its digest, which is returned."""
        body = json.dumps(document).encode()
        digest = sha256(body)
        self.contents[repository, tag] = self.contents[repository, digest] = (body, media_type)
        return digest

    def authorizations(self) -> list[str]:
        """The Authorization headers that were sent to it."""
        return [headers["authorization"] for _, _, headers in self.requests if "authorization" in headers]

    def usual(self, path: str) -> Reply:
        """What a registry should answer."""
        repository, _, tag = path.removeprefix("/v2/").partition("/manifests/")
        if (repository, tag) not in self.contents:
            return Reply(404)
        body, media_type = self.contents[repository, tag]
        return Reply(200, {"Content-Type": media_type, "Docker-Content-Digest": sha256(body)}, body)


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def image(text: str = "") -> dict[str, object]:
    """The manifest of an image that differs from others by a text."""
    config = {
        "mediaType": "application/vnd.oci.image.config.v1+json",
        "digest": sha256(text.encode()),
        "size": 2,
    }
    return {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": []}


@contextmanager
def serving(answer: Answer = lambda *_: None) -> Iterator[Registry]:
    """A registry on a free port of loopback."""
    registry = Registry("", answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            registry.requests.append((self.command, self.path, headers))
            reply = registry.answer(registry, self.command, self.path, headers) or registry.usual(self.path)
            self.send_response(reply.status)
            for name, value in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(reply.body)

        do_GET = do_HEAD = do_POST = _handle  # noqa: N815 - of the base class

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    registry.name = f"127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield registry
    finally:
        registry.stopping.set()
        server.shutdown()
        server.server_close()
