"""Every path of the API and what answers it."""

from typing import Protocol

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from periplus_local.argo.faults import Fault
from periplus_local.argo.library import NARROW, WIDE, Shelves
from periplus_local.argo.rest.absent import absent, archived, archived_labels, archived_one
from periplus_local.argo.rest.answers import Handler, answer, faulty
from periplus_local.argo.rest.artifacts import Artifacts, ArtifactSource
from periplus_local.argo.rest.deeds import Deeds
from periplus_local.argo.rest.events import Events
from periplus_local.argo.rest.flows import Flows
from periplus_local.argo.rest.guard import Guard, encoded
from periplus_local.argo.rest.logs import Logs, LogSource
from periplus_local.argo.rest.shelf import Shelf
from periplus_local.argo.rest.submit import Submit
from periplus_local.argo.workflows import Workflows

VERSION = {
    "version": "v4.1.2+periplus.local",
    "buildDate": "",
    "gitCommit": "",
    "gitTag": "v4.1.2",
    "gitTreeState": "clean",
    "goVersion": "",
    "compiler": "",
    "platform": "local",
}
FLOW = "/api/v1/workflows/{namespace}"
ONE = FLOW + "/{name}"
KINDS = {NARROW: "/api/v1/workflow-templates/{namespace}", WIDE: "/api/v1/cluster-workflow-templates"}
EVERYWHERE = "/api/v1/workflows/"


class Executor(LogSource, ArtifactSource, Protocol):
    """Gives logs and artifacts of steps."""


async def version(_: Request) -> Response:
    """Which Argo this speaks like."""
    return answer(VERSION)


async def info(_: Request) -> Response:
    """What a client may assume of this server."""
    return answer({"managedNamespace": "", "links": [], "columns": [], "modals": {}})


async def userinfo(_: Request) -> Response:
    """Who the caller is: whoever holds the token."""
    return answer({"subject": "local", "serviceAccountName": "local", "serviceAccountNamespace": "default"})


async def unknown(request: Request, _: Exception) -> Response:
    """The answer where there is nothing, or not by this method."""
    fault = absent(request.method, request.url.path)
    return Response(encoded(fault), fault.status, media_type="application/json")


async def broken(_: Request, error: Exception) -> Response:
    """The answer when the server itself is at fault."""
    fault = Fault(13, f"the local Argo could not answer: {type(error).__name__}")
    return Response(encoded(fault), 500, media_type="application/json")


def routes(workflows: Workflows, shelves: Shelves, executor: Executor, token: str) -> ASGIApp:
    """The API as an application that asks every caller for the token."""
    flows, deeds = Flows(workflows, shelves), Deeds(workflows, shelves)
    events, logs = Events(workflows), Logs(workflows, executor)
    artifacts = Artifacts(workflows, executor)
    paths: list[tuple[str, str, Handler]] = [
        ("GET", "/api/v1/version", version),
        ("GET", "/api/v1/info", info),
        ("GET", "/api/v1/userinfo", userinfo),
        ("GET", "/api/v1/workflow-events/{namespace}", events.watch),
        ("GET", "/api/v1/workflow-events/", events.watch),
        ("GET", EVERYWHERE, flows.find),
        ("GET", FLOW, flows.find),
        ("POST", FLOW, flows.create),
        ("POST", FLOW + "/lint", flows.lint),
        ("POST", FLOW + "/submit", Submit(workflows, shelves).submit),
        ("GET", "/api/v1/archived-workflows", archived),
        ("GET", "/api/v1/archived-workflows-label-keys", archived_labels),
        ("GET", "/api/v1/archived-workflows-label-values", archived_labels),
        ("GET", "/api/v1/archived-workflows/{uid}", archived_one),
        ("GET", ONE, flows.get),
        ("DELETE", ONE, flows.delete),
        ("GET", ONE + "/log", logs.log),
        ("GET", ONE + "/{pod}/log", logs.log),
        ("GET", "/artifacts/{namespace}/{name}/{node}/{artifact}", artifacts.made),
        ("GET", "/input-artifacts/{namespace}/{name}/{node}/{artifact}", artifacts.read),
        *(("PUT", f"{ONE}/{deed}", getattr(deeds, deed)) for deed in DEEDS),
    ]
    for kind, path in KINDS.items():
        shelf = Shelf(kind, shelves)
        paths += [
            ("GET", path, shelf.find),
            ("POST", path, shelf.create),
            ("POST", path + "/lint", shelf.lint),
            ("GET", path + "/{name}", shelf.get),
            ("PUT", path + "/", shelf.change),
            ("PUT", path + "/{name}", shelf.change),
            ("DELETE", path + "/{name}", shelf.delete),
        ]
    listed = [Route(path, faulty(handler), methods=[method]) for method, path, handler in paths]
    handlers = {404: unknown, 405: unknown, Exception: broken}
    return Guard(Starlette(routes=listed, exception_handlers=handlers), token)


DEEDS = ("set", "resume", "suspend", "stop", "terminate", "retry", "resubmit")
