"""NATS, S3 and Argo prove who they are before a client of ours sends them a password, a key or a token."""

import asyncio
import contextlib
import json
import ssl
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import nats
import pytest
from strangers import Stranger, listening

from periplus_common import blobs, bus, tls
from periplus_common.bus import Broker
from periplus_common.errors import PeriplusError, Unavailable
from periplus_common.settings import ObjectStoreSettings
from periplus_common.streams import declare_streams
from periplus_dispatcher.argo import client as argo
from periplus_local.argo.executor.artifact_repository import ArtifactRepository, S3Config
from periplus_local.argo.executor.job import PodError
from periplus_local.stack import s3
from periplus_local.stack.home import Home
from periplus_local.stack.nats import Nats
from periplus_local.stack.process import NotReadyError
from periplus_local.stack.s3 import S3
from periplus_local.stack.supervisor import Supervisor
from periplus_local.stack.tls_pair import TlsPair, tls_pair

PASSWORD = "a-password-of-this-home"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> TlsPair:
    home = Home(tmp_path_factory.mktemp("ours") / "home")
    home.create()
    return tls_pair(home)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> TlsPair:
    """Of another home, as another user of the machine has one: valid, and for the same address."""
    home = Home(tmp_path_factory.mktemp("theirs") / "home")
    home.create()
    return tls_pair(home)


def with_certificate(of: TlsPair) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(of.certificate, of.key)
    return context


@pytest.fixture(params=["in plain text", "with another certificate"])
def stranger(request: pytest.FixtureRequest, theirs: TlsPair) -> Iterator[Callable[[str], Stranger]]:
    """A server of someone else for a protocol, without TLS or with a certificate of its own."""
    certificate = None if request.param == "in plain text" else with_certificate(theirs)
    with contextlib.ExitStack() as opened:
        yield lambda name: opened.enter_context(listening({name: 0}, certificate))[0]


async def by_broker(port: int, ours: TlsPair) -> None:
    broker = Broker(f"tls://cache:{PASSWORD}@127.0.0.1:{port}", ca_file=str(ours.certificate))
    async with bus.consuming(broker):
        await asyncio.sleep(60)


async def by_declaring_streams(port: int, ours: TlsPair) -> None:
    with pytest.raises((nats.errors.Error, OSError)):
        await declare_streams(f"tls://periplus:{PASSWORD}@127.0.0.1:{port}", str(ours.certificate))


async def by_example(port: int, ours: TlsPair) -> None:
    """The subscriber of a team, which is written with FastStream alone."""
    variables = {
        f"PERIPLUS_{name}": "-" for name in ("DISPATCHER", "CACHE", "SNAPSHOTTER", "LINEAGE", "TOKEN")
    }
    variables["PERIPLUS_EVENTS"] = f"tls://subscriber:{PASSWORD}@127.0.0.1:{port}"
    variables["PERIPLUS_EVENTS_CA_FILE"] = str(ours.certificate)
    process = await asyncio.create_subprocess_exec(
        sys.executable, ROOT / "examples/events.py", env=variables, stderr=subprocess.DEVNULL
    )
    try:
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def by_object_store(port: int, ours: TlsPair) -> None:
    settings = ObjectStoreSettings(
        postgres_dsn="-", nats_url="-", grpc_address="-", token="-",
        s3_endpoint=f"127.0.0.1:{port}", s3_access_key=PASSWORD, s3_secret_key=PASSWORD, s3_bucket="artifacts",
        s3_secure=True, s3_ca_file=str(ours.certificate),
    )  # fmt: skip
    store = blobs.connect(settings)
    with pytest.raises(PeriplusError):
        await store.put(blobs.ObjectRef("key"), b"content of this home")
    store.close()


async def by_artifact_repository(port: int, ours: TlsPair) -> None:
    config = S3Config(f"127.0.0.1:{port}", PASSWORD, PASSWORD, "artifacts", True, str(ours.certificate))
    with pytest.raises(PodError):
        await asyncio.to_thread(ArtifactRepository(config, 1).get, {"key": "key"}, Path("unused"))


async def by_bucket_check(port: int, ours: TlsPair) -> None:
    with pytest.raises(NotReadyError):
        await s3._ready(S3({"s3": port}, PASSWORD, PASSWORD, {}, ours))


