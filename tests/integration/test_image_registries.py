"""Images in a real registry: Debian's docker-registry, into which skopeo copies them."""

import base64
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from registry_server import MISSING, RegistryServer, registry_server, write_layout

from periplus_local.certificate import pair
from periplus_snapshotter.images.resolver import ImageResolver, ResolvedImage, ResolverLimits
from periplus_snapshotter.registry.client import RegistryAccess, connect

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed here: {MISSING}")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with registry_server(tmp_path_factory.mktemp("registry")) as running:
        yield running


async def resolve(server: RegistryServer, *names: str, **more: object) -> list[ResolvedImage]:
    only = frozenset({server.name})
    given = {"allowed": only, "private": only, "plain": only, **more}
    access = RegistryAccess(**given)  # type: ignore[arg-type]
    async with connect(access) as client:
        return await ImageResolver(client, ResolverLimits()).resolve(
            [f"{server.name}/{name}" for name in names]
        )


async def test_a_tag_is_resolved_to_the_digest_that_skopeo_sees_also_after_it_was_moved(
    server: RegistryServer,
):
    for text in (b"one", b"two", b"one"):
        digest = server.push("team/train:v1", {"text": text})
        (found,) = await resolve(server, "team/train:v1")
        assert (found.digest, found.reason) == (digest, "")
        assert found.manifest is not None
        assert len(found.manifest.layers) == 1


async def test_an_image_by_its_digest_keeps_it_and_one_that_is_not_there_has_a_reason(server: RegistryServer):
    digest = server.push("team/train:v2", {"text": b"v2"})
    by_digest, absent, unknown = await resolve(
        server, f"team/train@{digest}", "team/train:v9", "team/train@sha256:" + "0" * 64
    )
    assert by_digest.digest == digest
    assert absent.reason == f"the registry {server.name} has no team/train:v9"
    assert (unknown.digest, "has no team/train:sha256" in unknown.reason) == ("", True)


async def test_a_registry_with_passwords_is_read_with_those_of_the_docker_config(tmp_path: Path):
    (tmp_path / "registry").mkdir()
    with registry_server(tmp_path, with_users=True) as server:
        digest = server.push("team/train:v1", {"text": b"private"})
        (refused,) = await resolve(server, "team/train:v1")
        assert "lets us not read team/train" in refused.reason
        for password, expected in (("secret", digest), ("wrong", "")):
            auth = base64.b64encode(f"user:{password}".encode()).decode()
            config = tmp_path / "config.json"
            config.write_text(json.dumps({"auths": {server.name: {"auth": auth}}}))
            (found,) = await resolve(server, "team/train:v1", docker_config=str(config))
            assert found.digest == expected


async def test_a_registry_with_tls_is_read_only_if_its_certificate_is_trusted(tmp_path: Path):
    key, certificate = pair()
    files = (tmp_path / "certificate.pem", tmp_path / "key.pem")
    for file, content in zip(files, (certificate, key), strict=True):
        file.write_bytes(content)
    with registry_server(tmp_path, tls=files) as server:
        digest = server.push("team/train:v1", {"text": b"tls"})
        tls = {"plain": frozenset()}
        (found,) = await resolve(server, "team/train:v1", ca_file=str(files[0]), **tls)
        assert found.digest == digest
        (refused,) = await resolve(server, "team/train:v1", **tls)
        assert (refused.digest, "certificate verify failed" in refused.reason) == ("", True)


async def test_an_index_that_skopeo_pushed_has_the_digest_that_skopeo_says(
    server: RegistryServer, tmp_path: Path
):
    layout = tmp_path / "layout"
    write_layout(layout, b"\0" * 1024)
    described = json.loads((layout / "index.json").read_text())["manifests"][0]
    described.pop("annotations")
    entries = [described | {"platform": {"os": "linux", "architecture": arch}} for arch in ("arm64", "amd64")]
    kind = "application/vnd.oci.image.index.v1+json"
    index = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": entries}).encode()
    digest = hashlib.sha256(index).hexdigest()
    (layout / "blobs/sha256" / digest).write_bytes(index)
    outer = {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(index),
             "annotations": {"org.opencontainers.image.ref.name": "x"}}  # fmt: skip
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [outer]}))
    server.copy(layout, "team/many:1")  # skopeo writes the index anew
    raw = server.raw("team/many:1")
    arm, amd = (entry["digest"] for entry in json.loads(raw)["manifests"])
    (found,) = await resolve(server, "team/many:1")
    assert found.digest == f"sha256:{hashlib.sha256(raw).hexdigest()}"
    assert found.also[:2] == (arm, amd)
    assert found.manifest is not None
    assert found.manifest.digest == amd
