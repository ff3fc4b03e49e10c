"""From a call to its node: find the template, fill it in, wait for leave, and run it by its kind."""

from periplus_local.argo import dag, leaf, retry, steps, suspend
from periplus_local.argo.call import NODE_TYPES, Call, Frame, StepError, error_node
from periplus_local.argo.faults import Fault, invalid
from periplus_local.argo.limits import Abandoned, Slots, mutex_names
from periplus_local.argo.names import pod_name
from periplus_local.argo.nodes import FAILED, Node, fulfilled
from periplus_local.argo.run import Run
from periplus_local.argo.scope import Scope
from periplus_local.argo.templates import LEAVES, Template, kind_of, ready
from periplus_manifest.errors import ManifestError

DEEPEST = 100
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
        _note_failure(call, node)
        return node
    await run.proceed()
    try:
        frame = _frame(run, call)
    except (Fault, ManifestError) as error:
        raise StepError(error_node(run, call, str(error))["message"]) from error
    slots = call.boundary.slots if call.boundary else ANY
    async with slots.one():
        if call.boundary and call.boundary.closed:
            call.boundary.held_back = True
            return None
        node = await _locked(frame)
    _note_failure(call, node)
    return node


def _note_failure(call: Call, node: Node) -> None:
    if call.boundary and node["phase"] in FAILED:
        call.boundary.failed = True


def _frame(run: Run, call: Call) -> Frame:
    if call.depth >= DEEPEST:
        raise invalid(f"Maximum recursion depth exceeded: {DEEPEST} templates within one another")
    source, template = run.shelf.called(call.source, call.holder)
    strategy = template.get("retryStrategy") or run.plain.get("retryStrategy")
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
    strategy = frame.template.get("retryStrategy") or frame.run.plain.get("retryStrategy")
    if strategy is None:
        return await _once(frame)
    try:
        return await retry.run(frame, strategy, _once)
    except (Fault, ManifestError) as error:
        raise StepError(error_node(frame.run, frame.call, str(error))["message"]) from error


async def _once(frame: Frame) -> Node:
    try:
        return await RUNNERS[frame.kind](frame)
    except (Fault, ManifestError) as error:
        raise StepError(error_node(frame.run, frame.call, str(error))["message"]) from error


def _node_type(template: Template) -> str:
    return "Retry" if "retryStrategy" in template else NODE_TYPES[kind_of(template)]
