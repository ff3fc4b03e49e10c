"""Layers of images are read in a process of their own, within bounds, from hosts that may be asked."""

import asyncio
import io
import tarfile
import time
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from registries import Registry, Reply, image, serving, sha256

from periplus_common.errors import PeriplusError, Refused, Unavailable
from periplus_snapshotter.images.reading import Images, PackageUse, ReadingLimits
from periplus_snapshotter.images.resolver import ImageResolver, ResolverLimits
from periplus_snapshotter.layers.process import LayerProcesses
from periplus_snapshotter.registry.client import RegistryAccess, connect

METADATA = b"Name: a\nVersion: 1\n"


class MemoryImages:
    """What was read, in memory."""

    def __init__(self) -> None:
        self.images: dict[str, object] = {}
        self.layers: dict[str, object] = {}

    async def add_resolved(self, project, images):
        pass

    async def list_images(self, project):
        return []

    async def list_current(self, within):
        return []

    async def add_moved(self, moved):
        pass

    async def get_image(self, manifest):
        return self.images.get(manifest)

    async def add_image(self, manifest, packages):
        self.images[manifest] = packages

    async def get_layer(self, digest):
        return self.layers.get(digest)

    async def add_layer(self, digest, layer):
        self.layers[digest] = layer

    async def find_package(self, project, name):
        return PackageUse((), ())


@asynccontextmanager
async def reading(
    *registries: Registry, store: MemoryImages | None = None, **limits: object
) -> AsyncIterator[Images]:
    names = frozenset(registry.name for registry in registries)
    access = RegistryAccess(
        allowed=names,
        private=names,
        plain=names,
        stall=timedelta(seconds=1),
        request_timeout=timedelta(seconds=2),
    )
    async with connect(access) as client:
        resolver = ImageResolver(client, ResolverLimits())
        images = Images(resolver, client, LayerProcesses(), store or MemoryImages(), ReadingLimits(**limits))  # type: ignore[arg-type]
        yield images
        await images.aclose()
        await resolver.aclose()


