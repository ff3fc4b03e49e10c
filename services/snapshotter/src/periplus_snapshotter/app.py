"""The whole service on one page: what is opened, what is wired to what, in order."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime
from functools import partial

from periplus.snapshotter.v1.snapshotter_pb2_grpc import add_SnapshotterServiceServicer_to_server
from periplus_common import blobs, bus, outbox, postgres, rpc
from periplus_snapshotter.lockfiles.sandbox import Sandbox
from periplus_snapshotter.objects import S3Objects
from periplus_snapshotter.rpc import NAME, SnapshotterServicer
from periplus_snapshotter.service import Snapshotter
from periplus_snapshotter.settings import Settings
from periplus_snapshotter.store import PostgresStore


@asynccontextmanager
async def app(settings: Settings) -> AsyncIterator[int]:
    """Everything open for as long as the block lasts. Yields the port."""
    dsn = settings.postgres_dsn.get_secret_value()
    async with (
        postgres.database(dsn) as database,
        bus.link(settings.nats_url.get_secret_value()) as link,
        outbox.relaying(dsn, link, "SNAPSHOTTER"),
    ):
        with closing(blobs.connect(settings)) as store:
            snapshotter = Snapshotter(
                PostgresStore(database),
                S3Objects(store),
                Sandbox(settings.lockfile_processes),
                partial(datetime.now, UTC),
            )
            register = partial(add_SnapshotterServiceServicer_to_server, SnapshotterServicer(snapshotter))
            token = settings.token.get_secret_value()
            async with rpc.serving(settings.grpc_address, token, register, names=[NAME]) as port:
                yield port
