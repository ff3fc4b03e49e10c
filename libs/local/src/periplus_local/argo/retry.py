"""`retryStrategy`: the attempts of a call, and whether another one is made."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from periplus_local.argo import names, tree
from periplus_local.argo.call import HELD_BACK, Frame, StepError
from periplus_local.argo.duration import seconds_of
from periplus_local.argo.faults import invalid
from periplus_local.argo.nodes import FAILED, Node, fulfilled
from periplus_local.argo.number import whole
from periplus_local.argo.scope import Scope
from periplus_local.argo.templates import LEAVES, kind_of
from periplus_local.argo.transient import is_transient
from periplus_manifest.errors import ManifestError

Once = Callable[[Frame], Awaitable[Node]]
KEPT = frozenset({"inputs", "name", "dag", "steps"})


@dataclass(frozen=True)
class Verdict:
    """What becomes of a call after an attempt: its last word, or another attempt after some seconds."""

    message: str | None = None
    again_in: float = 0.0
    until: float | None = None
    over: bool = True


async def run(frame: Frame, strategy: dict[str, Any], once: Once) -> Node:
    """Make attempts until one succeeds or the strategy allows no more; the Retry node tells the end."""
    run = frame.run
    parent = frame.node() or frame.start("Retry", "Running")
    until: float | None = None
    while True:
        tries = tree.attempts(run.nodes, parent)
        last = tries[-1] if tries else None
        if last is not None and fulfilled(last):
            verdict = _verdict(frame, strategy, tries)
            if verdict.over:
                return _over(frame, parent, last, verdict.message)
            until = verdict.until
            if not await _backed_off(frame, parent, verdict.again_in):
                continue
            last = None
        count = len(tries) if last is None else len(tries) - 1
        name = f"{frame.call.name}({count})" if last is None else last["name"]
        run.nodes.connect(parent, name)
        scope = _attempt_scope(frame, name, count, tries[count - 1] if count else None)
        kept = KEPT | ({"outputs"} if "dag" in frame.template or "steps" in frame.template else set())
        template = {k: v if k in kept else scope.fill(v) for k, v in frame.template.items()}
        await _attempt(frame.attempt(name, template, scope, until), strategy, once)


async def _attempt(frame: Frame, strategy: dict[str, Any], once: Once) -> None:
    try:
        await once(frame)
    except StepError as error:
        if policy_of(strategy) not in {"Always", "OnError", "OnTransientError"}:
            parent = frame.run.nodes.named(frame.call.name.rpartition("(")[0])
            if parent is not None:
                frame.run.nodes.mark(parent, "Error", str(error))
            raise


def _over(frame: Frame, parent: Node, last: Node, message: str | None) -> Node:
    if "outputs" in last:
        parent["outputs"] = last["outputs"]
    phase = last["phase"] if last["phase"] in FAILED else "Succeeded"
    return frame.run.nodes.mark(parent, phase, message or "")


async def _backed_off(frame: Frame, parent: Node, seconds: float) -> bool:
    """Wait; False when the workflow is to end meanwhile."""
    run = frame.run
    if seconds > 0:
        run.nodes.mark(parent, "Running", f"Backoff for {seconds:g} seconds")
    ends = await run.until(lambda: run.shuts(frame.call.exit_part) or run.expired(), seconds)
    if not ends:
        run.nodes.mark(parent, "Running", "")
    return not ends


def policy_of(strategy: dict[str, Any]) -> str:
    """The retry policy: as written, else Always with an expression and OnFailure without."""
    return str(strategy.get("retryPolicy") or ("Always" if strategy.get("expression") else "OnFailure"))


def _verdict(frame: Frame, strategy: dict[str, Any], tries: list[Node]) -> Verdict:
    run, last = frame.run, tries[-1]
    if last["phase"] not in FAILED:
        return Verdict()
    if frame.call.boundary and frame.call.boundary.closed:
        return Verdict(HELD_BACK)
    if run.shutdown:
        return Verdict(f"Stopped with strategy '{run.shutdown}'")
    if run.expired():
        return Verdict(f"retry exceeded workflow deadline {run.deadline():%Y-%m-%d %H:%M:%S +0000 UTC}")
    wait = _backoff(strategy, tries, run.finished.get(last["id"]))
    if wait.over:
        return wait
    if not _allowed(policy_of(strategy), last, run.around.transient):
        return Verdict(last.get("message"))
    limit = strategy.get("limit")
    if limit is not None and len(tries) > whole("retryStrategy.limit", limit):
        return Verdict("No more retries left")
    if strategy.get("expression"):
        scope = _last_scope(Scope(), len(tries) - 1, last, "-1")
        goes = scope.evaluate(strategy["expression"])
        if not isinstance(goes, bool):
            raise ManifestError("retryStrategy.expression", f"gives '{goes}', neither true nor false")
        if not goes:
            return Verdict("retryStrategy.expression evaluated to false")
    return wait


def _allowed(policy: str, last: Node, pattern: re.Pattern[str] | None) -> bool:
    if policy not in {"Always", "OnError", "OnFailure", "OnTransientError"}:
        raise invalid(f"{policy} is not a valid RetryPolicy")
    if policy == "OnTransientError":
        return is_transient(last.get("message", ""), pattern)
    return policy == "Always" or (policy == "OnError") == (last["phase"] == "Error")


def _backoff(strategy: dict[str, Any], tries: list[Node], ended: float | None) -> Verdict:
    backoff = strategy.get("backoff")
    if backoff is None:
        return Verdict(over=False)
    now = names.now().timestamp()
    end: float | None = None
    if backoff.get("maxDuration"):
        end = names.parse(tries[0]["startedAt"]).timestamp() + seconds_of(backoff["maxDuration"])
        if now > end:
            return Verdict("Max duration limit exceeded")
    if not backoff.get("duration"):
        raise invalid("no base duration specified for retryStrategy")
    wait = seconds_of(backoff["duration"])
    factor = whole("retryStrategy.backoff.factor", backoff.get("factor") or 0)
    if factor > 0:
        wait *= float(factor) ** min(len(tries) - 1, 64)
    if backoff.get("cap"):
        wait = min(wait, seconds_of(backoff["cap"]))
    stamped = names.parse(tries[-1].get("finishedAt") or tries[-1]["startedAt"]).timestamp()
    start = (ended or stamped) + wait
    if end is not None and start > end:
        return Verdict("Backoff would exceed max duration limit")
    return Verdict(again_in=max(start - now, 0.0), until=end, over=False)


def _attempt_scope(frame: Frame, name: str, count: int, last: Node | None) -> Scope:
    scope = Scope(frame.scope)
    if kind_of(frame.template) in LEAVES:
        scope.put(names.pod_name(frame.run.name, name, frame.template.get("name", "")), "pod", "name")
    return _last_scope(scope, count, last, "0")


def _last_scope(scope: Scope, count: int, last: Node | None, no_code: str) -> Scope:
    scope.put(str(count), "retries")
    outputs = (last or {}).get("outputs") or {}
    scope.put(outputs.get("exitCode", no_code), "lastRetry", "exitCode")
    scope.put((last or {}).get("phase", ""), "lastRetry", "status")
    scope.put((last or {}).get("message", ""), "lastRetry", "message")
    length = 0.0
    if last is not None and "finishedAt" in last:
        length = (names.parse(last["finishedAt"]) - names.parse(last["startedAt"])).total_seconds()
    scope.put(f"{length:g}", "lastRetry", "duration")
    return scope
