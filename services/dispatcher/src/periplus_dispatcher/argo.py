"""The REST API of Argo, real or local. The only file that imports hera."""

import json
import logging
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
from hera.exceptions import HeraException
from hera.workflows import models
from hera.workflows.async_service import AsyncWorkflowsService
from pydantic import ValidationError

from periplus_common.errors import Invalid, NotFound, PeriplusError, Unavailable
from periplus_dispatcher.domain import Json
from periplus_dispatcher.rewrite.rewriter import MANAGED_LABEL

log = logging.getLogger(__name__)

UNKNOWN = 2  # a gRPC code
LOCAL = "periplus"  # what the local Argo's version says of it
TIMEOUT = httpx.Timeout(10, connect=2)  # an order asks three times, and its caller waits for a minute
STREAM = httpx.Timeout(None, connect=5)  # a stream is quiet while nothing happens


class HeraArgo:
    """One namespace of one Argo."""

    def __init__(self, service: AsyncWorkflowsService, namespace: str) -> None:
        self._service = service
        self._session = service.session
        self._namespace = namespace
        self._local: bool | None = None

    @property
    def namespace(self) -> str:
        return self._namespace

    async def is_local(self) -> bool:
        if self._local is None:
            version = await self._raw("GET", "version")
            self._local = LOCAL in version.get("version", "")
        return self._local

    async def lint(self, manifest: Json) -> tuple[str, ...]:
        found = await self._raw("POST", f"workflows/{self._namespace}/lint", json={"workflow": manifest})
        conditions = (found.get("status") or {}).get("conditions") or ()
        return tuple(item.get("message", "") for item in conditions if item.get("type") == "SpecWarning")

    async def create(self, manifest: Json) -> None:
        # hera's models drop fields they do not know: what they would change goes as it is.
        modelled = _modelled(manifest)
        try:
            if modelled is not None:
                request = models.WorkflowCreateRequest(workflow=modelled)
                await _told(self._service.create_workflow(request, self._namespace))
            else:
                await self._raw("POST", f"workflows/{self._namespace}", json={"workflow": manifest})
        except _Exists:
            log.info("%s was there already", manifest["metadata"]["name"])

    async def get(self, name: str) -> Json | None:
        try:
            return await self._raw("GET", f"workflows/{self._namespace}/{name}")
        except NotFound:
            return None

    async def answer_gate(self, name: str, node: str, parameters: Mapping[str, str], message: str) -> None:
        request = models.WorkflowSetRequest(
            name=name,
            namespace=self._namespace,
            node_field_selector=f"id={node}",
            phase="Succeeded",
            message=message,
            output_parameters=json.dumps(parameters),
        )
        try:
            await _told(self._service.set_workflow(name, request, self._namespace))
        except _NoGate as error:
            raise NotFound(str(error)) from error

    async def stop(self, name: str, *, terminate: bool, message: str) -> None:
        try:
            if terminate:
                end = models.WorkflowTerminateRequest(name=name, namespace=self._namespace)
                await _told(self._service.terminate_workflow(name, end, self._namespace))
            else:
                stop = models.WorkflowStopRequest(name=name, namespace=self._namespace, message=message)
                await _told(self._service.stop_workflow(name, stop, self._namespace))
        except (NotFound, _Over) as error:
            log.info("%s: nothing to stop: %s", name, error)

    async def watch(self) -> AsyncIterator[Json | None]:
        """Our Workflows as they change, from now on. None first: what happened before is for the caller to look up.

        Ends when the stream does, as Argo ends it now and then. Raises `Unavailable`.
        """
        listed = await self._raw(
            "GET", f"workflows/{self._namespace}", params={"listOptions.limit": "1", "fields": "metadata"}
        )
        parameters = {
            "listOptions.labelSelector": f"{MANAGED_LABEL}=true",
            "listOptions.resourceVersion": (listed.get("metadata") or {}).get("resourceVersion", ""),
        }
        async for event in self._stream(f"workflow-events/{self._namespace}", parameters, opened={}):
            yield event.get("object") if event else None

    async def logs(self, name: str, *, follow: bool) -> AsyncIterator[tuple[str, str]]:
        parameters = {"logOptions.container": "main", "logOptions.follow": str(follow).lower()}
        async for entry in self._stream(f"workflows/{self._namespace}/{name}/log", parameters):
            yield entry.get("podName", ""), entry.get("content", "")

    async def _stream(
        self, path: str, parameters: Mapping[str, str], opened: Json | None = None
    ) -> AsyncIterator[Json]:
        """The results of a streaming call, as server-sent events or as lines of JSON; `opened` first, if given."""
        headers = {"Accept": "text/event-stream", "Authorization": self._service.token or ""}
        try:
            async with self._session.stream(
                "GET", self._url(path), params=dict(parameters), headers=headers, timeout=STREAM
            ) as response:
                if not response.is_success:
                    await response.aread()
                    raise _error(response)
                if opened is not None:
                    yield opened
                async for line in response.aiter_lines():
                    # Besides its data, a stream of events has names of events and comments that keep it alive.
                    if line.startswith(("data:", "{")):
                        yield _result(line.removeprefix("data:"))
        except httpx.HTTPError as error:
            raise Unavailable(f"Argo ended the stream {path}: {error or type(error).__name__}") from error

    async def _raw(self, method: str, path: str, **options: Any) -> Json:
        """A call without hera's models, which drop what they do not know."""
        try:
            response = await self._session.request(
                method, self._url(path), headers={"Authorization": self._service.token or ""}, **options
            )
        except httpx.HTTPError as error:
            raise Unavailable(f"Argo is away: {error or type(error).__name__}") from error
        if not response.is_success:
            raise _error(response)
        return _object(response.text)

    def _url(self, path: str) -> str:
        return f"{self._service.host}api/v1/{path}"


