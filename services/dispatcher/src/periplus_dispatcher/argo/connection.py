"""Requests to the REST API of Argo, and what its errors mean."""

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
from hera.workflows.async_service import AsyncWorkflowsService

from periplus_common.errors import Invalid, NotFound, PeriplusError, Unavailable
from periplus_dispatcher.domain import Json

# gRPC codes, in the body of an error
_UNKNOWN = 2
_ALREADY_EXISTS = 6


@dataclass(frozen=True)
class ArgoTimeouts:
    """How long a request may take; streams are not limited once they are open.

    A submission makes two requests, and its caller waits for a minute.
    """

    connect: timedelta = timedelta(seconds=2)
    request: timedelta = timedelta(seconds=10)
    stream_connect: timedelta = timedelta(seconds=5)


class ArgoError(Exception):
    """An answer of Argo with an error status. `code` is the gRPC code of its body, None without one."""

    def __init__(self, status: int, code: int | None, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message

    @property
    def is_unknown(self) -> bool:
        """Whether it has gRPC's code for an error that has no code of its own."""
        return self.code == _UNKNOWN

    @property
    def is_already_exists(self) -> bool:
        return self.code == _ALREADY_EXISTS if self.code is not None else self.status == 409

    def kind(self) -> PeriplusError:
        """The error for callers."""
        if self.status == 404:
            return NotFound(f"Argo: {self.message}")
        if self.status in (400, 422):
            return invalid(self.message)
        return Unavailable(f"Argo answers {self.status}: {self.message}")


class AlreadyExists(PeriplusError):
    """A Workflow of this name exists already."""


class Connection:
    """Calls of one Argo. Requests and streams raise `ArgoError`; within `errors()` those of `periplus_common.errors`."""

    def __init__(self, service: AsyncWorkflowsService, timeouts: ArgoTimeouts) -> None:
        self.service = service
        """hera's calls, over the same session."""
        self._session = service.session
        self._stream_timeout = httpx.Timeout(None, connect=timeouts.stream_connect.total_seconds())

    async def request(self, method: str, path: str, **options: Any) -> Json:
        response = await self._session.request(method, self._url(path), headers=self._headers, **options)
        return _json_object(response.text)

    def _url(self, path: str) -> str:
        return f"{self.service.host}api/v1/{path}"

    @property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": self.service.token or ""}

    @asynccontextmanager
    async def stream(self, path: str, parameters: Mapping[str, str]) -> AsyncIterator[AsyncIterator[Json]]:
        """The results of a streaming call, from server-sent events or lines of JSON. Raises `Unavailable`, `NotFound`."""
        headers = {"Accept": "text/event-stream", **self._headers}
        with errors():
            async with self._session.stream(
                "GET", self._url(path), params=dict(parameters), headers=headers, timeout=self._stream_timeout
            ) as response:
                # Besides `data`, server-sent events have lines with names of events and comments as keep-alive.
                yield (
                    _result(line.removeprefix("data:"))
                    async for line in _lines(response)
                    if line.startswith(("data:", "{"))
                )


@contextmanager
def errors() -> Iterator[None]:
    """Raise the errors of `periplus_common.errors` for those of Argo and of the connection to it."""
    try:
        yield
    except ArgoError as error:
        raise (AlreadyExists(error.message) if error.is_already_exists else error.kind()) from error
    except (httpx.HTTPError, OSError) as error:  # OSError: of the file with the token
        raise Unavailable(f"Argo can not be reached: {error or type(error).__name__}") from error
    except (ValueError, TypeError) as error:  # of hera, for an answer that is no JSON object
        raise Unavailable(f"Argo answers no JSON object: {error}") from error


def invalid(message: str) -> Invalid:
    """Argo's messages begin with the path of the field, if there is one."""
    path, separator, description = message.partition(": ")
    if not separator or " " in path:
        return Invalid(message, field="spec.manifest", reason="ARGO_REFUSED")
    return Invalid(description, field=f"spec.manifest.{path}", reason="ARGO_REFUSED")


async def raise_for_error(response: httpx.Response) -> None:
    """A hook of the session: hera's own errors lack the gRPC code."""
    if response.is_success:
        return
    text = (await response.aread()).decode(errors="replace")
    body: object = None
    with suppress(ValueError):
        body = json.loads(text)
    if not isinstance(body, dict):
        raise ArgoError(response.status_code, None, text[:500])
    code = body.get("code")
    raise ArgoError(
        response.status_code, code if isinstance(code, int) else None, str(body.get("message", text))
    )


async def _lines(response: httpx.Response) -> AsyncIterator[str]:
    """The lines of a response. Only a newline ends one: httpx also ends them at U+0085 or U+2028, which a text in
    JSON can hold.
    """
    parts: list[bytes] = []
    async for chunk in response.aiter_bytes():
        first, *others = chunk.split(b"\n")
        parts.append(first)
        for other in others:
            yield b"".join(parts).decode(errors="replace")
            parts = [other]
    if last := b"".join(parts):
        yield last.decode(errors="replace")


def _result(line: str) -> Json:
    entry = _json_object(line)
    if not isinstance(result := entry.get("result"), dict):
        raise Unavailable(f"Argo ended the stream: {str(entry.get('error', entry))[:500]}")
    return result


def _json_object(text: str) -> Json:
    """A JSON object of Argo. Anything else comes from something in between, as a proxy."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unavailable(f"Argo answers no JSON object: {text[:100]!r}") from error
    if not isinstance(value, dict):
        raise Unavailable(f"Argo answers no JSON object: {text[:100]!r}")
    return value