async def by_dispatcher(port: int, ours: TlsPair) -> None:
    url = f"https://127.0.0.1:{port}"
    with pytest.raises(Unavailable):
        async with argo.connect(
            url, f"Bearer {PASSWORD}", "argo", ca_file=str(ours.certificate)
        ) as workflows:
            await workflows.get("a-run")


async def until_connected(
    call: Callable[[int, TlsPair], Awaitable[None]], server: Stranger, ours: TlsPair
) -> None:
    """Run a client until it has connected, and one and a half seconds more. Raises its error."""
    running = asyncio.ensure_future(call(server.port, ours))
    while not server.connections and not running.done():  # noqa: ASYNC110 - a thread counts
        await asyncio.sleep(0.02)
    await asyncio.wait({running}, timeout=1.5)
    if running.cancel():
        with contextlib.suppress(asyncio.CancelledError):
            await running
    else:
        await running


CLIENTS = [
    ("nats", by_broker), ("nats", by_declaring_streams), ("nats", by_example),
    ("s3", by_object_store), ("s3", by_artifact_repository), ("s3", by_bucket_check),
    ("argo", by_dispatcher),
]  # fmt: skip


@pytest.mark.parametrize(("protocol", "call"), CLIENTS, ids=[call.__name__ for _, call in CLIENTS])
async def test_a_server_without_the_certificate_of_the_home_receives_no_secret(
    protocol: str,
    call: Callable[[int, TlsPair], Awaitable[None]],
    stranger: Callable[[str], Stranger],
    ours: TlsPair,
) -> None:
    found = stranger(protocol)
    await until_connected(call, found, ours)
    assert found.connections > 0
    assert not found.received_any({PASSWORD, "content of this home", "a-run", "Credential=", "CONNECT {"})


@pytest.mark.parametrize(("protocol", "call"), CLIENTS, ids=[call.__name__ for _, call in CLIENTS])
async def test_the_same_client_speaks_to_a_server_with_the_certificate_of_the_home(
    protocol: str, call: Callable[[int, TlsPair], Awaitable[None]], ours: TlsPair
) -> None:
    """Else the test above would hold for a client that never connects."""
    with listening({protocol: 0}, with_certificate(ours)) as (server,):
        with contextlib.suppress(Exception, pytest.fail.Exception):
            await until_connected(call, server, ours)
        assert server.received_any({PASSWORD, "Credential="})


async def test_any_certificate_of_argo_is_believed_only_where_the_setting_says_so(
    ours: TlsPair, theirs: TlsPair
) -> None:
    for skips in (False, True):
        with listening({"argo": 0}, with_certificate(theirs)) as (server,):
            with contextlib.suppress(Unavailable):
                async with argo.connect(
                    f"https://127.0.0.1:{server.port}",
                    f"Bearer {PASSWORD}",
                    "argo",
                    ca_file=str(ours.certificate),
                    insecure_skip_verify=skips,
                ) as workflows:
                    await workflows.get("a-run")
            assert server.received_any({PASSWORD}) == skips


async def test_the_servers_of_a_stack_are_known_by_the_certificate_of_its_home(tmp_path: Path) -> None:
    from periplus_local.stack import embedded

    home = Home(tmp_path / "home")
    home.create()
    chosen = embedded.embedded(home)
    specs = [spec for spec in embedded.specs(home, chosen, durable=False) if spec.name != "postgres"]
    async with Supervisor(home, specs, lambda _: None):
        assert chosen.nats.url.startswith("tls://")
        assert chosen.s3.bucket.secure
        with pytest.raises((nats.errors.Error, OSError, ssl.SSLError)):
            await nats.connect(
                chosen.nats.url, allow_reconnect=False, **tls.nats_options(chosen.nats.url, "")
            )
        connection = await nats.connect(
            chosen.nats.url, allow_reconnect=False, **tls.nats_options(chosen.nats.url, chosen.nats.ca_file)
        )
        await connection.close()
    assert Nats(1, "p", "s").url == "nats://periplus:p@127.0.0.1:1"
    assert json.loads((home.run / "nats.json").read_text())["tls"]["handshake_first"] is True
