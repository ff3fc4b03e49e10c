"""Tokens that are replaced while the process runs."""

from collections.abc import Generator
from pathlib import Path

import httpx


class _TokenFile(httpx.Auth):
    """Sends the token of a file, read for each request: Kubernetes replaces a pod's every hour."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["Authorization"] = f"Bearer {self._path.read_text().strip()}"
        yield request


def token_auth(path: str) -> httpx.Auth | None:
    """For a session of httpx; None without a path. A file that can not be read is an `OSError` of the request."""
    return _TokenFile(Path(path)) if path else None
