"""Requests: the JSON object of the body, bounded in size, depth and time, and the workflow of the path."""

import asyncio
import json
from datetime import timedelta
from typing import Any

from starlette.requests import Request

from periplus_local.argo.controller.nodes import Node
from periplus_local.argo.controller.workflow_controller import WorkflowController
from periplus_local.argo.errors import DEADLINE_EXCEEDED, ArgoError, invalid_argument
from periplus_local.argo.storage.state_store import WorkflowRow
from periplus_manifest import measure
from periplus_manifest.bounds import MAX_MANIFEST_BYTES, MAX_NESTING

# What a request may hold around a workflow of the maximal size.
MAX_ENVELOPE_BYTES = 4096


async def read_json(request: Request) -> dict[str, Any]:
    """The JSON object of a request; raises ArgoError when it is none, too large, too deep, or does not arrive."""
    chunks, size = [], 0
    timeout: timedelta = request.app.state.body_timeout
    try:
        async with asyncio.timeout(timeout.total_seconds()):
            async for chunk in request.stream():
                size += len(chunk)
                if size > 2 * MAX_MANIFEST_BYTES:
                    break
                chunks.append(chunk)
    except TimeoutError as error:
        message = f"the request did not arrive within {timeout.total_seconds():g} seconds"
        raise ArgoError(DEADLINE_EXCEEDED, message) from error
    return parse_json(b"".join(chunks))


def parse_json(raw: bytes) -> dict[str, Any]:
    """The JSON object in the bytes; raises ArgoError for anything else."""
    if len(raw) > MAX_MANIFEST_BYTES + MAX_ENVELOPE_BYTES:
        raise invalid_argument(f"the request is larger than {MAX_MANIFEST_BYTES} bytes")
    try:
        value = json.loads(raw or b"{}", object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise invalid_argument(f"the request is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise invalid_argument("the request is not a JSON object")
    if measure.nesting(value) > MAX_NESTING + 2:
        raise invalid_argument(f"the request is nested more than {MAX_NESTING} deep")
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a key occurs twice")
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not valid in JSON")


def string_list(body: dict[str, Any], field: str) -> list[str]:
    """A list of strings in a request; raises ArgoError when it is something else."""
    value = body.get(field) or []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise invalid_argument(f"{field}: is not a list of strings")
    return value


def workflow_of(controller: WorkflowController, request: Request) -> WorkflowRow:
    """The workflow that the path names; raises ArgoError when there is none."""
    return controller.row(request.path_params["namespace"], request.path_params["name"])


def nodes_of(controller: WorkflowController, row: WorkflowRow) -> list[Node]:
    """The nodes of a workflow: from memory while it runs, else from disk."""
    run = controller.active.get(row.uid)
    return list(run.nodes) if run is not None else controller.state.nodes(row.uid)