def packed(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def put(
    registry: Registry, layer: bytes, *, size: int | None = None, digest: str = "", tag: str = "1"
) -> str:
    """An image with one layer; what the registry gives for it need not be it."""
    digest = digest or sha256(layer)
    document = image(tag) | {
        "layers": [{"digest": digest, "size": len(layer) if size is None else size, "mediaType": "x"}]
    }
    registry.put("team/train", tag, document)
    blob = Reply(200, {}, layer)
    usual = registry.answer
    registry.answer = lambda reg, method, path, headers: (
        blob if path == f"/v2/team/train/blobs/{digest}" else usual(reg, method, path, headers)
    )
    return f"{registry.name}/team/train:{tag}"


GOOD = packed({"lib/a-1.dist-info/METADATA": METADATA})


async def refusal(registry: Registry, name: str, *others: Registry, **limits: object) -> str:
    async with reading(registry, *others, **limits) as images:
        with pytest.raises(PeriplusError) as refused:
            await images.read("p", name)
    return f"{refused.value.message} {refused.value.fix}"


async def test_a_layer_that_images_share_is_read_once_and_an_image_as_well():
    store = MemoryImages()
    with serving() as registry:
        async with reading(registry, store=store) as images:
            for tag in ("1", "2", "1"):
                found = await images.read("p", put(registry, GOOD, tag=tag))
                assert [(package.name, package.version) for package in found.packages] == [("a", "1")]
        assert sum("/blobs/" in path for _, path, _ in registry.requests) == 1
    assert (len(store.layers), len(store.images)) == (1, 2)


async def test_a_layer_with_other_bytes_than_its_digest_is_refused():
    with serving() as registry:
        name = put(registry, GOOD, digest=sha256(b"other"))
        assert "gave other bytes" in await refusal(registry, name)


async def test_a_layer_with_more_bytes_than_are_said_is_refused():
    with serving() as registry:
        assert "more than the 10 bytes" in await refusal(registry, put(registry, GOOD, size=10))


async def test_an_image_that_is_too_large_is_not_downloaded():
    with serving() as registry:
        name = put(registry, GOOD, size=17 << 30)
        assert "at most 17179869184 are read" in await refusal(registry, name)
        assert not any("/blobs/" in path for _, path, _ in registry.requests)


async def test_a_bomb_ends_within_the_bounds():
    member = tarfile.TarInfo("zeros")
    member.size = 400 << 20
    packer = zlib.compressobj(9, wbits=31)
    bomb = packer.compress(member.tobuf()) + b"".join(packer.compress(bytes(1 << 20)) for _ in range(400))
    started = time.monotonic()
    with serving() as registry:
        name = put(registry, bomb + packer.flush())
        assert "unpacks to more than 250 times its size" in await refusal(registry, name)
    assert time.monotonic() - started < 100


async def test_a_layer_that_never_comes_does_not_hold_its_caller():
    def stall(registry: Registry, method: str, path: str, headers: dict[str, str]) -> Reply | None:
        if "/blobs/" in path:
            registry.stopping.wait(10)
        return None

    with serving(stall) as registry:
        name = put(registry, GOOD)
        registry.answer = stall
        async with reading(registry, wait=timedelta(seconds=0.2)) as images:
            with pytest.raises(Unavailable, match="still being read"):
                await images.read("p", name)
        assert "can not be asked" in await refusal(registry, name)


@pytest.mark.parametrize(
    "location",
    ["http://{other}/blob", "https://{other}/blob", "http://169.254.169.254/latest", "//{other}/blob", "file:///etc/passwd",
     "http://{own}@{other}/", "http://{own}\\@{other}/", "https://production.cloudflare.docker.com@{other}/", "", "http://[::1"],
)  # fmt: skip
async def test_a_redirect_of_a_layer_to_a_host_that_stores_none_is_not_followed(location: str):
    with serving() as other, serving() as registry:
        name = put(registry, GOOD)
        usual = registry.answer
        target = location.format(other=other.name, own=registry.name)
        registry.answer = lambda reg, method, path, headers: (
            Reply(307, {"Location": target}) if "/blobs/" in path else usual(reg, method, path, headers)
        )
        said = await refusal(registry, name, other)
        assert "which may not be asked" in said
        assert "SNAPSHOTTER_REGISTRY_BLOB_HOSTS" in said
        assert other.requests == []


async def test_a_redirect_on_the_registrys_own_host_is_followed_once_without_credentials():
    with serving() as registry:
        name = put(registry, GOOD)
        usual = registry.answer

        def moved(reg: Registry, method: str, path: str, headers: dict[str, str]) -> Reply | None:
            if path == "/storage":
                return Reply(200, {}, GOOD)
            if "/blobs/" in path:
                return Reply(302, {"Location": f"http://{reg.name}/storage"})
            return usual(reg, method, path, headers)

        registry.answer = moved
        async with reading(registry) as images:
            assert len((await images.read("p", name)).packages) == 1
        assert registry.authorizations() == []
        registry.answer = lambda reg, method, path, headers: (
            Reply(302, {"Location": f"http://{reg.name}/storage"})
            if "/blobs/" in path or path == "/storage"
            else usual(reg, method, path, headers)
        )
        registry.requests.clear()
        assert "does not give the layer" in await refusal(registry, name)
        assert sum("/blobs/" in path or path == "/storage" for _, path, _ in registry.requests) == 3


async def test_urls_of_a_foreign_layer_are_not_followed():
    with serving() as other, serving() as registry:
        name = put(registry, GOOD)
        layer = {"digest": sha256(b"foreign"), "size": 7, "urls": [f"http://{other.name}/layer"],
                 "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"}  # fmt: skip
        registry.put("team/train", "1", image("foreign") | {"layers": [layer]})
        await refusal(registry, name, other)
        assert other.requests == []


async def test_an_image_that_can_not_be_resolved_is_refused_with_the_reason():
    with serving() as registry:
        async with reading(registry) as images:
            with pytest.raises(Refused, match="has no team/train:9"):
                await images.read("p", f"{registry.name}/team/train:9")


async def test_callers_of_the_same_image_share_one_reading():
    with serving() as registry:
        name = put(registry, GOOD)
        async with reading(registry) as images:
            await asyncio.gather(*(images.read("p", name) for _ in range(20)))
        assert sum("/blobs/" in path for _, path, _ in registry.requests) == 1


async def test_images_that_are_resolved_are_read_by_themselves_if_a_setting_says_so():
    store = MemoryImages()
    with serving() as registry:
        names = [put(registry, GOOD, tag=tag) for tag in ("1", "2", "3")]
        async with reading(registry, store=store) as images:
            await images.resolve("p", names)
        assert store.images == {}
        async with reading(registry, store=store, read_resolved=True, max_waiting=2) as images:
            await images.resolve("p", names)
            await asyncio.wait(list(images._tasks.values()), timeout=20)
            assert len(store.images) == 2  # the third waits for the next time
