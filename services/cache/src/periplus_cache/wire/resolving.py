"""ResolveSteps: requests and answers."""

import asyncio
from collections.abc import Iterable

from periplus.cache.v1 import cache_pb2
from periplus_cache.resolve.request import ResolveRequest
from periplus_common.errors import Invalid
from periplus_common.pauses import Pauses
from periplus_model.codec import decode_name, decode_query, decode_run_mode, decode_template, encode_verdict
from periplus_model.queries import StepVerdict

_LARGE_STEP_BYTES = 64 << 10


async def decode_request(message: cache_pb2.ResolveStepsRequest) -> ResolveRequest:
    """The request. Raises `Invalid` for names that can not be stored and inputs that are given twice."""
    steps, pauses = [], Pauses()
    for index, step in enumerate(message.steps):
        await pauses.take()
        _check_unique(f"steps[{index}].parameters", [parameter.name for parameter in step.parameters])
        _check_unique(f"steps[{index}].artifacts", [artifact.name for artifact in step.artifacts])
        # The lists of one step may be long. Another thread has the interpreter for a few milliseconds at a time.
        is_large = step.ByteSize() > _LARGE_STEP_BYTES
        steps.append(await asyncio.to_thread(decode_query, step) if is_large else decode_query(step))
    return ResolveRequest(
        project=message.project,
        templates={name: decode_template(template) for name, template in message.templates.items()},
        steps=tuple(steps),
        run_mode=decode_run_mode(message.cache_mode),
        code_index=dict(message.code_index),
        run=decode_name(message.run, "run"),
    )


def encode_response(verdicts: Iterable[StepVerdict]) -> cache_pb2.ResolveStepsResponse:
    """The answer."""
    return cache_pb2.ResolveStepsResponse(verdicts=map(encode_verdict, verdicts))


def _check_unique(field: str, names: list[str]) -> None:
    if len(set(names)) == len(names):
        return
    index = next(index for index, name in enumerate(names) if name in names[:index])
    raise Invalid(f"{names[index]!r} is given twice", field=f"{field}[{index}].name", reason="INPUT_TWICE")
