"""Tell of each run that ends, as a team that subscribes to run events would: with FastStream.

    python examples/events.py

Subjects are `periplus.<service>.v1.<Event>.<project>.<run>` and bodies protobuf (proto/periplus/*/v1/events.proto), so a
subscriber chooses by kind, by project or by run. Who must miss nothing while away uses a durable consumer instead.
"""

import asyncio

from faststream import FastStream
from faststream.nats import NatsBroker, NatsMessage

from periplus.dispatcher.v1.events_pb2 import RunFinished
from periplus.sdk.client import connection
from periplus.types.v1.step_pb2 import RunPhase

broker = NatsBroker(connection().events, apply_types=False)


async def decoded(message: NatsMessage) -> RunFinished:
    return RunFinished.FromString(message.body)


@broker.subscriber("periplus.dispatcher.v1.RunFinished.*.*", decoder=decoded)
async def tell(run: RunFinished) -> None:
    phase = RunPhase.Name(run.phase).removeprefix("RUN_PHASE_").lower()
    print(f"{run.project} {run.run} {phase}: {run.cached_steps} steps were cached", flush=True)


if __name__ == "__main__":
    asyncio.run(FastStream(broker).run())
