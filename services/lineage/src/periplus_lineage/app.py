"""The whole service on one page: what is opened, what is wired to what, in order."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from periplus.lineage.v1.lineage_pb2_grpc import add_LineageServiceServicer_to_server
from periplus_common import bus, postgres, retention, rpc
from periplus_common.bus import Broker
from periplus_lineage import events
from periplus_lineage.graph.traversal import GraphQueries
from periplus_lineage.page_tokens import PageTokens
from periplus_lineage.rpc import NAME, LineageServicer
from periplus_lineage.runs.queries import RunQueries
from periplus_lineage.settings import Settings
from periplus_lineage.store.graph import PostgresGraph
from periplus_lineage.store.notifications import listening
from periplus_lineage.store.projection import ProjectionStore
from periplus_lineage.store.retention import BATCH_RUNS, retentions
from periplus_lineage.store.runs import PostgresRuns
from periplus_lineage.wire.events import EventProjector


@asynccontextmanager
async def app(settings: Settings) -> AsyncIterator[int]:
    """Everything open for as long as the block lasts. Yields the port."""
    dsn, token = settings.postgres_dsn.get_secret_value(), settings.token.get_secret_value()
    async with (
        postgres.database(dsn) as database,
        # A pool of its own, so that many queries never delay events.
        postgres.database(dsn, size=3 * settings.max_in_flight) as projection_database,
        listening(dsn) as notifications,
    ):
        broker = Broker(settings.nats_url.get_secret_value(), ca_file=settings.nats_ca_file)
        events.subscribe(
            broker,
            EventProjector(settings.s3_endpoint, settings.s3_bucket),
            ProjectionStore(projection_database).apply,
            batch_size=settings.batch_size,
            max_in_flight=settings.max_in_flight,
        )
        runs, page_tokens = PostgresRuns(database), PageTokens(token)
        servicer = LineageServicer(
            RunQueries(runs, notifications, page_tokens),
            GraphQueries(PostgresGraph(database), runs, page_tokens),
        )
        register = partial(add_LineageServiceServicer_to_server, servicer)
        async with (
            bus.consuming(broker),
            retention.enforcing(
                dsn, retentions(settings.keep_runs, settings.keep_snapshots), batch_rows=BATCH_RUNS
            ),
            rpc.serving(settings.grpc_address, token, register, names=[NAME]) as port,
        ):
            with notifications.stopping_on_exit():
                yield port
