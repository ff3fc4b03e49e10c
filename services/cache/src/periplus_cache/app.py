"""The whole service: what is opened, in which order, and how it is wired."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from functools import partial

from periplus.cache.v1.cache_pb2_grpc import add_CacheServiceServicer_to_server
from periplus_cache import events, rpc
from periplus_cache.objects import S3ObjectStore
from periplus_cache.rpc import CacheServicer
from periplus_cache.service import Cache
from periplus_cache.settings import Settings
from periplus_cache.store.postgres import PostgresStore
from periplus_cache.store.retention import retentions
from periplus_common import blobs, bus, outbox, postgres, retention
from periplus_common.bus import Broker
from periplus_common.rpc import serving


@asynccontextmanager
async def app(settings: Settings) -> AsyncIterator[int]:
    """Serve gRPC, consume and publish events until the block is left. Yields the port. NATS may start later."""
    dsn, token = settings.postgres_dsn.get_secret_value(), settings.token.get_secret_value()
    async with postgres.database(dsn) as database:
        with closing(blobs.connect(settings)) as opened:
            cache = Cache(PostgresStore(database), S3ObjectStore(opened), epoch=settings.epoch)
            broker = Broker(settings.nats_url.get_secret_value(), ca_file=settings.nats_ca_file)
            events.subscribe(broker, cache)
            register = partial(add_CacheServiceServicer_to_server, CacheServicer(cache))
            async with (
                bus.consuming(broker),
                outbox.relaying(dsn, broker, "CACHE"),
                retention.enforcing(dsn, retentions(settings)),
                serving(settings.grpc_address, token, register, names=[rpc.NAME]) as port,
            ):
                yield port
