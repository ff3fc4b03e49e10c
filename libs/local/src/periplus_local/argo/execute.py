"""From a call to its node: find the template, fill it in, wait for leave, and run it by its kind."""

from periplus_local.argo import dag, leaf, retry, steps, suspend
from periplus_local.argo.call import NODE_TYPES, Call, Frame, StepError, error_node
from periplus_local.argo.faults import Fault
from periplus_local.argo.limits import Abandoned, Slots, mutex_names
from periplus_local.argo.names import pod_name
from periplus_local.argo.nodes import Node, fulfilled
from periplus_local.argo.run import Run
from periplus_local.argo.scope import Scope
from periplus_local.argo.templates import LEAVES, Template, kind_of, ready
from periplus_manifest.errors import ManifestError

DEEPEST = 100
TOO_DEEP = f"Maximum recursion depth exceeded: {DEEPEST} templates within one another"
ANY = Slots(None)
RUNNERS = {"dag": dag.run, "steps": steps.run, "suspend": suspend.run}
RUNNERS.update(dict.fromkeys(LEAVES, leaf.run))


async def execute(run: Run, call: Call) -> Node | None:
    """Run a template to its end and give its node.

    None when no node was made, because the template around it fails fast. Raises StepError when the call
    could not be made; a step that ran and failed is a node and no error.
    """
    node = run.nodes.named(call.name)
    if node is not None and fulfilled(node):
        if call.boundary:
            call.boundary.note(node)
        return node
    await run.proceed()
    if call.depth >= DEEPEST:
        return error_node(run, call, TOO_DEEP)
    try:
        frame = _frame(run, call)
    except (Fault, ManifestError) as error:
        raise StepError(error_node(run, call, str(error))["message"]) from error
    slots = call.boundary.slots if call.boundary else ANY
    async with slots.one():
        if call.boundary and call.boundary.closed:
            return None
        if frame.kind != "suspend":
            return await _locked(frame)
    return await _locked(frame)  # what merely waits takes no place from others


def _frame(run: Run, call: Call) -> Frame:
    source, template = run.shelf.called(call.source, call.holder)
    strategy = template.get("retryStrategy", run.plain.get("retryStrategy"))
    local = Scope(run.globals)
    local.put(call.name, "node", "name")
    if call.kind:
        local.put(call.step, call.kind, "name")
    if kind_of(template) in LEAVES and strategy is None:
        local.put(pod_name(run.name, call.name, template.get("name", "")), "pod", "name")
    filled, scope = ready(template, call.arguments, local)
    return Frame(run, call, source, filled, scope, execute)


async def _locked(frame: Frame) -> Node:
    run = frame.run
    locks = mutex_names(frame.template.get("synchronization"), run.metadata["namespace"])
    if not locks:
        return await _run(frame)

    def waiting(name: str) -> None:
        message = f"Waiting for {name} lock. Lock status: 0/1"
        node = frame.node() or frame.start(_node_type(frame.template), "Pending")
        node["synchronizationStatus"] = {"waiting": name}
        run.nodes.mark(node, "Pending", message)

    owner = f"{run.uid}/{frame.call.name}"
    try:
        async with run.around.mutexes.all(locks, owner, waiting):
            node = frame.node()
            if node and node.pop("synchronizationStatus", None):
                run.nodes.mark(node, node["phase"], "")
            run.hold(locks, owner)
            return await _run(frame)
    except Abandoned:
        node = frame.node() or frame.start(_node_type(frame.template), "Pending")
        node.pop("synchronizationStatus", None)
        return run.nodes.mark(node, "Failed", f"Stopped with strategy '{run.shutdown}'")
    finally:
        run.let_go(locks, owner)


async def _run(frame: Frame) -> Node:
    strategy = frame.template.get("retryStrategy", frame.run.plain.get("retryStrategy"))
    if strategy is None:
        return await _once(frame)
    try:
        return await retry.run(frame, strategy, _once)
    except (Fault, ManifestError) as error:
        raise StepError(error_node(frame.run, frame.call, str(error))["message"]) from error


async def _once(frame: Frame) -> Node:
    try:
        node = await RUNNERS[frame.kind](frame)
    except (Fault, ManifestError) as error:
        node = error_node(frame.run, frame.call, str(error))
        raise StepError(node["message"]) from error
    finally:
        made = frame.node()
        if frame.call.boundary and made is not None:
            frame.call.boundary.note(made)
            if frame.call.boundary.closed:
                frame.run.stir()
    return node


def _node_type(template: Template) -> str:
    return "Retry" if "retryStrategy" in template else NODE_TYPES[kind_of(template)]
