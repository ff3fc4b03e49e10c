"""S3. The client is synchronous, so every call runs in a thread of a pool."""

import asyncio
import contextvars
import io
import itertools
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import IO, Protocol, TypeVar

import urllib3
from minio import Minio
from minio.error import MinioException, S3Error

from periplus_common.errors import Invalid, NotFound, Unavailable
from periplus_common.settings import ObjectStoreSettings

T = TypeVar("T")

THREADS = 16  # and as many connections
MAX_OBJECT_BYTES = 64 << 20  # that `get` holds in memory
MAX_KEY_BYTES = 1024  # S3's own limit

_BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_NOT_FOUND_CODES = {"NoSuchKey", "NoSuchBucket", "NotFound", "NoSuchVersion"}


class ObjectKey(Protocol):
    """Names an object. Bucket and endpoint are empty for those of the default artifact repository."""

    @property
    def key(self) -> str: ...
    @property
    def bucket(self) -> str: ...
    @property
    def endpoint(self) -> str: ...


K = TypeVar("K", bound=ObjectKey)


@dataclass(frozen=True)
class ObjectRef:
    """An `ObjectKey`, for those who have no type of their own."""

    key: str
    bucket: str = ""
    endpoint: str = ""


@dataclass(frozen=True)
class Stat:
    """What the object store reports of an object, without its content. The ETag has no quotes."""

    etag: str
    size: int
    """Bytes."""
    modified: datetime | None = None


class Blobs:
    """An object store, and the default bucket in it."""

    def __init__(self, client: Minio, endpoint: str, bucket: str) -> None:
        self._client = client
        self.endpoint = endpoint
        self.bucket = bucket
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="s3")

    async def stat(self, ref: ObjectKey) -> Stat | None:
        """Size and ETag, or None where there is no such object."""
        return await self._run(lambda: self._stat(ref))

    async def stat_many(self, refs: Iterable[K]) -> dict[K, Stat | None]:
        """The same for many objects at once."""
        wanted = list(dict.fromkeys(refs))
        return dict(zip(wanted, await asyncio.gather(*map(self.stat, wanted)), strict=True))

    async def list_prefix(self, prefix: ObjectKey, limit: int) -> dict[str, Stat]:
        """The first `limit` objects, by key, of those whose keys begin with the prefix's key."""
        return await self._run(lambda: self._list_prefix(prefix, limit))

    async def get(self, ref: ObjectKey, *, limit: int = MAX_OBJECT_BYTES) -> bytes:
        """An object's bytes. Raises `NotFound`, or `Invalid` where it is larger than `limit` bytes."""
        return await self.read(ref, lambda stream: _bounded(stream, limit))

    async def read(self, ref: ObjectKey, use: Callable[[IO[bytes]], T]) -> T:
        """Call `use` in a thread with a stream of the object's bytes. Raises `NotFound`."""
        return await self._run(lambda: self._read(ref, use))

    async def put(self, ref: ObjectKey, content: bytes, media_type: str = "application/octet-stream") -> None:
        """Write an object, in place of any with its key."""
        await self._run(
            lambda: self._client.put_object(
                *self._checked(ref), io.BytesIO(content), len(content), content_type=media_type
            )
        )

    async def put_new(
        self, ref: ObjectKey, content: bytes, media_type: str = "application/octet-stream"
    ) -> bool:
        """Write an object unless there is one: of concurrent writers, the first wins. False: there is one already.

        A write whose response is lost is sent again and then finds its own object: False says that some writer wrote.
        """
        return await self._run(lambda: self._put_new(ref, content, media_type))

    async def delete(self, ref: ObjectKey) -> None:
        """Delete an object, if there is one."""
        await self._run(lambda: self._client.remove_object(*self._checked(ref)))

    def close(self) -> None:
        """End the threads; waiting calls are cancelled."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _run(self, work: Callable[[], T]) -> T:
        context = contextvars.copy_context()  # with the current trace
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, context.run, self._translated, work
        )

    def _translated(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except S3Error as error:
            if error.code in _NOT_FOUND_CODES:
                raise NotFound(f"no object {error.resource}") from error
            raise Unavailable(f"the object store answers {error.code}: {error.message}") from error
        except (MinioException, urllib3.exceptions.HTTPError, OSError) as error:
            raise Unavailable(f"the object store is unavailable: {error}") from error

    def _checked(self, ref: ObjectKey) -> tuple[str, str]:
        """Bucket and key. Raises `Invalid`, where the client would raise a ValueError."""
        if ref.endpoint and ref.endpoint != self.endpoint:
            raise NotFound(f"no credentials for the object store {ref.endpoint}")
        bucket = ref.bucket or self.bucket
        if not _BUCKET_NAME.fullmatch(bucket):
            raise Invalid(f"{bucket!r} is not a valid bucket name", field="bucket")
        if not ref.key or len(ref.key.encode("utf-8", "surrogatepass")) > MAX_KEY_BYTES:
            raise Invalid(f"an object's key has 1 to {MAX_KEY_BYTES} bytes", field="key")
        return bucket, ref.key

    def _stat(self, ref: ObjectKey) -> Stat | None:
        try:
            found = self._client.stat_object(*self._checked(ref))
        except S3Error as error:
            if error.code in _NOT_FOUND_CODES:
                return None
            raise
        return Stat((found.etag or "").strip('"'), found.size or 0, found.last_modified)

    def _list_prefix(self, prefix: ObjectKey, limit: int) -> dict[str, Stat]:
        if prefix.endpoint and prefix.endpoint != self.endpoint:
            raise NotFound(f"no credentials for the object store {prefix.endpoint}")
        listed = self._client.list_objects(prefix.bucket or self.bucket, prefix.key, recursive=True)
        return {
            str(found.object_name): Stat((found.etag or "").strip('"'), found.size or 0, found.last_modified)
            for found in itertools.islice(listed, limit)
        }

    def _read(self, ref: ObjectKey, use: Callable[[IO[bytes]], T]) -> T:
        response = self._client.get_object(*self._checked(ref))
        try:
            return use(response)  # type: ignore[arg-type]
        finally:
            response.close()
            response.release_conn()

    def _put_new(self, ref: ObjectKey, content: bytes, media_type: str) -> bool:
        try:
            # The client has no argument for conditional writes; its own request method takes the header.
            self._client._execute(  # noqa: SLF001
                "PUT", *self._checked(ref), body=content,
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
        timeout=urllib3.Timeout(connect=2, read=10),  # seconds; the read's is between two chunks
        # One retry, as a pooled connection may be dead. More would occupy the threads while the store hangs.
        retries=urllib3.Retry(total=1, backoff_factor=0.1, status_forcelist=[500, 502, 503, 504]),
        ca_certs=settings.s3_ca_file or None,
    )
    client = Minio(
        settings.s3_endpoint,
        access_key=settings.s3_access_key.get_secret_value(),
        secret_key=settings.s3_secret_key.get_secret_value(),
        secure=settings.s3_secure,
        region="us-east-1",  # without it the client first requests the bucket's
        http_client=pool,
    )
    return Blobs(client, settings.s3_endpoint, settings.s3_bucket)
