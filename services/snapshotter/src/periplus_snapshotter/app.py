"""The whole service on one page: what is opened, what is wired to what, in order."""

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from functools import partial

from periplus.snapshotter.v1.snapshotter_pb2_grpc import add_SnapshotterServiceServicer_to_server
from periplus_common import blobs, bus, outbox, postgres, retention, rpc
from periplus_common.bus import Broker
from periplus_snapshotter import events
from periplus_snapshotter.images.reading import Images, ReadingLimits, checking_tags
from periplus_snapshotter.images.resolver import ImageResolver, ResolverLimits
from periplus_snapshotter.layers.process import LayerProcesses
from periplus_snapshotter.lockfiles.sandbox import Sandbox
from periplus_snapshotter.object_store import S3ObjectStore
from periplus_snapshotter.registry import client as registries
from periplus_snapshotter.registry.client import RegistryAccess
from periplus_snapshotter.rpc import NAME, SnapshotterServicer
from periplus_snapshotter.service import Snapshotter
from periplus_snapshotter.settings import Settings
from periplus_snapshotter.store.images import PostgresImages
from periplus_snapshotter.store.retention import deleting_unused_objects, retentions
from periplus_snapshotter.store.snapshots import PostgresSnapshots


@asynccontextmanager
async def app(settings: Settings) -> AsyncIterator[int]:
    """Everything open for as long as the block lasts. Yields the port."""
    dsn, token = settings.postgres_dsn.get_secret_value(), settings.token.get_secret_value()
    broker = Broker(settings.nats_url.get_secret_value(), ca_file=settings.nats_ca_file)
    events.declare(broker)
    async with (
        postgres.database(dsn) as database,
        bus.consuming(broker),
        outbox.relaying(dsn, broker, "SNAPSHOTTER"),
        retention.enforcing(dsn, retentions(settings.keep_snapshots)),
        registries.connect(_registry_access(settings)) as registry,
        aclosing(ImageResolver(registry, _resolver_limits(settings))) as resolver,
        aclosing(
            Images(
                resolver,
                registry,
                LayerProcesses(),
                PostgresImages(database),
                ReadingLimits(max_bytes=settings.image_mebibytes << 20, read_resolved=settings.read_images),
            )
        ) as images,
    ):
        with closing(blobs.connect(settings)) as client:
            object_store = S3ObjectStore(client)
            snapshotter = Snapshotter(
                PostgresSnapshots(database),
                object_store,
                Sandbox(settings.lockfile_processes),
                partial(datetime.now, UTC),
            )
            register = partial(
                add_SnapshotterServiceServicer_to_server, SnapshotterServicer(snapshotter, images)
            )
            async with (
                checking_tags(images, timedelta(seconds=settings.check_tags_seconds)),
                deleting_unused_objects(database, object_store.delete, settings.keep_snapshots),
                rpc.serving(settings.grpc_address, token, register, names=[NAME]) as port,
            ):
                yield port


def _registry_access(settings: Settings) -> RegistryAccess:
    return RegistryAccess(
        allowed=frozenset((*settings.registries, *settings.private_registries)),
        private=frozenset(settings.private_registries),
        plain=frozenset(settings.plain_registries),
        token_hosts=dict(pair.split("=", 1) for pair in settings.registry_token_hosts),
        blob_hosts=frozenset(settings.registry_blob_hosts),
        docker_config=settings.registry_docker_config,
        ca_file=settings.registry_ca_file,
        request_timeout=timedelta(seconds=settings.registry_seconds),
    )


def _resolver_limits(settings: Settings) -> ResolverLimits:
    return ResolverLimits(
        budget=timedelta(seconds=settings.registry_seconds),
        keep_tag=timedelta(seconds=settings.registry_keep_seconds),
        platform=settings.image_platform,
    )
