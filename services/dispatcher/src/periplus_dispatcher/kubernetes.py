"""The Kubernetes API, for what Argo's own API can not do; and of that, to end suspended nodes of a Workflow with one request."""

import logging
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import httpx

from periplus_common.errors import Conflict, NotFound, Unavailable
from periplus_dispatcher.domain import GateAnswer, Json
from periplus_dispatcher.token_file import token_auth

log = logging.getLogger(__name__)

_ATTEMPTS = 5
"""Of a patch that fails as the controller changes the Workflow at the same time; each reads the Workflow anew."""
_MAX_ANSWER_CHARACTERS = 500
_PLURALS = {
    "Workflow": "workflows",
    "WorkflowTemplate": "workflowtemplates",
    "CronWorkflow": "cronworkflows",
}


class TooLargeError(ValueError):
    """A response has more bytes than its reader takes."""


async def read_body(response: httpx.Response, max_bytes: int) -> bytes:
    """The body of a response that is streamed. Raises `TooLargeError` as soon as it has more bytes."""
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > max_bytes:
            raise TooLargeError("it is too large")
    return bytes(body)


class KubernetesWorkflows:
    """The Workflows of one namespace, and what they are made of.

    Needs the verbs `get` and `patch` on `workflows.argoproj.io`; to adopt, `get` and `update` on `workflowtemplates` and `cronworkflows`.
    """

    def __init__(self, session: httpx.AsyncClient, namespace: str) -> None:
        self._session = session
        self._namespace = f"apis/argoproj.io/v1alpha1/namespaces/{quote(namespace, safe='')}"

    def in_namespace(self, namespace: str) -> "KubernetesWorkflows":
        """The Workflows of another namespace."""
        return KubernetesWorkflows(self._session, namespace)

    async def answer_gates(self, name: str, answers: Mapping[str, GateAnswer]) -> set[str]:
        """End suspended nodes of a Workflow, by node id, with their outputs. Gives those that were not suspended any more.

        Raises `Unavailable`, also where the status is compressed or kept elsewhere and can not be patched, and `NotFound`.
        """
        for _ in range(_ATTEMPTS):
            workflow = await self._request("GET", "Workflow", name)
            status = workflow.get("status") or {}
            if status.get("compressedNodes") or status.get("offloadNodeStatusVersion"):
                raise Unavailable("the status of the Workflow is compressed or kept elsewhere")
            open_nodes = {
                node: answer
                for node, answer in answers.items()
                if _is_suspended((status.get("nodes") or {}).get(node) or {})
            }
            if open_nodes:
                patch = {
                    # The patch is refused if the Workflow has changed since it was read.
                    "metadata": {"resourceVersion": workflow["metadata"]["resourceVersion"]},
                    "status": {"nodes": {node: _ended(answer) for node, answer in open_nodes.items()}},
                }
                try:
                    await self._request("PATCH", "Workflow", name, json=patch)
                except _ConflictError:
                    continue
            return set(answers) - set(open_nodes)
        raise Unavailable(f"the Workflow changed during each of {_ATTEMPTS} patches")

    async def read(self, kind: str, name: str) -> Json | None:
        """A WorkflowTemplate or CronWorkflow as it is stored; None if there is none of this name. Raises `Unavailable`."""
        try:
            return await self._request("GET", kind, name)
        except NotFound:
            return None

    async def replace(self, kind: str, found: Json) -> None:
        """Store an object that was read and changed. Raises `Conflict` if it has changed since, `Unavailable`, `NotFound`."""
        try:
            await self._request("PUT", kind, found["metadata"]["name"], json=found)
        except _ConflictError:
            raise Conflict(
                f"{kind} {found['metadata']['name']} was changed meanwhile", fix="run it again"
            ) from None

    async def _request(self, method: str, kind: str, name: str, **options: Any) -> Json:
        headers = {"Content-Type": "application/merge-patch+json"} if method == "PATCH" else {}
        url = f"{self._namespace}/{_PLURALS[kind]}/{quote(name, safe='')}"
        try:
            response = await self._session.request(method, url, headers=headers, **options)
            value = response.json()
        except (httpx.HTTPError, OSError, ValueError) as error:
            raise Unavailable(
                f"Kubernetes can not be reached or answers no JSON: {error or type(error).__name__}"
            ) from error
        if response.status_code == httpx.codes.CONFLICT:
            raise _ConflictError
        if response.status_code == httpx.codes.NOT_FOUND:
            raise NotFound(f"Kubernetes has no {kind} {name}")
        if not response.is_success or not isinstance(value, dict):
            raise Unavailable(
                f"Kubernetes answers {response.status_code}: {response.text[:_MAX_ANSWER_CHARACTERS]}"
            )
        return value


class _ConflictError(Exception):
    """The Workflow has changed since it was read."""


def _is_suspended(node: Json) -> bool:
    return node.get("type") == "Suspend" and node.get("phase") == "Running"


def _ended(answer: GateAnswer) -> Json:
    parameters = [{"name": name, "value": value} for name, value in answer.parameters.items()]
    return {
        "phase": "Succeeded",
        "finishedAt": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "message": answer.verdict.reason,
        **({"outputs": {"parameters": parameters}} if parameters else {}),
    }


@asynccontextmanager
async def connect(
    url: str,
    *,
    token_file: str = "",
    ca_file: str = "",
    request_timeout: timedelta = timedelta(seconds=10),
) -> AsyncIterator[httpx.AsyncClient | None]:
    """A session of the API at a URL; None if it is empty. Nothing is sent yet. Raises OSError for a `ca_file` that can not be read."""
    if not url:
        yield None
        return
    async with httpx.AsyncClient(
        base_url=url.rstrip("/"),
        auth=token_auth(token_file),
        timeout=request_timeout.total_seconds(),
        verify=ssl.create_default_context(cafile=ca_file) if ca_file else True,
        trust_env=False,
    ) as session:
        yield session
