"""Execution of a call: resolve and fill in its template, wait for its limits, and run it by its kind."""

from periplus_local.argo.controller import dag, pod, retry_strategy, steps, suspend
from periplus_local.argo.controller.nodes import Node, is_fulfilled
from periplus_local.argo.controller.scope import Scope
from periplus_local.argo.controller.synchronization import LockWaitCancelledError, Slots, mutex_names
from periplus_local.argo.controller.template_call import (
    NODE_TYPES,
    StepError,
    TemplateCall,
    TemplateExecution,
    set_error,
)
from periplus_local.argo.controller.template_inputs import fill_template
from periplus_local.argo.controller.workflow_run import WorkflowRun
from periplus_local.argo.errors import ArgoError
from periplus_local.argo.names import pod_name
from periplus_local.argo.templates import CONTAINER_KINDS, Template, kind_of
from periplus_manifest import bounds
from periplus_manifest.errors import ManifestError

TOO_DEEP = f"Maximum recursion depth exceeded: {bounds.MAX_DEPTH} templates within one another"
UNLIMITED = Slots(None)
RUNNERS = {"dag": dag.run_dag, "steps": steps.run_steps, "suspend": suspend.run_suspend}
RUNNERS.update(dict.fromkeys(CONTAINER_KINDS, pod.run_pod))


async def execute_template(run: WorkflowRun, call: TemplateCall) -> Node | None:
    """Run a call to its end and give its node.

    None when it was not started, because the template around it fails fast. Raises StepError when it could not be
    started; a step that ran and failed is a node and no error.
    """
    node = run.nodes.by_name(call.node_name)
    if node is not None and is_fulfilled(node):
        if call.boundary:
            call.boundary.child_ended(node)
        return node
    await run.wait_while_suspended()
    if call.depth >= bounds.MAX_DEPTH:
        return set_error(run, call, TOO_DEEP)
    try:
        execution = _execution(run, call)
    except (ArgoError, ManifestError) as error:
        raise StepError(set_error(run, call, str(error))["message"]) from error
    slots = call.boundary.slots if call.boundary else UNLIMITED
    async with slots.acquire():
        if call.boundary and call.boundary.is_failing_fast:
            return None
        if execution.kind != "suspend":
            return await _run_with_locks(execution)
    return await _run_with_locks(execution)  # a suspend template does not count for `parallelism`


def _execution(run: WorkflowRun, call: TemplateCall) -> TemplateExecution:
    templates, template = run.templates.resolve(call.caller, call.reference)
    strategy = template.get("retryStrategy", run.exec_spec.get("retryStrategy"))
    local = Scope(run.globals)
    local.put(call.node_name, "node", "name")
    if call.step_kind:
        local.put(call.step, call.step_kind, "name")
    if kind_of(template) in CONTAINER_KINDS and strategy is None:
        local.put(pod_name(run.name, call.node_name, template.get("name", "")), "pod", "name")
    filled, scope = fill_template(template, call.arguments, local)
    return TemplateExecution(run, call, templates, filled, scope, execute_template)


async def _run_with_locks(execution: TemplateExecution) -> Node:
    run = execution.run
    locks = mutex_names(execution.template.get("synchronization"), run.metadata["namespace"])
    if not locks:
        return await _run(execution)

    def on_wait(name: str) -> None:
        message = f"Waiting for {name} lock. Lock status: 0/1"
        node = execution.node() or execution.start_node(_node_type(execution.template), "Pending")
        node["synchronizationStatus"] = {"waiting": name}
        run.nodes.set_phase(node, "Pending", message)

    owner = f"{run.uid}/{execution.call.node_name}"
    try:
        async with run.context.mutexes.hold_all(locks, owner, on_wait):
            node = execution.node()
            if node and node.pop("synchronizationStatus", None):
                run.nodes.set_phase(node, node["phase"], "")
            run.record_locks(locks, owner)
            return await _run(execution)
    except LockWaitCancelledError:
        node = execution.node() or execution.start_node(_node_type(execution.template), "Pending")
        node.pop("synchronizationStatus", None)
        return run.nodes.set_phase(node, "Failed", f"Stopped with strategy '{run.shutdown}'")
    finally:
        run.record_release(locks, owner)


async def _run(execution: TemplateExecution) -> Node:
    strategy = execution.template.get("retryStrategy", execution.run.exec_spec.get("retryStrategy"))
    if strategy is None:
        return await _run_once(execution)
    try:
        return await retry_strategy.run_attempts(execution, strategy, _run_once)
    except (ArgoError, ManifestError) as error:
        raise StepError(set_error(execution.run, execution.call, str(error))["message"]) from error


async def _run_once(execution: TemplateExecution) -> Node:
    boundary = execution.call.boundary
    try:
        node = await RUNNERS[execution.kind](execution)
    except (ArgoError, ManifestError) as error:
        node = set_error(execution.run, execution.call, str(error))
        raise StepError(node["message"]) from error
    finally:
        ended = execution.node()
        if boundary and ended is not None:
            boundary.child_ended(ended)
            if boundary.is_failing_fast:
                execution.run.wake_waiters()
    return node


def _node_type(template: Template) -> str:
    return "Retry" if "retryStrategy" in template else NODE_TYPES[kind_of(template)]
