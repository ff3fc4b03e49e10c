"""The artifact repository: the S3 endpoint and bucket where artifacts are stored."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import urllib3
from minio import Minio
from minio.error import MinioException, S3Error

from periplus_common.object_key import malformed_reason
from periplus_local.argo.executor.job import PodError

T = TypeVar("T")
PART_BYTES = 64 << 20
READ_BYTES = 1 << 20


@dataclass(frozen=True)
class S3Config:
    """How to reach the repository: `endpoint` is host:port, `secure` whether it speaks TLS.

    `ca_file` has the authorities that may have signed its certificate; the system's are used if it is empty.
    """

    endpoint: str
    access_key: str
    secret_key: str
    bucket: str
    secure: bool = False
    ca_file: str = ""


class NoSuchKeyError(Exception):
    """There is no object with this key."""


class ArtifactRepository:
    """Downloads and uploads objects. All calls block, and raise PodError with the S3 server's message.

    `max_objects` is what one input may have below its key. A location is the `s3` of an artifact: `key`, and optionally `bucket` and `endpoint`.
    """

    def __init__(self, config: S3Config, connections: int, max_objects: int = 100_000) -> None:
        self._config = config
        self._max_objects = max_objects
        pool = urllib3.PoolManager(
            maxsize=connections,
            timeout=urllib3.Timeout(connect=5, read=60),
            retries=urllib3.Retry(total=3, backoff_factor=0.2, status_forcelist=(500, 502, 503, 504)),
            ca_certs=config.ca_file or None,
        )
        self._client = Minio(
            config.endpoint,
            access_key=config.access_key,
            secret_key=config.secret_key,
            secure=config.secure,
            http_client=pool,
        )

    def get(self, location: dict[str, Any], to: Path) -> str:
        """Download an object to the file `to`, or all objects below its key to the folder `to`. The ETag of the object, or "".

        Raises NoSuchKeyError when there are none.
        """
        bucket, key = self._bucket_and_key(location)
        try:
            return self._fetch(bucket, key, to)
        except NoSuchKeyError:
            if not self._get_folder(bucket, key.rstrip("/") + "/", to):
                raise
            return ""

    def put(self, location: dict[str, Any], file: Path) -> str:
        """Upload a file. The ETag of the object."""
        bucket, key = self._bucket_and_key(location)
        written = self._call(lambda: self._client.fput_object(bucket, key, str(file), part_size=PART_BYTES))
        return (written.etag or "").strip('"')

    def _get_folder(self, bucket: str, prefix: str, to: Path) -> bool:
        objects = self._client.list_objects(bucket, prefix=prefix, recursive=True)
        listing = self._call(lambda: list(islice(objects, self._max_objects + 1)))
        if len(listing) > self._max_objects:
            raise PodError(f"more than {self._max_objects} objects are below the key {prefix!r}")
        for entry in listing:
            name = entry.object_name or ""
            relative = name[len(prefix) :]
            if not relative or relative.endswith("/"):
                continue
            if ".." in relative.split("/") or relative.startswith("/"):
                raise PodError(f"the key {name!r} leaves its folder")
            self._fetch(bucket, name, to / relative)
        return bool(listing)

    def _fetch(self, bucket: str, name: str, to: Path) -> str:
        def stream() -> str:
            response = self._client.get_object(bucket, name)
            try:
                to.parent.mkdir(parents=True, exist_ok=True)
                to.touch(0o600)  # as in a pod: an object that is no archive carries no mode
                with to.open("wb") as file:
                    for chunk in response.stream(READ_BYTES):
                        file.write(chunk)
                return response.headers.get("ETag", "").strip('"')
            finally:
                response.close()
                response.release_conn()

        return self._call(stream)

    def _bucket_and_key(self, location: dict[str, Any]) -> tuple[str, str]:
        endpoint = location.get("endpoint")
        if endpoint and endpoint != self._config.endpoint:
            raise PodError(f"s3.endpoint {endpoint!r} is not the store of this machine")
        if reason := malformed_reason(key := str(location["key"])):
            raise PodError(f"s3.key {key[:200]!r} {reason}")
        return str(location.get("bucket") or self._config.bucket), key

    def _call(self, action: Callable[[], T]) -> T:
        try:
            return action()
        except S3Error as error:
            if error.code in {"NoSuchKey", "NoSuchObject"}:
                raise NoSuchKeyError("The specified key does not exist.") from error
            raise PodError(f"{error.code}: {error.message}") from error
        except (MinioException, urllib3.exceptions.HTTPError, ValueError) as error:
            raise PodError(f"the store at {self._config.endpoint} fails: {error}") from error
