"""What each service may do on NATS, Postgres and S3: every cell of the tables of docs/operations.md, on the real servers."""

import asyncio
import itertools
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import nats
import pytest
from nats.js.api import ConsumerConfig
from nats.js.errors import NotFoundError

from periplus_local.stack import nats_rights
from periplus_local.stack.testing import Servers

DOCUMENT = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()


def rows(table: str) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of a table of the document."""
    text = DOCUMENT.split(f"<!-- {table} -->")[1].split(f"<!-- /{table} -->")[0]
    header, _, *lines = [
        [cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in text.strip().splitlines()
    ]
    return header, lines


def expanded(subject: str) -> Iterator[str]:
    """Each text that the braces of a subject stand for."""
    parts = re.split(r"\{(.*?)\}", subject)
    for chosen in itertools.product(*(part.split(",") if i % 2 else [part] for i, part in enumerate(parts))):
        yield "".join(chosen)


HEADER, LINES = rows("nats rights")
NATS = {
    user: [
        (action, subject, line[column] == "yes")
        for line in LINES
        for action, subject in [(line[0], each) for each in expanded(line[1])]
    ]
    for column, user in enumerate(HEADER)
    if column >= 2
}


@pytest.mark.parametrize("user", NATS)
async def test_a_user_of_nats_may_publish_and_read_what_the_table_says(user: str, embedded: Servers) -> None:
    refusals: list[str] = []

    async def refused(error: Exception) -> None:
        refusals.append(str(error))

    url = embedded.subscriber_url if user == nats_rights.SUBSCRIBER else embedded.service_nats_urls[user]
    connection = await nats.connect(url, error_cb=refused, allow_reconnect=False)
    wrong = []
    try:
        for action, subject, allowed in NATS[user]:
            refusals.clear()
            if action == "publish":
                await connection.publish(subject, b"x", headers={"ce-subject": "security/none"})
            else:
                subscription = await connection.subscribe(subject)
            await connection.flush()
            await asyncio.sleep(0.002)  # the client reports a refusal in a task of its own
            if action == "subscribe" and not refusals:
                await subscription.unsubscribe()
            if bool(refusals) is allowed:
                wrong.append((action, subject, refusals.copy()))
            assert all("permissions violation" in refusal.lower() for refusal in refusals)
    finally:
        await connection.close()
    assert not wrong


def test_the_table_has_every_user_of_nats_and_every_right() -> None:
    assert set(NATS) == {*nats_rights.CONSUMERS, nats_rights.SUBSCRIBER}
    for user, cells in NATS.items():
        rights = nats_rights.rights_of(user)
        for action, granted in (("publish", rights.publish), ("subscribe", rights.subscribe)):
            allowed = [subject for kind, subject, yes in cells if kind == action and yes]
            untried = [
                right
                for right in granted
                if not any(each.startswith(right.removesuffix(">")) for each in allowed)
            ]
            assert not untried, (user, untried)


@pytest.mark.parametrize("target", ["periplus.snapshotter.v1.X.p.r", "$JS.API.STREAM.DELETE.SNAPSHOTTER"])
async def test_a_consumer_delivers_nothing_to_what_its_user_may_not_publish(
    target: str, embedded: Servers
) -> None:
    """The server, and not the user, publishes what a push consumer delivers."""
    administrator = await nats.connect(embedded.nats_url)
    lineage = await nats.connect(embedded.service_nats_urls["lineage"], inbox_prefix="_INBOX_lineage")
    try:
        jetstream = administrator.jetstream()
        before = (await jetstream.stream_info("SNAPSHOTTER")).state.last_seq
        config = ConsumerConfig(durable_name="lineage-cache", deliver_subject=target)
        with suppress(NotFoundError):
            await jetstream.delete_consumer("CACHE", "lineage-cache")
        await lineage.jetstream().add_consumer("CACHE", config)
        await jetstream.publish("periplus.cache.v1.X.p.r", b"", headers={"ce-subject": "security/none"})
        await asyncio.sleep(0.5)
        assert (await jetstream.stream_info("SNAPSHOTTER")).state.last_seq == before
        await jetstream.delete_consumer("CACHE", "lineage-cache")
    finally:
        await lineage.close()
        await administrator.close()
