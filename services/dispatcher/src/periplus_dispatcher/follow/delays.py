"""What delays a step, in Argo's words, from its node and the nodes of its attempts."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from periplus_dispatcher.domain import Json
from periplus_dispatcher.follow.nodes import parse_time

_ORDINARY_REASONS = ("ContainerCreating", "PodInitializing")
"""Every pod has these for some seconds."""
ORDINARY_FOR = timedelta(seconds=30)
"""After this time a pod that has such a reason is delayed."""
MAX_REASON_CHARACTERS = 1_000


def delay_reason(node: Json, attempts: Sequence[Json], now: datetime) -> str:
    """Why a step has not ended; empty if nothing delays it. `attempts` are those under a retryStrategy, in order."""
    reason = _reason(node, attempts, now).replace("\0", "\N{REPLACEMENT CHARACTER}")
    return reason[:MAX_REASON_CHARACTERS]


def _reason(node: Json, attempts: Sequence[Json], now: datetime) -> str:
    if not attempts:
        return _pending_reason(node, now)
    if reason := _pending_reason(attempts[-1], now):
        return f"attempt {len(attempts)}: {reason}" if len(attempts) > 1 else reason
    for number in range(len(attempts), 0, -1):
        attempt = attempts[number - 1]
        if attempt.get("phase") in ("Failed", "Error"):
            return f"attempt {number} failed: {attempt.get('message') or attempt['phase']}"
    return ""


def _pending_reason(node: Json, now: datetime) -> str:
    """Why a node is Pending, as Argo has it from the conditions of its pod; empty if it is not, or not for long."""
    if node.get("phase") != "Pending":
        return ""
    message = str(node.get("message") or "")
    started_at = parse_time(node.get("startedAt"))
    is_ordinary = message.partition(":")[0] in _ORDINARY_REASONS
    return "" if is_ordinary and started_at is not None and now - started_at < ORDINARY_FOR else message
