"""A registry that lies, redirects or stalls gives an image no digest, and gets no credentials of another."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from registries import INDEX, MANIFEST, Registry, Reply, image, serving, sha256

from periplus_snapshotter.images.resolver import ImageResolver, ResolvedImage, ResolverLimits
from periplus_snapshotter.registry.client import RegistryAccess, connect
from periplus_snapshotter.registry.network import is_public

BUDGET = timedelta(seconds=30)


@asynccontextmanager
async def resolver(
    *registries: Registry, budget: timedelta = BUDGET, **access: object
) -> AsyncIterator[ImageResolver]:
    names = frozenset(registry.name for registry in registries)
    given = {"allowed": names, "private": names, "plain": names, **access}
    async with connect(RegistryAccess(request_timeout=budget, **given)) as client:  # type: ignore[arg-type]
        found = ImageResolver(client, ResolverLimits(budget=budget))
        yield found
        await found.aclose()


async def resolve(registry: Registry, name: str = "team/train:1", **access: object) -> ResolvedImage:
    async with resolver(registry, **access) as images:
        return (await images.resolve([f"{registry.name}/{name}"]))[0]


def docker_config(folder: Path, *registries: str) -> str:
    auth = base64.b64encode(b"user:secret").decode()
    (folder / "config.json").write_text(json.dumps({"auths": {name: {"auth": auth} for name in registries}}))
    return str(folder / "config.json")


def challenge(realm: str) -> Reply:
    header = f'Bearer realm="{realm}",service="s",scope="repository:team/train:pull"'
    return Reply(401, {"WWW-Authenticate": header})


async def test_an_image_is_resolved_to_the_digest_that_its_tag_points_to_now():
    with serving() as registry:
        async with resolver(registry) as images:
            for text in ("a", "b"):
                digest = registry.put("team/train", "1", image(text))
                (found,) = await images.resolve([f"{registry.name}/team/train:1"])
                assert found.digest == digest
                assert found.pinned == f"{registry.name}/team/train@{digest}"
                assert found.also == (sha256(text.encode()),)


async def test_an_index_is_resolved_to_its_own_digest_and_knows_those_of_its_platforms():
    with serving() as registry:
        amd, arm = (registry.put("team/train", arch, image(arch)) for arch in ("amd64", "arm64"))
        entries = [
            {
                "digest": digest,
                "size": 1,
                "mediaType": MANIFEST,
                "platform": {"os": "linux", "architecture": arch},
            }
            for arch, digest in (("arm64", arm), ("amd64", amd))
        ]
        digest = registry.put(
            "team/train", "1", {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}, INDEX
        )
        found = await resolve(registry)
    assert (found.digest, found.also) == (digest, (arm, amd, sha256(b"amd64")))


async def test_a_redirect_of_a_manifest_is_not_followed():
    with (
        serving() as target,
        serving(
            lambda *_: Reply(307, {"Location": f"http://{target.name}/v2/team/train/manifests/1"})
        ) as registry,
    ):
        target.put("team/train", "1", image())
        found = await resolve(registry, private=frozenset({registry.name, target.name}))
    assert found.digest == ""
    assert "redirect" in found.reason
    assert target.requests == []


async def test_a_digest_that_the_bytes_do_not_have_is_refused():
    def lie(registry: Registry, method: str, path: str, headers: dict[str, str]) -> Reply:
        return Reply(200, {"Docker-Content-Digest": sha256(b"other")}, b"{}")

    with serving(lie) as registry:
        found = await resolve(registry)
    assert found.digest == ""
    assert found.reason == f"the registry gave {sha256(b'{}')} for {sha256(b'other')}"


async def test_a_registry_without_the_digest_header_is_read_by_its_bytes():
    def silent(registry: Registry, method: str, path: str, headers: dict[str, str]) -> Reply:
        return Reply(200, {}, registry.usual(path).body)

    with serving(silent) as registry:
        digest = registry.put("team/train", "1", image())
        assert (await resolve(registry)).digest == digest


async def test_a_registry_that_never_answers_costs_the_budget_and_no_other_image():
    def wait(registry: Registry, *_: object) -> None:
        registry.stopping.wait(60)

    with serving(wait) as slow, serving() as good:
        digest = good.put("team/train", "1", image())
        async with resolver(slow, good, budget=timedelta(seconds=1)) as images:
            async with asyncio.timeout(30):
                late, found = await images.resolve([f"{slow.name}/a:1", f"{good.name}/team/train:1"])
            assert "did not answer within 1 s" in late.reason
            assert found.digest == digest
            asked = len(slow.requests)
            await images.resolve([f"{slow.name}/a:1"])
            assert len(slow.requests) == asked  # what does not answer is not asked again at once


async def test_an_endless_manifest_is_left_after_four_mebibytes():
    def endless(registry: Registry, method: str, path: str, headers: dict[str, str]) -> Reply:
        if method == "HEAD":
            return Reply(200, {"Docker-Content-Digest": sha256(b"x")})
        return Reply(200, {"Content-Length": str(1 << 40)}, b"x" * (5 << 20))

    with serving(endless) as registry:
        assert "more than 4194304 bytes" in (await resolve(registry)).reason


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"null", b"{", b"[" * 100_000, b'{"config": 1}', b'{"manifests": {}}', b'{"manifests": [1]}',
     b'{"config": {"digest": "sha256:x"}, "layers": []}', b'{"config": {}, "manifests": []}', b"\xff"],
)  # fmt: skip
async def test_a_body_that_is_no_manifest_is_refused(body: bytes):
    def answer(registry: Registry, method: str, path: str, headers: dict[str, str]) -> Reply:
        return Reply(200, {"Docker-Content-Digest": sha256(body)}, body)

    with serving(answer) as registry:
        found = await resolve(registry)
    assert found.digest == ""
    assert found.reason.startswith("the manifest")


async def test_credentials_go_to_the_registry_and_its_own_token_server(tmp_path: Path):
    def guarded(registry: Registry, method: str, path: str, headers: dict[str, str]) -> Reply | None:
        if path.startswith("/token"):
            assert "scope=repository%3Ateam%2Ftrain%3Apull" in path
            return Reply(200, {}, b'{"token": "t0"}')
        return (
            None
            if headers.get("authorization") == "Bearer t0"
            else challenge(f"http://{registry.name}/token")
        )

    with serving(guarded) as registry:
        digest = registry.put("team/train", "1", image())
        config = docker_config(tmp_path, registry.name)
        assert (await resolve(registry, docker_config=config)).digest == digest
        assert registry.authorizations()[0] == f"Basic {base64.b64encode(b'user:secret').decode()}"
        assert [path for _, path, _ in registry.requests if path.startswith("/token")] != []


async def test_a_token_server_elsewhere_is_not_asked_and_gets_no_credentials(tmp_path: Path):
    with serving() as thief, serving() as registry:
        realms = [
            f"http://{thief.name}/token", f"http://user@{thief.name}/token", f"http://{registry.name}@{thief.name}/",
            f"http://{registry.name}\\@{thief.name}/", f"http://{thief.name}#{registry.name}", f"//{thief.name}/", "",
            f"http://{registry.name}.evil.example/", f"file:///{registry.name}", "http://", "http://[::1", "https://auth.docker.io/token",
            f"https://{registry.name}/token", f"http://{registry.name}:80/", f"http://{registry.name.partition(':')[0]}/",
        ]  # fmt: skip
        config = docker_config(tmp_path, registry.name)
        for realm in realms:
            registry.answer = lambda *_, realm=realm: challenge(realm)
            found = await resolve(
                registry, docker_config=config, private=frozenset({registry.name, thief.name})
            )
            assert found.digest == ""
            assert "token server" in found.reason, realm
        assert thief.requests == []
        assert registry.authorizations() == []


async def test_credentials_of_one_registry_are_not_sent_to_another(tmp_path: Path):
    def basic(registry: Registry, method: str, path: str, headers: dict[str, str]) -> Reply:
        return Reply(401, {"WWW-Authenticate": 'Basic realm="x"'})

    with serving(basic) as registry:
        config = docker_config(
            tmp_path, "ghcr.io", "127.0.0.1", f"{registry.name}0", f"{registry.name}/other"
        )
        found = await resolve(registry, docker_config=config)
    assert "lets us not read team/train" in found.reason
    assert registry.authorizations() == []


async def test_a_docker_config_that_can_not_be_read_is_not_quoted(tmp_path: Path):
    (tmp_path / "config.json").write_text('{"auths": {"x": "hunter2"')
    with serving(lambda *_: challenge("http://x")) as registry:
        found = await resolve(registry, docker_config=str(tmp_path / "config.json"))
    assert "config.json can not be read" in found.reason
    assert "hunter2" not in found.reason + found.fix


NAMES = [
    "127.0.0.1/a:1", "127.0.0.1:{port}/a:1", "localhost:{port}/a:1", "2130706433:{port}/a:1", "0x7f000001:{port}/a",
    "127.1:{port}/a:1", "0177.0.0.1:{port}/a", "user@127.0.0.1:{port}/a", "user:pass@127.0.0.1:{port}/a:1",
    "[::1]:{port}/a", "169.254.169.254/latest/meta-data", "metadata.google.internal/computeMetadata", "10.0.0.1/a",
    "127.0.0.1:{port}/../a", "127.0.0.1:{port}/a?x=1", "127.0.0.1:{port}/a#b", "127.0.0.1:{port}//a", "http://127.0.0.1:{port}/a",
    "127.0.0.1:{port}/a:1\r\nHost: x", "127.0.0.1:{port}/a b", "127.0.0.1:{port}/a\\b", "127.0.0.1:{port}/A", "a" * 600, ":", "@",
    "/", "a:", "a@sha256:1", "127.0.0.1:{port}/a@sha512:" + "a" * 128,
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
async def test_a_host_that_no_setting_names_is_not_connected_to(name: str):
    with serving() as trap, serving() as registry:
        port = trap.name.partition(":")[2]
        reachable = frozenset(f"{host}:{port}" for host in ("127.0.0.1", "localhost", "127.1", "0x7f000001"))
        async with resolver(registry, private=reachable, plain=reachable) as images:
            (found,) = await images.resolve([name.replace("{port}", port)])
        assert found.digest == ""
        assert found.reason != ""
        assert trap.requests == []


async def test_an_allowed_registry_whose_name_leads_to_a_private_address_is_not_connected_to():
    with serving() as registry:
        port = registry.name.partition(":")[2]
        names = frozenset({f"localhost:{port}", registry.name})
        async with resolver(registry, allowed=names, plain=names, private=frozenset()) as images:
            found = await images.resolve([f"localhost:{port}/a:1", f"{registry.name}/a:1"])
        assert all("which is not public" in each.reason for each in found)
        assert registry.requests == []


PRIVATE = [
    "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
    "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254",
    "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2001:db8::1", "192.0.2.1", "198.18.0.1", "240.0.0.1",
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_of_a_private_network_is_not_public(address: str):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"])
def test_an_address_of_the_internet_is_public(address: str):
    assert is_public(address)


async def test_a_thousand_images_of_a_registry_ask_for_each_once():
    with serving() as registry:
        registry.put("team/train", "1", image())
        async with resolver(registry) as images:
            name = f"{registry.name}/team/train:1"
            both = await asyncio.gather(images.resolve([name] * 500), images.resolve([name] * 500))
        assert {found.digest for each in both for found in each} == {both[0][0].digest} != {""}
        assert [method for method, _, _ in registry.requests] == ["HEAD", "GET"]
