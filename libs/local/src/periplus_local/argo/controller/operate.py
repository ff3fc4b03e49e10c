"""Operation of one workflow: its entrypoint, its hooks, its exit handler, its final phase."""

import asyncio
import logging
from typing import Any

from periplus_local.argo.controller import node_tree, workflow_variables
from periplus_local.argo.controller.execute_template import execute_template
from periplus_local.argo.controller.hooks import exit_hook
from periplus_local.argo.controller.nodes import FAILED, Node, TooLargeError, is_fulfilled
from periplus_local.argo.controller.pod import job_id
from periplus_local.argo.controller.scope import Scope
from periplus_local.argo.controller.synchronization import LockWaitCancelledError, mutex_names
from periplus_local.argo.controller.template_call import StepError, TemplateCall
from periplus_local.argo.controller.workflow_run import WorkflowRun
from periplus_local.argo.errors import ArgoError
from periplus_local.argo.scalars import now
from periplus_manifest.merge import TEMPLATE_LABELS

log = logging.getLogger(__name__)
# How many nodes are ended before others have their turn.
NODES_PER_TURN = 500
ENDED_WITH_WORKFLOW = "ended with its workflow, which could not go on"
PHASE_OF_ROOT_NODE = {"Succeeded": "Succeeded", "Skipped": "Succeeded", "Omitted": "Succeeded"}


async def operate(run: WorkflowRun) -> None:
    """Run the workflow to its end; it has the phase Error when it is too large or this server has a defect."""
    if run.failure:
        await _end_as_failure(run)
        return
    work = asyncio.create_task(_operate_with_locks(run))
    run.on_failure = work.cancel
    try:
        await work
    except asyncio.CancelledError:
        if not run.failure or _is_cancelled():
            raise
        log.warning("the workflow %s is ended: %s", run.name, run.failure)
    except TooLargeError:
        log.warning("the workflow %s is ended: %s", run.name, run.failure)
    except Exception as error:
        if not run.failure:
            log.exception("the workflow %s could not go on", run.name)
            run.failure = f"the local Argo could not go on: {error!r}"
    if run.failure and not run.completed:
        await _end_as_failure(run)


