"""A workflow from its first step to its end: the entrypoint, hooks, the exit handler, the verdict."""

import asyncio
import logging
from typing import Any

from periplus_local.argo import names, tree, variables
from periplus_local.argo.call import Call, StepError
from periplus_local.argo.execute import execute
from periplus_local.argo.faults import Fault
from periplus_local.argo.hooks import exit_hook
from periplus_local.argo.limits import Abandoned, mutex_names
from periplus_local.argo.nodes import FAILED, Node
from periplus_local.argo.run import Run
from periplus_local.argo.scope import Scope

log = logging.getLogger(__name__)
ENDINGS = {"Succeeded": "Succeeded", "Skipped": "Succeeded", "Omitted": "Succeeded"}


async def drive(run: Run) -> None:
    """Run the workflow to its end, whatever happens: an error of the engine ends as its phase Error."""
    try:
        locks = mutex_names(run.plain.get("synchronization"), run.metadata["namespace"])
        async with run.around.mutexes.all(locks, f"{run.uid}/", lambda name: _queued(run, name)):
            run.hold(locks, f"{run.uid}/")
            await _driven(run)
            run.let_go(locks, f"{run.uid}/")
    except Abandoned:
        _ended(run, "Failed", f"Stopped with strategy '{run.shutdown}'")
    except Exception as error:
        log.exception("the workflow %s could not go on", run.name)
        _ended(run, "Error", f"the local Argo could not go on: {error!r}")


def _queued(run: Run, name: str) -> None:
    run.set_phase("Pending", f"Waiting for {name} lock. Lock status: 0/1")


async def _driven(run: Run) -> None:
    if run.status.get("phase") != "Running":
        try:
            _label(run)
        except (Fault, StepError) as error:
            _ended(run, "Error", str(error))
            return
        run.status.pop("message", None)
        run.set_phase("Running")
    watch = asyncio.create_task(_deadline(run))
    hooks = WorkflowHooks(run)
    try:
        await _entry(run, hooks)
    finally:
        watch.cancel()
        await hooks.close()


def _label(run: Run) -> None:
    """Give the workflow the labels and annotations that its spec asks for."""
    asked = run.plain.get("workflowMetadata") or {}
    for kind in ("labels", "annotations"):
        if asked.get(kind):
            run.metadata[kind] = {**(run.metadata.get(kind) or {}), **asked[kind]}
    for key, source in (asked.get("labelsFrom") or {}).items():
        value = run.globals.evaluate(source.get("expression", ""))
        if not isinstance(value, str):
            raise StepError(f"spec.workflowMetadata.labelsFrom.{key}.expression: gives no text but {value!r}")
        run.metadata.setdefault("labels", {})[key] = value


async def _deadline(run: Run) -> None:
    end = run.deadline()
    if end is None:
        return
    while not run.expired():
        await run.until(run.expired, max((end - names.now()).total_seconds(), 0.01))
    run.stir()
    await run.end_jobs("Step exceeded its deadline", exit_parts=False)


async def _entry(run: Run, hooks: "WorkflowHooks") -> None:
    call = _call(run, run.name, run.plain.get("entrypoint", ""))
    hooks.look()
    try:
        node = await execute(run, call)
    except StepError as error:
        _ended(run, "Error", f"error in entry template execution: {error}")
        return
    assert node is not None
    phase = str(ENDINGS.get(node["phase"], node["phase"]))
    variables.put_failures(run.globals, run.nodes)
    variables.put_state(run.globals, phase, run.metadata)
    hooks.look(phase)
    await hooks.settled()
    try:
        final = await _exit(run)
    except StepError as error:
        _ended(run, "Error", f"error in exit template execution : {error}")
        return
    message = node.get("message", "")
    if node["phase"] in FAILED and run.shutdown:
        message = f"Stopped with strategy '{run.shutdown}'"
    if phase == "Succeeded" and final is not None and final["phase"] in FAILED:
        phase, message = final["phase"], final.get("message", "")
    _ended(run, phase, "" if phase == "Succeeded" else message)


async def _exit(run: Run) -> Node | None:
    hook = exit_hook(run.plain, run.plain.get("arguments") or {})
    if hook is None or run.shuts(exit_part=True):
        return None
    if hook.get("expression") and run.globals.evaluate(hook["expression"]) is not True:
        return None
    return await execute(run, _call(run, f"{run.name}.onExit", hook, exit_part=True))


def _call(run: Run, name: str, target: str | dict[str, Any], *, exit_part: bool = False) -> Call:
    if isinstance(target, str):
        holder: dict[str, Any] = {"template": target}
        return Call(name, holder, run.plain.get("arguments") or {}, run.shelf.local)
    holder = {key: target[key] for key in ("template", "templateRef") if key in target}
    arguments = run.globals.fill(target.get("arguments") or {})
    flag = {"hooked": True}
    return Call(name, holder, arguments, run.shelf.local, exit_part=exit_part, flag=flag)


def _ended(run: Run, phase: str, message: str) -> None:
    tree.set_progress(run.nodes)
    run.status["progress"] = f"{run.nodes.complete}/{run.nodes.counted}"
    conditions = [item for item in run.status.get("conditions", ()) if item["type"] == "SpecWarning"]
    ended = [{"status": "False", "type": "PodRunning"}, {"status": "True", "type": "Completed"}]
    run.status["conditions"] = ended + conditions
    run.set_phase(phase, message)


class WorkflowHooks:
    """The hooks of the workflow itself, but for its exit handler: each runs once it is due."""

    def __init__(self, run: Run) -> None:
        """The hooks of the run's spec."""
        self._run = run
        hooks = run.plain.get("hooks") or {}
        self._hooks = {key: hook for key, hook in hooks.items() if key != "exit"}
        self._tasks: dict[str, asyncio.Task[Node | None]] = {}

    def look(self, phase: str = "Running") -> None:
        """Start the hooks that are due while the workflow is in the phase."""
        run = self._run
        scope = Scope(run.globals)
        variables.put_state(run.globals, phase, run.metadata)
        for key, hook in self._hooks.items():
            if key in self._tasks or not hook.get("expression"):
                continue
            try:
                began = run.nodes.named(f"{run.name}.hooks.{key}") is not None
                due = began or scope.evaluate(hook["expression"]) is True
            except Fault as fault:
                log.warning("the hook %s of %s: %s", key, run.name, fault)
                continue
            if due:
                call = _call(run, f"{run.name}.hooks.{key}", hook)
                self._tasks[key] = asyncio.create_task(execute(run, call))

    async def settled(self) -> None:
        """Wait for the hooks that have been started; each has a node that says how it went."""
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        root = self._run.nodes.named(self._run.name)
        for key in self._tasks:
            if root is not None:
                self._run.nodes.connect(root, f"{self._run.name}.hooks.{key}")

    async def close(self) -> None:
        """End the hooks that still run."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
