"""The handlers of the actions on one workflow: set, resume, suspend, stop, terminate, retry, resubmit."""

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response

from periplus_local.argo.api.requests import read_json, string_list, workflow_of
from periplus_local.argo.api.responses import json_response
from periplus_local.argo.controller import actions, workflow_resubmit, workflow_retry
from periplus_local.argo.controller.workflow_controller import WorkflowController
from periplus_local.argo.controller.workflow_run import WorkflowRun
from periplus_local.argo.errors import internal
from periplus_local.argo.submission.validate import validated
from periplus_local.argo.template_store import TemplateStore

ACTIONS = ("set", "resume", "suspend", "stop", "terminate", "retry", "resubmit")


class WorkflowActions:
    """What clients do to workflows; each action is on disk before it is answered."""

    def __init__(self, controller: WorkflowController, templates: TemplateStore) -> None:
        self._controller = controller
        self._templates = templates

    def _act(
        self, request: Request, action: Callable[[WorkflowRun], None], error_when_ended: str
    ) -> Response:
        """Apply an action to a workflow that has not ended; else an ArgoError with that message."""
        run = self._active(request)
        if run is None or run.completed:
            raise internal(error_when_ended)
        action(run)
        self._controller.save(run)
        return json_response(run.to_json())

    def _active(self, request: Request) -> WorkflowRun | None:
        path = request.path_params
        return self._controller.active_run(path["namespace"], path["name"])

    async def set(self, request: Request) -> Response:
        """Answer suspend nodes."""
        body = await read_json(request)
        selector = str(body.get("nodeFieldSelector", ""))
        phase, message = str(body.get("phase", "")), str(body.get("message", ""))
        values = body.get("outputParameters")
        return self._act(
            request,
            lambda run: actions.set_nodes(run, selector, phase, message, values),
            actions.NO_MATCH + selector,
        )

    async def resume(self, request: Request) -> Response:
        """Let the workflow, or the selected nodes, go on."""
        selector = str((await read_json(request)).get("nodeFieldSelector", ""))
        if not selector:
            run = self._active(request)
            if run is None or run.completed:
                row = workflow_of(self._controller, request)
                return json_response(self._controller.workflow_json(row))
        return self._act(request, lambda run: actions.resume(run, selector), actions.NO_MATCH + selector)

    async def suspend(self, request: Request) -> Response:
        """Start no further step of the workflow until it is resumed."""
        await read_json(request)
        actions.suspend(self._active(request))
        return self._act(request, lambda _: None, "")

    async def stop(self, request: Request) -> Response:
        """End the workflow, but run its exit handlers; or fail the selected suspend nodes."""
        body = await read_json(request)
        selector, message = str(body.get("nodeFieldSelector", "")), str(body.get("message", ""))
        if selector:
            return self._act(
                request,
                lambda run: actions.fail_nodes(run, selector, message),
                actions.NO_MATCH + selector,
            )
        return self._shut_down(request, "Stop")

    async def terminate(self, request: Request) -> Response:
        """End the workflow at once."""
        await read_json(request)
        return self._shut_down(request, "Terminate")

    def _shut_down(self, request: Request, strategy: str) -> Response:
        path = request.path_params
        error_when_ended = actions.COMPLETED.format(path["name"], path["namespace"])
        return self._act(request, lambda run: actions.shut_down(run, strategy), error_when_ended)

    async def retry(self, request: Request) -> Response:
        """Go on with an ended workflow where it failed."""
        body = await read_json(request)
        row = workflow_of(self._controller, request)
        run = self._controller.active.get(row.uid) or self._controller.reopen(row)
        workflow_retry.prepare(
            run,
            restart_successful=bool(body.get("restartSuccessful")),
            selector=str(body.get("nodeFieldSelector", "")),
            parameters=string_list(body, "parameters"),
        )
        return json_response(self._controller.restart(run).to_json())

    async def resubmit(self, request: Request) -> Response:
        """Start a new workflow with the spec of this one."""
        body = await read_json(request)
        row = workflow_of(self._controller, request)
        workflow = workflow_resubmit.resubmitted(row, string_list(body, "parameters"))
        s3_endpoint = self._controller.context.s3_endpoint
        if not body.get("memoized"):
            valid = validated(workflow, self._templates, s3_endpoint)
            return json_response(self._controller.create(valid).to_json())
        workflow = workflow_resubmit.with_generated_name(workflow, row.status.get("phase", ""))
        valid = validated(workflow, self._templates, s3_endpoint)
        nodes = workflow_resubmit.memoized_nodes(
            row.name, self._controller.state.nodes(row.uid), workflow["metadata"]["name"]
        )
        return json_response(self._controller.create(valid, nodes).to_json())
