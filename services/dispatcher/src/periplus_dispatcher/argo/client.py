"""The Workflows of a namespace of Argo, and the connection to it.

Calls go through hera, except where its models would lose something; the reason is beside each.
"""

import json
import logging
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import lru_cache
from urllib.parse import quote

import httpx
from hera.workflows import models
from hera.workflows.async_service import AsyncWorkflowsService
from pydantic import ValidationError

from periplus_common import unix_socket
from periplus_common.errors import Invalid, NotFound, Unavailable
from periplus_dispatcher.argo.connection import (
    AlreadyExists,
    ArgoError,
    ArgoTimeouts,
    Connection,
    errors,
    invalid,
    raise_for_error,
)
from periplus_dispatcher.argo.templates import ArgoTemplates
from periplus_dispatcher.domain import GateAnswer, Json
from periplus_dispatcher.kubernetes import KubernetesWorkflows
from periplus_dispatcher.ports import WorkflowTemplates
from periplus_dispatcher.token_file import token_auth

log = logging.getLogger(__name__)

_PAGE = 200
"""Workflows of a list that are asked for at a time; only their names are."""


class HeraArgo:
    """One namespace of one Argo."""

    def __init__(
        self, connection: Connection, namespace: str, kubernetes: KubernetesWorkflows | None = None
    ) -> None:
        self._connection = connection
        self._service = connection.service
        self._namespace = namespace
        self._kubernetes = kubernetes

    @property
    def namespace(self) -> str:
        return self._namespace

    async def lint(self, manifest: Json) -> tuple[str, ...]:
        model = _model(manifest)
        with errors():
            try:
                if model is not None:
                    linted = await self._service.lint_workflow(
                        models.WorkflowLintRequest(workflow=model), self._namespace
                    )
                    conditions = (linted.status.conditions if linted.status else None) or ()
                    return tuple(c.message or "" for c in conditions if c.type == "SpecWarning")
            except ValidationError as error:
                log.debug("hera can not read Argo's answer, which is read without it: %s", error)
            except ArgoError as error:
                raise _lint_error(error) from error
            # hera's models drop fields that they do not know, which Argo may refuse or warn of.
            try:
                answer = await self._connection.request(
                    "POST", f"workflows/{self._namespace}/lint", json={"workflow": manifest}
                )
            except ArgoError as error:
                raise _lint_error(error) from error
        warnings = (answer.get("status") or {}).get("conditions") or ()
        return tuple(w.get("message", "") for w in warnings if w.get("type") == "SpecWarning")

    async def create(self, manifest: Json) -> None:
        model = _model(manifest)
        try:
            with errors():
                if model is None:
                    # hera's models drop fields that they do not know: the step would be another one.
                    await self._connection.request(
                        "POST", f"workflows/{self._namespace}", json={"workflow": manifest}
                    )
                else:
                    with _unread_answer():
                        await self._service.create_workflow(
                            models.WorkflowCreateRequest(workflow=model), self._namespace
                        )
        except AlreadyExists:
            log.info("%s: Argo has this Workflow already", manifest["metadata"]["name"])

    async def get(self, name: str) -> Json | None:
        # Not by hera: its models drop what newer Argos add to a status and parse its times, while the same status in
        # an event is JSON. Both are read by the same code.
        try:
            with errors():
                return await self._connection.request("GET", f"workflows/{self._namespace}/{name}")
        except NotFound:
            return None

    async def get_template(self, name: str, *, cluster_scope: bool) -> Json | None:
        # Not by hera: its models drop fields that they do not know, and what a step does is part of its key.
        kind = "cluster-workflow-templates" if cluster_scope else f"workflow-templates/{self._namespace}"
        try:
            with errors():
                return await self._connection.request("GET", f"{kind}/{name}")
        except NotFound:
            return None

    async def answer_gates(self, name: str, answers: Mapping[str, GateAnswer]) -> set[str]:
        if self._kubernetes:
            try:
                return await self._kubernetes.answer_gates(name, answers)
            except (Unavailable, NotFound) as error:
                log.warning("%s: its gates are answered one by one through Argo: %s", name, error)
        ended = set()
        for node, answer in answers.items():  # one at a time: each reads and writes the whole Workflow
            try:
                await self.answer_gate(name, node, answer.parameters, answer.verdict.reason)
            except NotFound as error:
                log.info("%s: %s is not suspended any more: %s", name, node, error)
                ended.add(node)
        return ended

    async def answer_gate(self, name: str, node: str, parameters: Mapping[str, str], message: str) -> None:
        """Set the outputs of one suspend node and end it. Raises `NotFound` if it is not suspended (any more)."""
        request = models.WorkflowSetRequest(
            name=name,
            namespace=self._namespace,
            node_field_selector=f"id={node}",
            phase="Succeeded",
            message=message,
            output_parameters=json.dumps(parameters),
        )
        with errors(), _unread_answer():
            try:
                await self._service.set_workflow(name, request, self._namespace)
            except ArgoError as error:
                # Argo has no code for a node that is not suspended any more: 500 and gRPC's INTERNAL.
                if "no suspend nodes matching" in error.message or "not expecting output" in error.message:
                    raise NotFound(error.message) from error
                raise

    async def stop(self, name: str, *, terminate: bool, message: str) -> None:
        try:
            with errors(), _unread_answer():
                if terminate:
                    end = models.WorkflowTerminateRequest(name=name, namespace=self._namespace)
                    await self._service.terminate_workflow(name, end, self._namespace)
                else:
                    stop = models.WorkflowStopRequest(name=name, namespace=self._namespace, message=message)
                    await self._service.stop_workflow(name, stop, self._namespace)
        except NotFound as error:
            log.info("%s: there is no Workflow to stop: %s", name, error)
        except (Invalid, Unavailable) as error:
            # Argo has no code of its own for this either.
            if "cannot shutdown a completed workflow" not in str(error):
                raise
            log.info("%s: its Workflow has finished already", name)

    def in_namespace(self, namespace: str) -> "HeraArgo":
        """The same Argo, another namespace."""
        kubernetes = self._kubernetes.in_namespace(namespace) if self._kubernetes else None
        return HeraArgo(self._connection, namespace, kubernetes)

    def templates(self) -> WorkflowTemplates:
        """The WorkflowTemplates and CronWorkflows of the namespace, through Kubernetes where its API is given."""
        return self._kubernetes or ArgoTemplates(self._connection, self._namespace)

    async def list(self, selector: str, *, archived: bool) -> AsyncIterator[tuple[str, str]]:
        fields = "metadata,items.metadata.name,items.metadata.uid"
        options = {"listOptions.labelSelector": selector, "listOptions.limit": str(_PAGE), "fields": fields}
        path = f"workflows/{self._namespace}"
        if archived:
            path, options["namespace"] = "archived-workflows", self._namespace
        while True:
            # Not by hera: its models would refuse a list with one Workflow that they can not read.
            with errors():
                page = await self._connection.request("GET", path, params=options)
            for item in page.get("items") or ():
                metadata = item.get("metadata") if isinstance(item, dict) else None
                name, uid = ((metadata or {}).get(key) for key in ("name", "uid"))
                if isinstance(name, str) and isinstance(uid, str):
                    yield name, uid
            token = (page.get("metadata") or {}).get("continue")
            if not token:
                return
            options["listOptions.continue"] = str(token)

    async def get_archived(self, uid: str) -> Json | None:
        try:
            with errors():
                return await self._connection.request(
                    "GET", f"archived-workflows/{quote(uid, safe='')}", params={"namespace": self._namespace}
                )
        except NotFound:
            return None
        except Unavailable as error:
            # Argo has no code of its own for an Argo without an archive.
            if "not supported" in str(error):
                return None
            raise

    async def watch(self, selector: str) -> AsyncIterator[Json | None]:
        with errors():
            listed = await self._service.list_workflows(self._namespace, limit="1", fields="metadata")
        # Before the stream is open: argo-server sends nothing, not even the head of its response, until an event or a
        # keep-alive after 15 seconds. What changes from here on is in the stream, as it begins at this version.
        yield None
        parameters = {
            "listOptions.labelSelector": selector,
            "listOptions.resourceVersion": listed.metadata.resource_version or "",
        }
        # Not by hera, which has no call for streams of events.
        async with self._connection.stream(f"workflow-events/{self._namespace}", parameters) as results:
            async for result in results:
                yield result.get("object")

    async def logs(self, name: str, *, follow: bool) -> AsyncIterator[tuple[str, str]]:
        parameters = {"logOptions.container": "main", "logOptions.follow": str(follow).lower()}
        # Not by hera, which reads the whole stream as one JSON object.
        async with self._connection.stream(f"workflows/{self._namespace}/{name}/log", parameters) as results:
            async for result in results:
                yield result.get("podName", ""), result.get("content", "")


