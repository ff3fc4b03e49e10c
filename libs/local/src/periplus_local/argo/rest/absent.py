"""What Argo's API has and this server has not: said by name, so that no client takes it for a mistake of its own."""

from starlette.requests import Request
from starlette.responses import Response

from periplus_local.argo.faults import Fault
from periplus_local.argo.rest.answers import answer

UNIMPLEMENTED = 12
NOT_HERE = {
    "cron-workflows": "cron workflows: the local Argo starts a workflow only when it is told to",
    "archived-workflows": "an archive of workflows: all that were not deleted are in the list",
    "event-sources": "event sources",
    "sensors": "sensors",
    "events": "events that start workflows",
    "stream": "streams of events",
    "sync": "limits of semaphores",
}


async def archived(_: Request) -> Response:
    """The workflows of the archive, as an Argo without one answers: none."""
    return answer({"metadata": {}, "items": None})


async def archived_labels(_: Request) -> Response:
    """The labels of the archive, as an Argo without one answers: none."""
    return answer({})


async def archived_one(_: Request) -> Response:
    """One workflow of the archive: there is none."""
    raise Fault(13, "getting archived workflows not supported: the local Argo has no archive")


def absent(method: str, path: str) -> Fault:
    """Why nothing answers there."""
    family = path.removeprefix("/api/v1/").partition("/")[0]
    known = NOT_HERE.get(family)
    if known:
        return Fault(UNIMPLEMENTED, f"Not Implemented: the local Argo has no {known}")
    return Fault(UNIMPLEMENTED, f"Not Implemented: the local Argo has no {method} {path}")
