"""What the path of a request names: a workflow and its nodes, as they are now."""

from starlette.requests import Request

from periplus_local.argo.nodes import Node
from periplus_local.argo.store import Row
from periplus_local.argo.workflows import Workflows


def workflow(workflows: Workflows, request: Request) -> Row:
    """The workflow that the path names; Fault when there is none."""
    return workflows.row(request.path_params["namespace"], request.path_params["name"])


def nodes(workflows: Workflows, row: Row) -> list[Node]:
    """The nodes of a workflow, in memory while it is under way."""
    run = workflows.live.get(row.uid)
    return list(run.nodes) if run is not None else workflows.store.tree(row.uid)
