"""The whole service on one page: what is opened, what is wired to what, in order."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from periplus.lineage.v1.lineage_pb2_grpc import add_LineageServiceServicer_to_server
from periplus_common import bus, postgres, rpc
from periplus_lineage import events
from periplus_lineage.domain.page import Pages
from periplus_lineage.rpc import NAME, LineageServicer
from periplus_lineage.service.comparing import Comparisons
from periplus_lineage.service.runs import RunQueries
from periplus_lineage.service.walking import Walks
from periplus_lineage.settings import Settings
from periplus_lineage.store.facts import FactStore
from periplus_lineage.store.flow import FlowStore
from periplus_lineage.store.link import LinkStore
from periplus_lineage.store.notices import listening
from periplus_lineage.store.run import RunStore
from periplus_lineage.wire.event import Reader


@asynccontextmanager
async def app(settings: Settings) -> AsyncIterator[int]:
    """Everything open for as long as the block lasts. Yields the port."""
    dsn, token = settings.postgres_dsn.get_secret_value(), settings.token.get_secret_value()
    reader = Reader(settings.s3_endpoint, settings.s3_bucket)
    async with (
        postgres.database(dsn) as database,
        # Of their own, so that many who ask never keep events waiting.
        postgres.database(dsn, size=3 * settings.flights) as kept,
        listening(dsn) as notices,
        bus.link(settings.nats_url.get_secret_value()) as link,
        events.consuming(link, reader, FactStore(kept).add, settings.batch, settings.flights),
    ):
        store, pages = RunStore(database), Pages(token)
        servicer = LineageServicer(
            RunQueries(store, notices, pages),
            Walks(FlowStore(database), LinkStore(database), store, pages),
            Comparisons(store, store),
        )
        register = partial(add_LineageServiceServicer_to_server, servicer)
        async with rpc.serving(settings.grpc_address, token, register, names=[NAME]) as port:
            with notices.until_over():
                yield port