def _model(manifest: Json) -> models.Workflow | None:
    """The manifest as hera's model; None if the model would lose something."""
    return _model_of(json.dumps(manifest))


@lru_cache(maxsize=4)  # a submission needs it twice, and 1000 tasks take 60 ms
def _model_of(text: str) -> models.Workflow | None:
    manifest = json.loads(text)
    try:
        model = models.Workflow.model_validate(manifest)
    except ValidationError:
        return None
    dumped = model.model_dump_json(exclude_none=True, by_alias=True, exclude_unset=True)
    return model if json.loads(dumped) == manifest else None


@contextmanager
def _unread_answer() -> Iterator[None]:
    """Argo did what was asked for, and its answer is not needed: it need not suit hera's model."""
    try:
        yield
    except ValidationError as error:
        log.debug("hera can not read Argo's answer: %s", error)


def _lint_error(error: ArgoError) -> Exception:
    """Argo refuses a manifest in lint with 500 and gRPC's UNKNOWN."""
    return invalid(error.message) if error.is_unknown else error


@asynccontextmanager
async def connect(
    url: str,
    token: str,
    namespace: str,
    timeouts: ArgoTimeouts | None = None,
    *,
    ca_file: str = "",
    insecure_skip_verify: bool = False,
    token_file: str = "",
    kubernetes: KubernetesWorkflows | None = None,
) -> AsyncIterator[HeraArgo]:
    """Argo at a URL or at unix:/path. Nothing is sent yet.

    `ca_file` has the authorities that may have signed an https server's certificate; the system's are used if it is empty. With
    `insecure_skip_verify` any certificate will do.
    The token of a `token_file` is sent instead of `token`. With the API of its Kubernetes, gates that are open at once are answered together.
    """
    timeouts = timeouts or ArgoTimeouts()
    # Each follower of logs holds a connection; a limit would let them block everything else.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
    transport = None
    if insecure_skip_verify:
        log.warning("the certificate of %s is not verified", url)
    if url.startswith(unix_socket.PREFIX):
        path = unix_socket.short_path(url.removeprefix(unix_socket.PREFIX))
        transport = httpx.AsyncHTTPTransport(uds=path, limits=limits, verify=False)
        url = "http://localhost"  # in the head of a request only
    async with httpx.AsyncClient(
        timeout=httpx.Timeout(timeouts.request.total_seconds(), connect=timeouts.connect.total_seconds()),
        limits=limits,
        verify=not insecure_skip_verify and (ssl.create_default_context(cafile=ca_file) if ca_file else True),
        transport=transport,
        auth=token_auth(token_file),
        event_hooks={"response": [raise_for_error]},
    ) as session:
        # hera joins the host and its paths: without the last slash, the host's own path would be lost.
        host = url.rstrip("/") + "/"
        service = AsyncWorkflowsService(host=host, token=token or None, namespace=namespace, session=session)
        yield HeraArgo(Connection(service, timeouts), namespace, kubernetes)
