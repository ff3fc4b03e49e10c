"""What each service may do on NATS, Postgres and S3: every cell of the tables of docs/operations.md, on the real servers."""

import asyncio
import io
import itertools
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import asyncpg
import nats
import pytest
from minio import Minio
from minio.commonconfig import Tags
from minio.error import S3Error
from nats.js.api import ConsumerConfig
from nats.js.errors import NotFoundError

from periplus_common.postgres import connect
from periplus_local.stack import nats_rights, s3
from periplus_local.stack.testing import S3Settings, Servers

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
    refused: set[tuple[str, str]] = set()

    async def note(error: Exception) -> None:
        found = re.search(
            r'permissions violation for (publish|subscri)\w* to "(.*?)"', str(error), re.IGNORECASE
        )
        assert found, error
        refused.add(("publish" if found[1].lower() == "publish" else "subscribe", found[2].lower()))

    url = embedded.subscriber_url if user == nats_rights.SUBSCRIBER else embedded.service_nats_urls[user]
    connection = await nats.connect(url, error_cb=note, allow_reconnect=False)
    try:
        for action, subject, _ in NATS[user]:
            if action == "publish":
                await connection.publish(subject, b"x", headers={"ce-subject": "security/none"})
            else:
                await connection.subscribe(subject)
        await connection.flush()
        denied = {(action, subject.lower()) for action, subject, allowed in NATS[user] if not allowed}
        with suppress(TimeoutError):
            async with asyncio.timeout(60):
                while not denied <= refused:  # noqa: ASYNC110 - the client reports each in a task of its own
                    await asyncio.sleep(0.01)
        assert (denied - refused, refused - denied) == (set(), set())
    finally:
        await connection.close()


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


S3_HEADER, S3_LINES = rows("s3 rights")


def client(settings: S3Settings) -> Minio:
    return Minio(
        settings.endpoint, settings.access_key, settings.secret_key, secure=False, region="us-east-1"
    )


def call(store: Minio, action: str, target: str) -> None:
    """Do what a row of the table says. Raises S3Error."""
    bucket, _, key = target.partition("/")
    if action == "read":
        store.get_object(bucket, key).close()
    elif action == "write":
        store.put_object(bucket, key, io.BytesIO(b"x"), 1)
    elif action == "delete":
        store.remove_object(bucket, key)
    elif action == "list":
        list(store.list_objects(bucket, prefix=key, recursive=True))
    elif action == "tag":
        store.set_object_tags(bucket, key, Tags.new_object_tags())
    elif action == "make bucket":
        store.make_bucket(bucket)
    elif action == "delete bucket":
        store.remove_bucket(bucket)
    else:
        assert action == "set policy"
        store.set_bucket_policy(bucket, '{"Version": "2012-10-17", "Statement": []}')


@pytest.fixture(scope="module")
def objects(embedded: Servers) -> None:
    """Every object that a row reads."""
    administrator = client(embedded.s3)
    if not administrator.bucket_exists("other"):
        administrator.make_bucket("other")
    for line in S3_LINES:
        for target in expanded(line[1]) if line[0] == "read" else ():
            call(administrator, "write", target)


@pytest.mark.usefixtures("objects")
@pytest.mark.parametrize("user", S3_HEADER[2:])
def test_a_process_may_do_in_the_object_store_what_the_table_says(user: str, embedded: Servers) -> None:
    store, column = client(embedded.service_s3[user]), S3_HEADER.index(user)
    wrong = []
    for line in S3_LINES:
        for target in expanded(line[1]):
            try:
                call(store, line[0], target)
                code = ""
            except S3Error as error:
                code = error.code
            if code != ("" if line[column] == "yes" else "AccessDenied"):
                wrong.append((line[0], target, code))
    assert not wrong


def test_the_table_has_every_process_with_keys_of_the_object_store(embedded: Servers) -> None:
    assert {*S3_HEADER[2:]} == {*s3.RIGHTS} == {*embedded.service_s3}
    actions = {right.partition(":")[0] for rights in s3.RIGHTS.values() for right in rights}
    assert actions == {"Read", "Write", "List"}  # of SeaweedFS; the table tries each


_, POSTGRES_LINES = rows("postgres rights")
ROLES = ("cache", "snapshotter", "lineage", "dispatcher")


@pytest.mark.parametrize("role", ROLES)
async def test_a_service_may_do_in_postgres_what_the_table_says(role: str, embedded: Servers) -> None:
    for name in ROLES:
        await execute(embedded.service_dsns[name], f"CREATE TABLE IF NOT EXISTS {name}.rights_x (a int)")
    wrong = []
    administrator = await connect(embedded.dsn)  # a session that a row tries to end
    for _, statement, *cells in POSTGRES_LINES:
        for schema, cell in zip((role, next(name for name in ROLES if name != role)), cells, strict=True):
            dsn, text = embedded.service_dsns[role], statement.format(schema=schema)
            if text.startswith("connect to "):
                dsn, text = dsn.replace("/periplus", text.removeprefix("connect to `").join(("/", ""))), ""
            try:
                await execute(dsn, text)
                found = "yes"
            except (asyncpg.InsufficientPrivilegeError, asyncpg.InvalidAuthorizationSpecificationError):
                found = ""
            except asyncpg.PostgresError as error:
                found = f"not refused, but fails: {error}"
            if found != cell:
                wrong.append((text or dsn, found))
    assert await administrator.fetchval("SELECT 1")
    await administrator.close()
    assert not wrong


async def execute(dsn: str, statement: str) -> None:
    """One statement in a session of its own."""
    connection = await connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@pytest.mark.parametrize("role", ROLES)
async def test_a_service_of_postgres_has_a_limit_on_statements_and_idle_transactions(
    role: str, embedded: Servers
) -> None:
    connection = await connect(embedded.service_dsns[role])
    try:
        for setting in ("statement_timeout", "idle_in_transaction_session_timeout"):
            assert await connection.fetchval(f"SHOW {setting}") == "1min"
        assert not await connection.fetchval(
            "SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls "
            "FROM pg_roles WHERE rolname = current_user"
        )
    finally:
        await connection.close()
