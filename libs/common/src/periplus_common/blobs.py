"""S3: the one file that speaks to the object store. The client is synchronous; threads make it wait aside."""

import asyncio
import contextvars
import io
import itertools
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import IO, TypeVar

import urllib3
from minio import Minio
from minio.error import MinioException, S3Error

from periplus_common.errors import Invalid, NotFound, Unavailable
from periplus_common.settings import ObjectStoreSettings

T = TypeVar("T")

THREADS = 16
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
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
        """An object's bytes. Raises `NotFound`, or `Invalid` where it is larger than `limit` bytes."""
        return await self.read(place, lambda stream: _bounded(stream, limit))

    async def read(self, place: Place, use: Callable[[IO[bytes]], T]) -> T:
        """Give an object's bytes to `use` as a stream, in a thread. Raises `NotFound`."""
        return await self._run(lambda: self._read(place, use))

    async def put(self, place: Place, content: bytes, media_type: str = "application/octet-stream") -> None:
        """Write an object, over any that is there."""
        await self._run(
            lambda: self._client.put_object(
                *self._named(place), io.BytesIO(content), len(content), content_type=media_type
            )
        )

    async def put_new(
        self, place: Place, content: bytes, media_type: str = "application/octet-stream"
    ) -> bool:
        """Write an object unless there is one: the first of many writers wins. False: there was one.

        A write whose answer is lost is sent again, and then finds itself: False means that somebody has written.
        """
        return await self._run(lambda: self._put_new(place, content, media_type))

    def close(self) -> None:
        """Let go of the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _run(self, work: Callable[[], T]) -> T:
        context = contextvars.copy_context()  # with the current trace
        return await asyncio.get_running_loop().run_in_executor(self._threads, context.run, self._told, work)

    def _told(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except S3Error as error:
            if error.code in _GONE:
                raise NotFound(f"no object {error.resource}") from error
            raise Unavailable(f"the object store refuses: {error.code}: {error.message}") from error
        except (MinioException, urllib3.exceptions.HTTPError, OSError) as error:
            raise Unavailable(f"the object store is away: {error}") from error

    def _named(self, place: Place) -> tuple[str, str]:
        """A place's bucket and key, checked: the client would tell both mistakes as a ValueError."""
        if place.endpoint and place.endpoint != self.endpoint:
            raise NotFound(f"no credentials for the object store {place.endpoint}")
        bucket = place.bucket or self.bucket
        if not _BUCKET.fullmatch(bucket):
            raise Invalid(f"{bucket!r} is no bucket's name", field="bucket")
        if not place.key or len(place.key.encode("utf-8", "surrogatepass")) > 1024:
            raise Invalid("an object's key has from 1 to 1024 bytes", field="key")
        return bucket, place.key

    def _stat(self, place: Place) -> Stat | None:
        try:
            found = self._client.stat_object(*self._named(place))
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
        response = self._client.get_object(*self._named(place))
        try:
            return use(response)  # type: ignore[arg-type]
        finally:
            response.close()
            response.release_conn()

    def _put_new(self, place: Place, content: bytes, media_type: str) -> bool:
        try:
            # The client has no argument for conditional writes; its own request method takes the header.
            self._client._execute(  # noqa: SLF001
                "PUT", *self._named(place), body=content,
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
        raise Invalid(f"the object is larger than {limit} bytes")
    return content


def connect(settings: ObjectStoreSettings) -> Blobs:
    """The object store that the settings name. Nothing is sent yet."""
    pool = urllib3.PoolManager(
        maxsize=THREADS,
        timeout=urllib3.Timeout(connect=2, read=10),  # the read's is the longest silence, not the whole
        # Once more, as a connection that was kept may be dead. More would hold the threads while the store hangs.
        retries=urllib3.Retry(total=1, backoff_factor=0.1, status_forcelist=[500, 502, 503, 504]),
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
