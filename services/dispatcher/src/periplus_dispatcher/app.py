"""The whole service on one page: what is opened, what is wired to what, in order."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from periplus.dispatcher.v1.dispatcher_pb2_grpc import add_DispatcherServiceServicer_to_server
from periplus_common import bus, outbox, postgres, rpc
from periplus_dispatcher import argo
from periplus_dispatcher.draft import Reader
from periplus_dispatcher.follow import Follower
from periplus_dispatcher.nodes import Store
from periplus_dispatcher.peers import GrpcCache, GrpcSnapshotter
from periplus_dispatcher.rpc import NAME, DispatcherServicer
from periplus_dispatcher.service import Dispatcher
from periplus_dispatcher.settings import Settings
from periplus_dispatcher.store import PostgresRuns


@asynccontextmanager
async def app(settings: Settings) -> AsyncIterator[int]:
    """The dispatcher, up for as long as the block is open. Yields the port it serves on."""
    dsn, token = settings.postgres_dsn.get_secret_value(), settings.token.get_secret_value()
    async with (
        postgres.database(dsn) as database,
        bus.link(settings.nats_url.get_secret_value()) as link,
        outbox.relaying(dsn, link, "DISPATCHER"),
        rpc.channel(settings.cache_address, token) as cache_channel,
        rpc.channel(settings.snapshotter_address, token) as snapshotter_channel,
        argo.connect(
            settings.argo_url, settings.argo_token.get_secret_value(), settings.argo_namespace
        ) as workflows,
        asyncio.TaskGroup() as tasks,
    ):
        runs = PostgresRuns(database)
        cache = GrpcCache(cache_channel, settings.cache_seconds)
        store = Store(settings.s3_endpoint, settings.s3_bucket)
        reader = Reader(workflows, cache, GrpcSnapshotter(snapshotter_channel))
        dispatcher = Dispatcher(runs, workflows, reader, store, settings.gate_seconds)
        following = tasks.create_task(Follower(dispatcher, runs, workflows, cache, store).follow())
        servicer = partial(add_DispatcherServiceServicer_to_server, DispatcherServicer(dispatcher))
        async with rpc.serving(settings.grpc_address, token, servicer, names=[NAME]) as port:
            yield port
        following.cancel()
