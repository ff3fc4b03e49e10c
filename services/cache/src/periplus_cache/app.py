"""The whole service: what is opened, in which order, and how it is wired."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from functools import partial

from periplus.cache.v1.cache_pb2_grpc import add_CacheServiceServicer_to_server
from periplus_cache import events, rpc
from periplus_cache.objects import S3ObjectStore
from periplus_cache.rpc import CacheServicer
from periplus_cache.service import Cache
from periplus_cache.settings import Settings
from periplus_cache.store.postgres import PostgresStore
from periplus_common import blobs, bus, outbox, postgres
from periplus_common.rpc import serving


@asynccontextmanager
async def app(settings: Settings) -> AsyncIterator[int]:
    """Serve gRPC, consume and publish events until the block is left. Yields the port. NATS may start later."""
    dsn = settings.postgres_dsn.get_secret_value()
    async with AsyncExitStack() as opened:
        database = await opened.enter_async_context(postgres.database(dsn))
        link = await opened.enter_async_context(bus.link(settings.nats_url.get_secret_value()))
        objects = S3ObjectStore(opened.enter_context(closing(blobs.connect(settings))))
        cache = Cache(PostgresStore(database), objects, epoch=settings.epoch)
        servicer = partial(add_CacheServiceServicer_to_server, CacheServicer(cache))
        async with (
            events.consuming(link, cache),
            outbox.relaying(dsn, link, "CACHE"),
            serving(
                settings.grpc_address, settings.token.get_secret_value(), servicer, names=[rpc.NAME]
            ) as port,
        ):
            yield port
