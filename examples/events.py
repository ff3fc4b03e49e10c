"""Print a line for each run that finishes: a subscriber to run events, written with FastStream.

    python examples/events.py

Subjects are `periplus.<service>.v1.<Event>.<project>.<run>` and bodies protobuf (proto/periplus/*/v1/events.proto), so a
subscriber selects by type, project or run. Events that are published while it is not connected are lost to it: use a
durable JetStream consumer where that matters. The server proves who it is before the password is sent.
"""

import asyncio
import ssl

from faststream import FastStream
from faststream.nats import NatsBroker, NatsMessage, NatsSecurity

from periplus.dispatcher.v1.events_pb2 import RunFinished
from periplus.sdk.client import connection
from periplus.types.v1.step_pb2 import RunPhase

settings = connection()
verified = ssl.create_default_context(cafile=settings.events_ca_file or None)
security = NatsSecurity(ssl_context=verified, use_ssl=True, tls_handshake_first=True)
broker = NatsBroker(settings.events, security=security, apply_types=False)


async def decode(message: NatsMessage) -> RunFinished:
    return RunFinished.FromString(message.body)


@broker.subscriber("periplus.dispatcher.v1.RunFinished.*.*", decoder=decode)
async def print_run(run: RunFinished) -> None:
    phase = RunPhase.Name(run.phase).removeprefix("RUN_PHASE_").lower()
    print(f"{run.project} {run.run} {phase}: {run.cached_steps} steps were cached", flush=True)


if __name__ == "__main__":
    asyncio.run(FastStream(broker).run())
