"""S3: the one file that speaks to the object store. The client is synchronous; threads make it wait aside."""

import asyncio
import io
import itertools
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import IO, TypeVar

import urllib3
from minio import Minio
from minio.error import MinioException, S3Error

from periplus_common.errors import NotFound, Unavailable
from periplus_common.settings import ServiceSettings

T = TypeVar("T")

THREADS = 16
_GONE = {"NoSuchKey", "NoSuchBucket", "NotFound", "NoSuchVersion"}


@dataclass(frozen=True)
class Place:
    """Where an object is. Bucket and endpoint are empty for the default store's."""

    key: str
    bucket: str = ""
    endpoint: str = ""


@dataclass(frozen=True)
class Stat:
    """What the store knows of an object."""

    etag: str
    size: int
    modified: datetime | None = None


class Blobs:
    """An object store, and the default bucket in it."""

    def __init__(self, client: Minio, endpoint: str, bucket: str) -> None:
        self._client = client
        self.endpoint = endpoint
        self.bucket = bucket
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="s3")

    async def stat(self, place: Place) -> Stat | None:
        """Size and ETag, or None where there is no such object."""
        return await self._run(lambda: self._stat(place))

    async def stat_many(self, places: Iterable[Place]) -> dict[Place, Stat | None]:
        """The same of many places, side by side."""
        wanted = list(dict.fromkeys(places))
        return dict(zip(wanted, await asyncio.gather(*map(self.stat, wanted)), strict=True))

    async def below(self, folder: Place, most: int) -> dict[Place, Stat]:
        """Up to `most` of the objects whose keys begin with the folder's, in order of their keys."""
        return await self._run(lambda: self._below(folder, most))

    async def get(self, place: Place, *, limit: int = 64 << 20) -> bytes:
        """An object's bytes. Raises `NotFound`, or `Unavailable` where it is larger than `limit`."""
        return await self.read(place, lambda stream: _bounded(stream, limit))

    async def read(self, place: Place, use: Callable[[IO[bytes]], T]) -> T:
        """Give an object's bytes to `use` as a stream, in a thread. Raises `NotFound`."""
        return await self._run(lambda: self._read(place, use))

    async def put(self, place: Place, content: bytes, media_type: str = "application/octet-stream") -> None:
        """Write an object, over any that is there."""
        bucket = place.bucket or self.bucket
        await self._run(
            lambda: self._client.put_object(
                bucket, place.key, io.BytesIO(content), len(content), content_type=media_type
            )
        )

    async def put_new(
        self, place: Place, content: bytes, media_type: str = "application/octet-stream"
    ) -> bool:
        """Write an object unless there is one: the first of many writers wins. False: there was one."""
        return await self._run(lambda: self._put_new(place, content, media_type))

    def close(self) -> None:
        """Let go of the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: self._told(work))

    def _told(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except S3Error as error:
            if error.code in _GONE:
                raise NotFound(f"no object {error.resource}") from error
            raise Unavailable(f"the object store refuses: {error.code}: {error.message}") from error
        except (MinioException, urllib3.exceptions.HTTPError, OSError) as error:
            raise Unavailable(f"the object store is away: {error}") from error

    def _stat(self, place: Place) -> Stat | None:
        if place.endpoint and place.endpoint != self.endpoint:
            raise NotFound(f"no credentials for the object store {place.endpoint}")
        try:
            found = self._client.stat_object(place.bucket or self.bucket, place.key)
        except S3Error as error:
            if error.code in _GONE:
                return None
            raise
        return Stat((found.etag or "").strip('"'), found.size or 0, found.last_modified)

    def _below(self, folder: Place, most: int) -> dict[Place, Stat]:
        if folder.endpoint and folder.endpoint != self.endpoint:
            raise NotFound(f"no credentials for the object store {folder.endpoint}")
        listed = self._client.list_objects(folder.bucket or self.bucket, folder.key, recursive=True)
        return {
            Place(str(found.object_name), folder.bucket, folder.endpoint): Stat(
                (found.etag or "").strip('"'), found.size or 0, found.last_modified
            )
            for found in itertools.islice(listed, most)
        }

    def _read(self, place: Place, use: Callable[[IO[bytes]], T]) -> T:
        if place.endpoint and place.endpoint != self.endpoint:
            raise NotFound(f"no credentials for the object store {place.endpoint}")
        response = self._client.get_object(place.bucket or self.bucket, place.key)
        try:
            return use(response)  # type: ignore[arg-type]
        finally:
            response.close()
            response.release_conn()

    def _put_new(self, place: Place, content: bytes, media_type: str) -> bool:
        try:
            # The client has no argument for conditional writes; its own request method takes the header.
            self._client._execute(  # noqa: SLF001
                "PUT", place.bucket or self.bucket, place.key, body=content,
                headers={"If-None-Match": "*", "Content-Type": media_type},
            )  # fmt: skip
        except S3Error as error:
            if error.code == "PreconditionFailed":
                return False
            raise
        return True


def _bounded(stream: IO[bytes], limit: int) -> bytes:
    content = stream.read(limit + 1)
    if len(content) > limit:
        raise Unavailable(f"the object is larger than {limit} bytes")
    return content


def connect(settings: ServiceSettings) -> Blobs:
    """The object store that the settings name. Nothing is sent yet."""
    pool = urllib3.PoolManager(
        maxsize=THREADS,
        timeout=urllib3.Timeout(connect=2, read=30),
        retries=urllib3.Retry(total=2, backoff_factor=0.1, status_forcelist=[500, 502, 503, 504]),
    )
    client = Minio(
        settings.s3_endpoint,
        access_key=settings.s3_access_key.get_secret_value(),
        secret_key=settings.s3_secret_key.get_secret_value(),
        secure=settings.s3_secure,
        region="us-east-1",  # known at once: the client need not ask for the bucket's
        http_client=pool,
    )
    return Blobs(client, settings.s3_endpoint, settings.s3_bucket)
