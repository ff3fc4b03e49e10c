"""Lifecycle hooks of a step: its exit hook, and those that run when an expression becomes true."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from periplus_local.argo.controller import outputs
from periplus_local.argo.controller import scope as scopes
from periplus_local.argo.controller.invocator import Invocator
from periplus_local.argo.controller.node_tree import last_attempt
from periplus_local.argo.controller.nodes import COMPLETED, Node
from periplus_local.argo.controller.scope import Scope
from periplus_local.argo.controller.template_call import StepError, TemplateCall
from periplus_local.argo.errors import ArgoError, invalid_argument

log = logging.getLogger(__name__)
EXIT = "exit"


def exit_hook(holder: dict[str, Any], workflow_arguments: dict[str, Any]) -> dict[str, Any] | None:
    """The exit hook of a step or of a spec; one without arguments has the workflow's."""
    if holder.get("onExit"):
        return {"template": holder["onExit"], "arguments": workflow_arguments}
    hook = (holder.get("hooks") or {}).get(EXIT)
    return {**hook, "arguments": _own_arguments(hook) or workflow_arguments} if hook else None


def _own_arguments(hook: dict[str, Any]) -> dict[str, Any]:
    arguments = hook.get("arguments") or {}
    return arguments if any(arguments.values()) else {}


async def run_exit_hook(invocator: Invocator, step: dict[str, Any], step_name: str, node: Node) -> None:
    """Run the exit hook of a step that has ended, if it has one and was not skipped."""
    run = invocator.run
    hook = exit_hook(step, run.exec_spec.get("arguments") or {})
    if hook is None or node["phase"] not in COMPLETED or run.is_shut_down(in_exit_handler=True):
        return
    scope = _scope(invocator, step_name, node)
    try:
        if hook.get("expression") and scope.evaluate(hook["expression"]) is not True:
            return
    except ArgoError as error:
        log.warning("the exit hook of %s in %s: %s", node["name"], run.name, error)
        return
    await _call(invocator, hook, f"{node['name']}.onExit", step_name, node, scope, in_exit_handler=True)


@asynccontextmanager
async def running_hooks(
    invocator: Invocator, step: dict[str, Any], step_name: str, node_name: str
) -> AsyncIterator[None]:
    """While a step runs, start each hook but the exit hook once its expression is true; at the end wait for them."""
    hooks = {key: hook for key, hook in (step.get("hooks") or {}).items() if key != EXIT}
    if not hooks:
        yield
        return
    run = invocator.run
    node_id = run.nodes.id_of(node_name)
    started: dict[str, asyncio.Task[None]] = {}
    errors: list[str] = []

    def start_due(node: Node) -> None:
        scope = _scope(invocator, step_name, node)
        for key, hook in hooks.items():
            hook_node = f"{node_name}.hooks.{key}"
            try:
                was_started = run.nodes.by_name(hook_node) is not None
                due = key not in started and (was_started or _is_due(scope, hook, hook_node))
            except ArgoError as error:
                errors.append(error.message)
                continue
            if due:
                call = _call(invocator, hook, hook_node, step_name, node, scope)
                started[key] = asyncio.create_task(call)

    try:
        with run.nodes.listening(node_id, start_due):
            if (node := run.nodes.by_id.get(node_id)) is not None:
                start_due(node)
            yield
        node = run.nodes.by_id.get(node_id)
        if node is not None:
            start_due(node)
        await asyncio.gather(*started.values())
        if errors and node is not None:
            run.nodes.set_phase(node, "Error", errors[0])
    finally:
        for task in started.values():
            task.cancel()


def _is_due(scope: Scope, hook: dict[str, Any], hook_node: str) -> bool:
    if not hook.get("expression"):
        raise invalid_argument(f"Expression required for hook {hook_node}")
    return scope.evaluate(hook["expression"]) is True


def _scope(invocator: Invocator, step_name: str, node: Node) -> Scope:
    """The scope of a hook's expression: that of its step, and the step's phase."""
    scope = Scope(invocator.scope)
    kind = invocator.step_kind
    scope.nested[kind] = {**(invocator.scope.nested.get(kind) or {}), step_name: {}}
    scope.put(node["phase"], kind, step_name, "status")
    return scope


async def _call(
    invocator: Invocator,
    hook: dict[str, Any],
    hook_node: str,
    step_name: str,
    owner: Node,
    scope: Scope,
    *,
    in_exit_handler: bool = False,
) -> None:
    run = invocator.run
    step_outputs = last_attempt(run.nodes, owner).get("outputs") or {}
    scopes.put_outputs(scope, invocator.step_kind, step_name, step_outputs)
    arguments = scopes.mark_absent(hook.get("arguments") or {}, scope)
    try:
        arguments = outputs.resolve_artifacts(scope.fill(arguments), scope)
    except ArgoError as error:
        run.nodes.set_phase(owner, "Error", error.message)
        return
    run.nodes.connect(owner, hook_node)
    call = TemplateCall(
        node_name=hook_node,
        reference={key: hook[key] for key in ("template", "templateRef") if key in hook},
        arguments=arguments,
        caller=invocator.templates,
        boundary=invocator.boundary,
        in_exit_handler=in_exit_handler or invocator.in_exit_handler,
        node_flag={"hooked": True},
        depth=invocator.depth + 1,
    )
    try:
        await invocator.execute_template(run, call)
    except StepError:
        return  # the hook's own node has the error; the step that it belongs to has ended already
