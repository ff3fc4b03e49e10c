"""Lifecycle hooks: the exit hook of a step, and those that run when an expression becomes true."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from periplus_local.argo import outputs
from periplus_local.argo import scope as scopes
from periplus_local.argo.call import Call, StepError
from periplus_local.argo.faults import Fault, invalid
from periplus_local.argo.nodes import COMPLETED, Node
from periplus_local.argo.place import Place, last_attempt
from periplus_local.argo.scope import Scope

log = logging.getLogger(__name__)
EXIT = "exit"


def exit_hook(holder: dict[str, Any], arguments: dict[str, Any]) -> dict[str, Any] | None:
    """The exit hook of a step or of a spec; one without arguments of its own has the workflow's."""
    if holder.get("onExit"):
        return {"template": holder["onExit"], "arguments": arguments}
    hook = (holder.get("hooks") or {}).get(EXIT)
    return {**hook, "arguments": _own(hook) or arguments} if hook else None


def _own(hook: dict[str, Any]) -> dict[str, Any]:
    given = hook.get("arguments") or {}
    return given if any(given.values()) else {}


async def run_exit(place: Place, step: dict[str, Any], name: str, node: Node) -> None:
    """Run the exit hook of a step that has ended, if it has one and is not merely skipped."""
    hook = exit_hook(step, place.run.plain.get("arguments") or {})
    if hook is None or node["phase"] not in COMPLETED or place.run.shuts(exit_part=True):
        return
    scope = _scope(place, name, node)
    try:
        if hook.get("expression") and scope.evaluate(hook["expression"]) is not True:
            return
    except Fault as fault:
        log.warning("the exit hook of %s in %s: %s", node["name"], place.run.name, fault)
        return
    await _call(place, hook, f"{node['name']}.onExit", name, node, scope, exit_part=True)


@asynccontextmanager
async def watching(place: Place, step: dict[str, Any], name: str, node_name: str) -> AsyncIterator[None]:
    """While a step runs, run each of its other hooks once its expression is true; wait for them."""
    others = {key: hook for key, hook in (step.get("hooks") or {}).items() if key != EXIT}
    if not others:
        yield
        return
    run = place.run
    node_id = run.nodes.id_of(node_name)
    started: dict[str, asyncio.Task[None]] = {}
    wrong: list[str] = []

    def look(node: Node) -> None:
        scope = _scope(place, name, node)
        for key, hook in others.items():
            try:
                began = run.nodes.named(f"{node_name}.hooks.{key}") is not None
                due = key not in started and (began or _is_due(scope, hook, f"{node_name}.hooks.{key}"))
            except Fault as fault:
                wrong.append(fault.message)
                continue
            if due:
                calling = _call(place, hook, f"{node_name}.hooks.{key}", name, node, scope)
                started[key] = asyncio.create_task(calling)

    try:
        with run.nodes.watching(node_id, look):
            if (node := run.nodes.by_id.get(node_id)) is not None:
                look(node)
            yield
        node = run.nodes.by_id.get(node_id)
        if node is not None:
            look(node)
        await asyncio.gather(*started.values())
        if wrong and node is not None:
            run.nodes.mark(node, "Error", wrong[0])
    finally:
        for task in started.values():
            task.cancel()


def _is_due(scope: Scope, hook: dict[str, Any], name: str) -> bool:
    if not hook.get("expression"):
        raise invalid(f"Expression required for hook {name}")
    return scope.evaluate(hook["expression"]) is True


def _scope(place: Place, name: str, node: Node) -> Scope:
    """What a hook's expression can name: what the step could, and of the step itself its phase."""
    scope = Scope(place.scope)
    scope.nested[place.kind] = {**(place.scope.nested.get(place.kind) or {}), name: {}}
    scope.put(node["phase"], place.kind, name, "status")
    return scope


async def _call(
    place: Place,
    hook: dict[str, Any],
    name: str,
    step: str,
    owner: Node,
    scope: Scope,
    *,
    exit_part: bool = False,
) -> None:
    run = place.run
    scopes.put_outputs(scope, place.kind, step, last_attempt(run, owner).get("outputs") or {})
    arguments = scopes.mark_absent(hook.get("arguments") or {}, scope)
    try:
        arguments = outputs.arguments(scope.fill(arguments), scope)
    except Fault as fault:
        run.nodes.mark(owner, "Error", fault.message)
        return
    run.nodes.connect(owner, name)
    call = Call(
        name=name,
        holder={key: hook[key] for key in ("template", "templateRef") if key in hook},
        arguments=arguments,
        source=place.source,
        boundary=place.boundary,
        exit_part=exit_part or place.exit_part,
        flag={"hooked": True},
        depth=place.depth + 1,
    )
    try:
        await place.execute(run, call)
    except StepError:
        return  # the hook's own node says what went wrong; the step it belongs to has ended already
