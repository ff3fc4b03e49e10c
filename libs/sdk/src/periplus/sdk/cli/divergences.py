"""Divergences in what the commands print: steps whose outputs differ from those of an earlier step with the same key."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from periplus.sdk.cli.terminal import say
from periplus.sdk.cli.text import one_line
from periplus.sdk.cli.watching import RAN
from periplus.sdk.client.call_error import CallError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from periplus.cache.v1.cache_pb2 import Divergence
    from periplus.lineage.v1.lineage_pb2 import Step
    from periplus.sdk.client import Client

RECORDED_SECONDS = 2.0
"""How long a summary waits until the cache has recorded the steps of a run that has just finished."""
MAX_LISTED = 10


def of_steps(services: Client, run: str, steps: Sequence[Step]) -> Sequence[Divergence]:
    """The divergences of a run that has finished with these steps. Without a step that ran, there is none."""
    ran = sum(step.phase in RAN for step in steps)
    return of_run(services, run, ran) if ran else ()


def of_run(services: Client, run: str, finished: int = 0) -> Sequence[Divergence]:
    """The divergences of a run, once `finished` of its steps are recorded or the time for that is over.

    Empty if the cache can not be asked: what a run did is told without it.
    """
    deadline = time.monotonic() + RECORDED_SECONDS
    try:
        while True:
            found = services.list_divergences(run)
            if found.recorded_steps >= finished or time.monotonic() > deadline:
                return found.divergences
            time.sleep(0.05)
    except CallError:
        return ()


def print_them(found: Sequence[Divergence]) -> None:
    """A line for each, to the standard error."""
    for each in found[:MAX_LISTED]:
        say(f"  {sentence(each)}", error=True)
    if len(found) > MAX_LISTED:
        say(
            f"  and {len(found) - MAX_LISTED} more steps gave other outputs than their key's entry",
            error=True,
        )


def sentence(found: Divergence) -> str:
    """As in: two of same-x2 gave another parameters.o than one of same-x1, which has the same key."""
    outputs = ", ".join(found.outputs)
    return one_line(
        f"{found.step} of {found.run} gave another {outputs} than {found.producer_step} of {found.producer_run}, "
        "which has the same key"
    )
