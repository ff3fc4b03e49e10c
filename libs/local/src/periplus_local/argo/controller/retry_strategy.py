"""`retryStrategy`: the attempts of a call, and the decision whether there is another one."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from periplus_local.argo import names
from periplus_local.argo.controller import node_tree
from periplus_local.argo.controller.nodes import FAILED, Node, is_fulfilled
from periplus_local.argo.controller.scope import Scope
from periplus_local.argo.controller.template_call import FAIL_FAST_MESSAGE, StepError, TemplateExecution
from periplus_local.argo.errors import invalid_argument
from periplus_local.argo.scalars import duration_seconds, integer, now, parse_timestamp
from periplus_local.argo.templates import CONTAINER_KINDS, kind_of
from periplus_manifest.errors import ManifestError

RunOnce = Callable[[TemplateExecution], Awaitable[Node]]
# Fields that are not filled in again with the variables of an attempt.
UNFILLED = frozenset({"inputs", "name", "dag", "steps"})
MAX_BACKOFF_EXPONENT = 64
# Parts of messages (in lower case) of stores, servers and the network when they are away or overloaded.
TRANSIENT_MESSAGES = (
    "client rate limiter wait returned an error",
    "connection aborted",
    "connection closed by foreign host",
    "connection refused",
    "connection reset by peer",
    "connection timed out",
    "etcdserver: leader changed",
    "etcdserver: request timed out",
    "etcdserver: too many requests",
    "error when reading response body",
    "http2: client connection lost",
    "http2: server sent goaway",
    "i/o timeout",
    "invalid connection",
    "read timed out",
    "request did not complete within requested timeout",
    "slowdown",
    "tls handshake timeout",
    "unexpected eof",
)


def is_transient(message: str, pattern: "re.Pattern[str] | None") -> bool:
    """Whether a node's message is that of a transient failure; `pattern` finds further ones."""
    lower = message.lower()
    return any(text in lower for text in TRANSIENT_MESSAGES) or bool(pattern and pattern.search(message))


@dataclass(frozen=True)
class RetryDecision:
    """What follows an attempt: the end of the Retry node with a message, or another attempt after a delay.

    `retry_until` (Unix seconds) is when the strategy's `maxDuration` ends.
    """

    message: str | None = None
    delay_seconds: float = 0.0
    retry_until: float | None = None
    is_final: bool = True


async def run_attempts(execution: TemplateExecution, strategy: dict[str, Any], run_once: RunOnce) -> Node:
    """Make attempts until one succeeds or the strategy allows no more; gives the Retry node."""
    run = execution.run
    parent = execution.node() or execution.start_node("Retry", "Running")
    retry_until: float | None = None
    while True:
        attempts = node_tree.attempts(run.nodes, parent)
        last = attempts[-1] if attempts else None
        if last is not None and is_fulfilled(last):
            decision = _decide(execution, strategy, attempts)
            if decision.is_final:
                return _end(execution, parent, last, decision.message)
            retry_until = decision.retry_until
            if not await _back_off(execution, parent, decision.delay_seconds):
                continue
            last = None
        number = len(attempts) if last is None else len(attempts) - 1
        name = f"{execution.call.node_name}({number})" if last is None else last["name"]
        run.nodes.connect(parent, name)
        scope = _attempt_scope(execution, name, number, attempts[number - 1] if number else None)
        is_invocator = "dag" in execution.template or "steps" in execution.template
        unfilled = UNFILLED | ({"outputs"} if is_invocator else set())
        template = {k: v if k in unfilled else scope.fill(v) for k, v in execution.template.items()}
        await _run_attempt(execution.attempt(name, template, scope, retry_until), strategy, run_once)


async def _run_attempt(attempt: TemplateExecution, strategy: dict[str, Any], run_once: RunOnce) -> None:
    try:
        await run_once(attempt)
    except StepError as error:
        if policy_of(strategy) not in {"Always", "OnError", "OnTransientError"}:
            parent = attempt.run.nodes.by_name(attempt.call.node_name.rpartition("(")[0])
            if parent is not None:
                attempt.run.nodes.set_phase(parent, "Error", str(error))
            raise


def _end(execution: TemplateExecution, parent: Node, last: Node, message: str | None) -> Node:
    if "outputs" in last:
        parent["outputs"] = last["outputs"]
    phase = last["phase"] if last["phase"] in FAILED else "Succeeded"
    return execution.run.nodes.set_phase(parent, phase, message or "")


async def _back_off(execution: TemplateExecution, parent: Node, seconds: float) -> bool:
    """Wait; False when the workflow is to end meanwhile."""
    run, in_exit_handler = execution.run, execution.call.in_exit_handler
    if seconds > 0:
        run.nodes.set_phase(parent, "Running", f"Backoff for {seconds:g} seconds")
    must_end = await run.wait_until(
        lambda: run.is_shut_down(in_exit_handler=in_exit_handler) or run.is_deadline_passed(), seconds
    )
    if not must_end:
        run.nodes.set_phase(parent, "Running", "")
    return not must_end