def _is_cancelled() -> bool:
    """Whether the task itself is cancelled, and not only what it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _end_as_failure(run: WorkflowRun) -> None:
    """End the processes of a workflow that cannot go on, and with them its nodes."""
    unfinished = [node for node in run.nodes if not is_fulfilled(node)]
    executor, grace = run.context.executor, run.context.grace
    running = [node for node in unfinished if node["type"] == "Pod" and node["phase"] == "Running"]
    stops = (executor.stop(job_id(run.uid, node["name"], run.control), grace) for node in running)
    await asyncio.gather(*stops)
    for index, node in enumerate(unfinished):
        run.nodes.set_phase(node, "Error", ENDED_WITH_WORKFLOW)
        if index % NODES_PER_TURN == 0:
            await asyncio.sleep(0)
    run.control.pop("holding", None)
    _end(run, "Error", run.failure)


async def _operate_with_locks(run: WorkflowRun) -> None:
    try:
        locks = mutex_names(run.exec_spec.get("synchronization"), run.metadata["namespace"])
        owner = f"{run.uid}/"
        async with run.context.mutexes.hold_all(locks, owner, lambda name: _waiting_for_lock(run, name)):
            run.record_locks(locks, owner)
            await _operate(run)
            run.record_release(locks, owner)
    except LockWaitCancelledError:
        _end(run, "Failed", f"Stopped with strategy '{run.shutdown}'")


def _waiting_for_lock(run: WorkflowRun, name: str) -> None:
    run.set_phase("Pending", f"Waiting for {name} lock. Lock status: 0/1")


async def _operate(run: WorkflowRun) -> None:
    if run.status.get("phase") != "Running":
        try:
            _set_workflow_metadata(run)
        except (ArgoError, StepError) as error:
            _end(run, "Error", str(error))
            return
        run.status.pop("message", None)
        run.set_phase("Running")
    deadline = asyncio.create_task(_enforce_deadline(run))
    hooks = WorkflowHooks(run)
    try:
        await _run_entrypoint(run, hooks)
    finally:
        deadline.cancel()
        await hooks.close()


def _set_workflow_metadata(run: WorkflowRun) -> None:
    """Give the workflow the label of its template, and the labels and annotations of `spec.workflowMetadata`."""
    if reference := run.spec.get("workflowTemplateRef"):
        label = TEMPLATE_LABELS[bool(reference.get("clusterScope"))]
        run.metadata["labels"] = {**(run.metadata.get("labels") or {}), label: reference["name"]}
    added = run.exec_spec.get("workflowMetadata") or {}
    for kind in ("labels", "annotations"):
        if added.get(kind):
            run.metadata[kind] = {**(run.metadata.get(kind) or {}), **added[kind]}
    for key, source in (added.get("labelsFrom") or {}).items():
        value = run.globals.evaluate(source.get("expression", ""))
        if not isinstance(value, str):
            raise StepError(f"spec.workflowMetadata.labelsFrom.{key}.expression: gives no text but {value!r}")
        run.metadata.setdefault("labels", {})[key] = value


async def _enforce_deadline(run: WorkflowRun) -> None:
    end = run.deadline()
    if end is None:
        return
    while not run.is_deadline_passed():
        await run.wait_until(run.is_deadline_passed, max((end - now()).total_seconds(), 0.01))
    run.wake_waiters()
    await run.stop_jobs("Step exceeded its deadline", include_exit_handlers=False)


async def _run_entrypoint(run: WorkflowRun, hooks: "WorkflowHooks") -> None:
    call = _call(run, run.name, run.exec_spec.get("entrypoint", ""))
    hooks.start_due()
    try:
        root = await execute_template(run, call)
    except StepError as error:
        _end(run, "Error", f"error in entry template execution: {error}")
        return
    assert root is not None
    phase = str(PHASE_OF_ROOT_NODE.get(root["phase"], root["phase"]))
    workflow_variables.put_failures(run.globals, run.nodes)
    workflow_variables.put_state(run.globals, phase, run.metadata)
    hooks.start_due(phase)
    await hooks.wait()
    try:
        exit_node = await _run_exit_handler(run)
    except StepError as error:
        _end(run, "Error", f"error in exit template execution : {error}")
        return
    message = root.get("message", "")
    if root["phase"] in FAILED and run.shutdown:
        message = f"Stopped with strategy '{run.shutdown}'"
    if phase == "Succeeded" and exit_node is not None and exit_node["phase"] in FAILED:
        phase, message = exit_node["phase"], exit_node.get("message", "")
    _end(run, phase, "" if phase == "Succeeded" else message)


async def _run_exit_handler(run: WorkflowRun) -> Node | None:
    hook = exit_hook(run.exec_spec, run.exec_spec.get("arguments") or {})
    if hook is None or run.is_shut_down(in_exit_handler=True):
        return None
    if hook.get("expression") and run.globals.evaluate(hook["expression"]) is not True:
        return None
    return await execute_template(run, _call(run, f"{run.name}.onExit", hook, in_exit_handler=True))


def _call(
    run: WorkflowRun, node_name: str, target: str | dict[str, Any], *, in_exit_handler: bool = False
) -> TemplateCall:
    """The call of the entrypoint (a template's name) or of a hook of the workflow."""
    local = run.templates.local
    if isinstance(target, str):
        return TemplateCall(node_name, {"template": target}, run.exec_spec.get("arguments") or {}, local)
    reference: dict[str, Any] = {key: target[key] for key in ("template", "templateRef") if key in target}
    arguments = run.globals.fill(target.get("arguments") or {})
    return TemplateCall(
        node_name,
        reference,
        arguments,
        local,
        in_exit_handler=in_exit_handler,
        node_flag={"hooked": True},
    )


def _end(run: WorkflowRun, phase: str, message: str) -> None:
    node_tree.set_progress(run.nodes)
    run.status["progress"] = f"{run.nodes.progress_done}/{run.nodes.progress_total}"
    warnings = [item for item in run.status.get("conditions", ()) if item["type"] == "SpecWarning"]
    completed = [{"status": "False", "type": "PodRunning"}, {"status": "True", "type": "Completed"}]
    run.status["conditions"] = completed + warnings
    run.set_phase(phase, message)


class WorkflowHooks:
    """The hooks of the workflow itself, without its exit handler."""

    def __init__(self, run: WorkflowRun) -> None:
        self._run = run
        hooks = run.exec_spec.get("hooks") or {}
        self._hooks = {key: hook for key, hook in hooks.items() if key != "exit"}
        self._tasks: dict[str, asyncio.Task[Node | None]] = {}

    def start_due(self, phase: str = "Running") -> None:
        """Start the hooks whose expression is true while the workflow is in the phase."""
        run = self._run
        scope = Scope(run.globals)
        workflow_variables.put_state(run.globals, phase, run.metadata)
        for key, hook in self._hooks.items():
            if key in self._tasks or not hook.get("expression"):
                continue
            try:
                was_started = run.nodes.by_name(f"{run.name}.hooks.{key}") is not None
                due = was_started or scope.evaluate(hook["expression"]) is True
            except ArgoError as error:
                log.warning("the hook %s of %s: %s", key, run.name, error)
                continue
            if due:
                call = _call(run, f"{run.name}.hooks.{key}", hook)
                self._tasks[key] = asyncio.create_task(execute_template(run, call))

    async def wait(self) -> None:
        """Wait for the hooks that were started; their errors are in their nodes."""
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        root = self._run.nodes.by_name(self._run.name)
        for key in self._tasks:
            if root is not None:
                self._run.nodes.connect(root, f"{self._run.name}.hooks.{key}")

    async def close(self) -> None:
        """Cancel the hooks that still run."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
