"""Every path of the API and its handler; what Argo has and this server has not is refused by name."""

from datetime import timedelta
from typing import Protocol

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from periplus_local.argo.api.artifacts import ArtifactHandlers, ArtifactSource
from periplus_local.argo.api.auth import TokenAuth
from periplus_local.argo.api.events import EventHandlers
from periplus_local.argo.api.logs import LogHandlers, LogSource
from periplus_local.argo.api.responses import Handler, error_json, json_response, with_error_responses
from periplus_local.argo.api.workflow_actions import ACTIONS, WorkflowActions
from periplus_local.argo.api.workflow_templates import TemplateHandlers
from periplus_local.argo.api.workflows import WorkflowHandlers
from periplus_local.argo.controller.workflow_controller import WorkflowController
from periplus_local.argo.errors import INTERNAL, UNIMPLEMENTED, ArgoError
from periplus_local.argo.template_store import CLUSTER_KIND, NAMESPACED_KIND, TemplateStore

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
ALL_WORKFLOWS = "/api/v1/workflows/"
WORKFLOWS = "/api/v1/workflows/{namespace}"
WORKFLOW = WORKFLOWS + "/{name}"
TEMPLATES = {
    NAMESPACED_KIND: "/api/v1/workflow-templates/{namespace}",
    CLUSTER_KIND: "/api/v1/cluster-workflow-templates",
}
# Parts of Argo's API, by the first name of the path below /api/v1/, that are not implemented.
UNIMPLEMENTED_PATHS = {
    "cron-workflows": "cron workflows: the local Argo starts workflows on request only",
    "archived-workflows": "an archive of workflows: ended workflows stay in the list until they are deleted",
    "event-sources": "event sources",
    "sensors": "sensors",
    "events": "events that start workflows",
    "stream": "streams of events",
    "sync": "limits of semaphores",
}


class Executor(LogSource, ArtifactSource, Protocol):
    """Gives logs and artifacts of steps."""


async def version(_: Request) -> Response:
    """The version of Argo whose API this is."""
    return json_response(VERSION)


async def info(_: Request) -> Response:
    """Settings of the server for clients."""
    return json_response({"managedNamespace": "", "links": [], "columns": [], "modals": {}})


async def userinfo(_: Request) -> Response:
    """The caller: there is one user, who holds the token."""
    user = {"subject": "local", "serviceAccountName": "local", "serviceAccountNamespace": "default"}
    return json_response(user)


async def archived_list(_: Request) -> Response:
    """Archived workflows, as an Argo without an archive answers: none."""
    return json_response({"metadata": {}, "items": None})


async def archived_labels(_: Request) -> Response:
    """Labels of archived workflows, as an Argo without an archive answers: none."""
    return json_response({})


async def archived_workflow(_: Request) -> Response:
    """One archived workflow, as an Argo without an archive answers."""
    raise ArgoError(INTERNAL, "getting archived workflows not supported: the local Argo has no archive")


async def not_implemented(request: Request, _: Exception) -> Response:
    """The answer for a path or a method without a handler."""
    missing = UNIMPLEMENTED_PATHS.get(request.url.path.removeprefix("/api/v1/").partition("/")[0])
    missing = missing or f"{request.method} {request.url.path}"
    error = ArgoError(UNIMPLEMENTED, f"Not Implemented: the local Argo has no {missing}")
    return Response(error_json(error), error.http_status, media_type="application/json")


async def server_error(_: Request, error: Exception) -> Response:
    """The answer when a handler raises an unexpected error."""
    answer = ArgoError(INTERNAL, f"the local Argo could not answer: {type(error).__name__}")
    return Response(error_json(answer), 500, media_type="application/json")


def api(
    controller: WorkflowController,
    templates: TemplateStore,
    executor: Executor,
    token: str,
    body_timeout: timedelta,
) -> ASGIApp:
    """The API as an application that demands the token; `body_timeout` bounds the wait for a request's body."""
    workflows, actions = WorkflowHandlers(controller, templates), WorkflowActions(controller, templates)
    events, logs = EventHandlers(controller), LogHandlers(controller, executor)
    artifacts = ArtifactHandlers(controller, executor)
    paths: list[tuple[str, str, Handler]] = [
        ("GET", "/api/v1/version", version),
        ("GET", "/api/v1/info", info),
        ("GET", "/api/v1/userinfo", userinfo),
        ("GET", "/api/v1/workflow-events/{namespace}", events.watch),
        ("GET", "/api/v1/workflow-events/", events.watch),
        ("GET", ALL_WORKFLOWS, workflows.list),
        ("GET", WORKFLOWS, workflows.list),
        ("POST", WORKFLOWS, workflows.create),
        ("POST", WORKFLOWS + "/lint", workflows.lint),
        ("POST", WORKFLOWS + "/submit", workflows.submit),
        ("GET", "/api/v1/archived-workflows", archived_list),
        ("GET", "/api/v1/archived-workflows-label-keys", archived_labels),
        ("GET", "/api/v1/archived-workflows-label-values", archived_labels),
        ("GET", "/api/v1/archived-workflows/{uid}", archived_workflow),
        ("GET", WORKFLOW, workflows.get),
        ("DELETE", WORKFLOW, workflows.delete),
        ("GET", WORKFLOW + "/log", logs.log),
        ("GET", WORKFLOW + "/{pod}/log", logs.log),
        ("GET", "/artifacts/{namespace}/{name}/{node}/{artifact}", artifacts.output),
        ("GET", "/input-artifacts/{namespace}/{name}/{node}/{artifact}", artifacts.input),
        *(("PUT", f"{WORKFLOW}/{action}", getattr(actions, action)) for action in ACTIONS),
    ]
    for kind, path in TEMPLATES.items():
        handlers = TemplateHandlers(kind, templates)
        paths += [
            ("GET", path, handlers.list),
            ("POST", path, handlers.create),
            ("POST", path + "/lint", handlers.lint),
            ("GET", path + "/{name}", handlers.get),
            ("PUT", path + "/", handlers.update),
            ("PUT", path + "/{name}", handlers.update),
            ("DELETE", path + "/{name}", handlers.delete),
        ]
    routes = [Route(path, with_error_responses(handler), methods=[method]) for method, path, handler in paths]
    app = Starlette(
        routes=routes,
        exception_handlers={404: not_implemented, 405: not_implemented, Exception: server_error},
    )
    app.state.body_timeout = body_timeout
    return TokenAuth(app, token)
