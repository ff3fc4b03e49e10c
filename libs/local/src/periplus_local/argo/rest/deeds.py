"""The handlers of what is done to one workflow: set, resume, suspend, stop, terminate, retry, resubmit."""

from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from periplus_local.argo import actions, again, memoized, submission
from periplus_local.argo.faults import internal
from periplus_local.argo.library import Shelves
from periplus_local.argo.rest.answers import answer, sent, texts
from periplus_local.argo.run import Run
from periplus_local.argo.workflows import Workflows

Body = dict[str, Any]


class Deeds:
    """What clients do to workflows; each deed is on disk before it is answered."""

    def __init__(self, workflows: Workflows, shelves: Shelves) -> None:
        """Do it to these workflows."""
        self._workflows = workflows
        self._shelves = shelves

    def _done(self, request: Request, deed: Callable[[Run], None], ended: str) -> Response:
        place = request.path_params
        run = self._workflows.run(place["namespace"], place["name"])
        if run is None or run.completed:
            raise internal(ended)
        deed(run)
        self._workflows.keep(run)
        return answer(run.document())

    async def set(self, request: Request) -> Response:
        """Answer suspend nodes."""
        asked = await sent(request)
        chosen = str(asked.get("nodeFieldSelector", ""))
        phase, message = str(asked.get("phase", "")), str(asked.get("message", ""))
        values = asked.get("outputParameters")
        return self._done(
            request,
            lambda run: actions.set_node(run, chosen, phase, message, values),
            actions.NO_MATCH + chosen,
        )

    async def resume(self, request: Request) -> Response:
        """Let the workflow, or the nodes that are picked, go on."""
        chosen = str((await sent(request)).get("nodeFieldSelector", ""))
        if not chosen:
            place = request.path_params
            run = self._workflows.run(place["namespace"], place["name"])
            if run is None or run.completed:
                return await self._unchanged(request)
        return self._done(request, lambda run: actions.resume(run, chosen), actions.NO_MATCH + chosen)

    async def _unchanged(self, request: Request) -> Response:
        place = request.path_params
        return answer(self._workflows.body(self._workflows.row(place["namespace"], place["name"])))

    async def suspend(self, request: Request) -> Response:
        """Let the workflow start nothing more for now."""
        await sent(request)
        place = request.path_params
        run = self._workflows.run(place["namespace"], place["name"])
        actions.pause(run)
        return self._done(request, lambda _: None, "")

    async def stop(self, request: Request) -> Response:
        """End the workflow, but let its exit handlers run; or fail the suspend nodes that are picked."""
        asked = await sent(request)
        chosen, message = str(asked.get("nodeFieldSelector", "")), str(asked.get("message", ""))
        if chosen:
            return self._done(
                request, lambda run: actions.stop_node(run, chosen, message), actions.NO_MATCH + chosen
            )
        return self._shut(request, "Stop")

    async def terminate(self, request: Request) -> Response:
        """End the workflow at once."""
        await sent(request)
        return self._shut(request, "Terminate")

    def _shut(self, request: Request, strategy: str) -> Response:
        place = request.path_params
        ended = actions.COMPLETED.format(place["name"], place["namespace"])
        return self._done(request, lambda run: actions.shut(run, strategy), ended)

    async def retry(self, request: Request) -> Response:
        """Go on with an ended workflow where it failed."""
        asked = await sent(request)
        place = request.path_params
        row = self._workflows.row(place["namespace"], place["name"])
        run = self._workflows.live.get(row.uid) or self._workflows.reopened(row)
        again.prepare(
            run,
            successful=bool(asked.get("restartSuccessful")),
            chosen=str(asked.get("nodeFieldSelector", "")),
            parameters=texts(asked, "parameters"),
        )
        run = self._workflows.go_on(run)
        return answer(run.document())

    async def resubmit(self, request: Request) -> Response:
        """Start a new workflow with the spec of this one."""
        asked = await sent(request)
        place = request.path_params
        row = self._workflows.row(place["namespace"], place["name"])
        workflow = again.resubmitted(row, texts(asked, "parameters"))
        if not asked.get("memoized"):
            made = submission.accepted(workflow, self._shelves, self._workflows.around.endpoint)
            return answer(self._workflows.create(*made).document())
        workflow = memoized.named_anew(workflow, row.status.get("phase", ""))
        made = submission.accepted(workflow, self._shelves, self._workflows.around.endpoint)
        nodes = memoized.taken_over(
            row.name, self._workflows.store.tree(row.uid), workflow["metadata"]["name"]
        )
        return answer(self._workflows.create(*made, nodes).document())