class _Exists(PeriplusError):
    """A Workflow of this name is there already."""


class _Over(PeriplusError):
    """The Workflow has ended."""


class _NoGate(PeriplusError):
    """The gate was answered, or its time passed."""


def _modelled(manifest: Json) -> models.Workflow | None:
    """The manifest as hera's model; None where the model would not say the same."""
    try:
        modelled = models.Workflow.model_validate(manifest)
    except ValidationError:
        return None
    said = modelled.model_dump_json(exclude_none=True, by_alias=True, exclude_unset=True)
    return modelled if json.loads(said) == manifest else None


async def _told(call: Awaitable[object]) -> None:
    """What hera raises, in our kinds. What Argo answers to a deed is not asked for."""
    try:
        await call
    except ValidationError as error:
        log.warning("Argo did it, and answered what hera does not know: %s", error)
    except ValueError as error:
        raise Unavailable(f"Argo answers no JSON: {error}") from error
    except httpx.HTTPError as error:
        raise Unavailable(f"Argo is away: {error or type(error).__name__}") from error
    except HeraException as error:
        raise _kind(getattr(error, "status_code", 0), str(error)) from error


def _error(response: httpx.Response) -> PeriplusError:
    try:
        told = response.json()
    except ValueError:
        told = None
    if not isinstance(told, dict):
        return _kind(response.status_code, response.text[:500])
    message = str(told.get("message", response.text))
    # Argo's lint says of a manifest that it refuses no more than that something is wrong.
    return _kind(400 if told.get("code") == UNKNOWN else response.status_code, message)


def _kind(status: int, message: str) -> PeriplusError:
    if "no suspend nodes matching" in message or "not expecting output parameter" in message:
        return _NoGate(message)
    if "cannot shutdown a completed workflow" in message:
        return _Over(message)
    if status == 409 or "already exists" in message:
        return _Exists(message)
    if status == 404:
        return NotFound(f"Argo: {message}")
    if status in (400, 422):
        path, _, rest = message.partition(": ")
        located = path if rest and " " not in path else ""
        field = f"spec.manifest.{located}" if located else "spec.manifest"
        return Invalid(rest if located else message, field=field, reason="ARGO_REFUSED")
    return Unavailable(f"Argo answers {status}: {message}")


def _result(line: str) -> Json:
    entry = _object(line)
    if not isinstance(result := entry.get("result"), dict):
        raise Unavailable(f"Argo ended the stream: {str(entry.get('error', entry))[:500]}")
    return result


def _object(text: str) -> Json:
    """What Argo answers. What is no JSON object comes from somebody else: a proxy, another server."""
    try:
        found = json.loads(text)
    except ValueError as error:
        raise Unavailable(f"Argo answers no JSON: {text[:100]!r}") from error
    if not isinstance(found, dict):
        raise Unavailable(f"Argo answers no JSON object: {text[:100]!r}")
    return found


@asynccontextmanager
async def connect(url: str, token: str, namespace: str) -> AsyncIterator[HeraArgo]:
    """Argo at an address. Nothing is sent yet."""
    # Each who follows logs holds a connection: they must not keep everybody else from Argo.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
    async with httpx.AsyncClient(timeout=TIMEOUT, limits=limits) as session:
        # A host without its last slash would lose the path's prefix.
        service = AsyncWorkflowsService(
            host=url.rstrip("/") + "/", token=token or None, namespace=namespace, session=session
        )
        yield HeraArgo(service, namespace)