def policy_of(strategy: dict[str, Any]) -> str:
    """The retry policy; by default Always with an expression and OnFailure without."""
    return str(strategy.get("retryPolicy") or ("Always" if strategy.get("expression") else "OnFailure"))


def _decide(execution: TemplateExecution, strategy: dict[str, Any], attempts: list[Node]) -> RetryDecision:
    run, last = execution.run, attempts[-1]
    if last["phase"] not in FAILED:
        return RetryDecision()
    if execution.call.boundary and execution.call.boundary.is_failing_fast:
        return RetryDecision(FAIL_FAST_MESSAGE)
    if run.shutdown:
        return RetryDecision(f"Stopped with strategy '{run.shutdown}'")
    if run.is_deadline_passed():
        end = f"{run.deadline():%Y-%m-%d %H:%M:%S +0000 UTC}"
        return RetryDecision(f"retry exceeded workflow deadline {end}")
    backoff = _backoff(strategy, attempts, run.finished_at.get(last["id"]))
    if backoff.is_final:
        return backoff
    if not _policy_allows(policy_of(strategy), last, run.context.transient_errors):
        return RetryDecision(last.get("message"))
    limit = strategy.get("limit")
    if limit is not None and len(attempts) > integer("retryStrategy.limit", limit):
        return RetryDecision("No more retries left")
    if strategy.get("expression"):
        scope = _put_last_retry(Scope(), len(attempts) - 1, last, "-1")
        goes_on = scope.evaluate(strategy["expression"])
        if not isinstance(goes_on, bool):
            raise ManifestError("retryStrategy.expression", f"gives '{goes_on}', neither true nor false")
        if not goes_on:
            return RetryDecision("retryStrategy.expression evaluated to false")
    return backoff


def _policy_allows(policy: str, last: Node, transient_errors: re.Pattern[str] | None) -> bool:
    if policy not in {"Always", "OnError", "OnFailure", "OnTransientError"}:
        raise invalid_argument(f"{policy} is not a valid RetryPolicy")
    if policy == "OnTransientError":
        return is_transient(last.get("message", ""), transient_errors)
    return policy == "Always" or (policy == "OnError") == (last["phase"] == "Error")


def _backoff(strategy: dict[str, Any], attempts: list[Node], finished_at: float | None) -> RetryDecision:
    """The delay of the next attempt; final when `maxDuration` has passed, or would before the next attempt."""
    backoff = strategy.get("backoff")
    if backoff is None:
        return RetryDecision(is_final=False)
    current = now().timestamp()
    retry_until: float | None = None
    if backoff.get("maxDuration"):
        first_start = parse_timestamp(attempts[0]["startedAt"]).timestamp()
        retry_until = first_start + duration_seconds(backoff["maxDuration"])
        if current > retry_until:
            return RetryDecision("Max duration limit exceeded")
    if not backoff.get("duration"):
        raise invalid_argument("no base duration specified for retryStrategy")
    delay = duration_seconds(backoff["duration"])
    factor = integer("retryStrategy.backoff.factor", backoff.get("factor") or 0)
    if factor > 0:
        delay *= float(factor) ** min(len(attempts) - 1, MAX_BACKOFF_EXPONENT)
    if backoff.get("cap"):
        delay = min(delay, duration_seconds(backoff["cap"]))
    ended = parse_timestamp(attempts[-1].get("finishedAt") or attempts[-1]["startedAt"]).timestamp()
    start = (finished_at or ended) + delay
    if retry_until is not None and start > retry_until:
        return RetryDecision("Backoff would exceed max duration limit")
    return RetryDecision(delay_seconds=max(start - current, 0.0), retry_until=retry_until, is_final=False)


def _attempt_scope(execution: TemplateExecution, name: str, number: int, last: Node | None) -> Scope:
    scope = Scope(execution.scope)
    if kind_of(execution.template) in CONTAINER_KINDS:
        pod = names.pod_name(execution.run.name, name, execution.template.get("name", ""))
        scope.put(pod, "pod", "name")
    return _put_last_retry(scope, number, last, "0")


def _put_last_retry(scope: Scope, retries: int, last: Node | None, no_exit_code: str) -> Scope:
    """Put `retries` and `lastRetry.*` into the scope; `no_exit_code` stands for a missing exit code."""
    scope.put(str(retries), "retries")
    outputs = (last or {}).get("outputs") or {}
    scope.put(outputs.get("exitCode", no_exit_code), "lastRetry", "exitCode")
    scope.put((last or {}).get("phase", ""), "lastRetry", "status")
    scope.put((last or {}).get("message", ""), "lastRetry", "message")
    seconds = 0.0
    if last is not None and "finishedAt" in last:
        length = parse_timestamp(last["finishedAt"]) - parse_timestamp(last["startedAt"])
        seconds = length.total_seconds()
    scope.put(f"{seconds:g}", "lastRetry", "duration")
    return scope
