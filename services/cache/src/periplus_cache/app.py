"""The whole service: what is opened, in which order, and how it is wired."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from functools import partial

from periplus.cache.v1.cache_pb2_grpc import add_CacheServiceServicer_to_server
from periplus_cache import events, rpc
from periplus_cache.lease.unit import LeaseTimings
from periplus_cache.objects import S3ObjectStore
from periplus_cache.rpc import CacheServicer
from periplus_cache.service import Cache
from periplus_cache.settings import Settings
from periplus_cache.store.leases import PostgresLeases
from periplus_cache.store.postgres import PostgresStore
from periplus_cache.store.retention import retentions
from periplus_cache.store.waits import EndedWaits
from periplus_common import blobs, bus, outbox, postgres, retention
from periplus_common.bus import Broker
from periplus_common.rpc import serving


@asynccontextmanager
async def app(settings: Settings) -> AsyncIterator[int]:
    """Serve gRPC, consume and publish events until the block is left. Yields the port. NATS may start later."""
    dsn, token = settings.postgres_dsn.get_secret_value(), settings.token.get_secret_value()
    async with postgres.database(dsn) as database:
        with closing(blobs.connect(settings)) as opened:
            timings = LeaseTimings(ttl=timedelta(seconds=settings.lease_seconds))
            waits = EndedWaits(timings)
            cache = Cache(
                PostgresStore(database),
                S3ObjectStore(opened),
                epoch=settings.epoch,
                leases=PostgresLeases(database, timings),
                lease_timings=timings,
            )
            broker = Broker(settings.nats_url.get_secret_value(), ca_file=settings.nats_ca_file)
            events.subscribe(broker, cache)
            register = partial(add_CacheServiceServicer_to_server, CacheServicer(cache, waits))
            async with (
                bus.consuming(broker),
                outbox.relaying(dsn, broker, "CACHE"),
                retention.enforcing(dsn, retentions(settings)),
                serving(settings.grpc_address, token, register, names=[rpc.NAME]) as port,
                waits.listening(dsn),  # ends first: a server waits for the calls that it serves
            ):
                yield port
