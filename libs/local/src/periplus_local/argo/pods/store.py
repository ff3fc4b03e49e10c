"""The S3 bucket that artifacts lie in."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import urllib3
from minio import Minio
from minio.error import MinioException, S3Error

from periplus_local.argo.pods.job import PodError

T = TypeVar("T")
PART_BYTES = 64 << 20
CHUNK = 1 << 20


@dataclass(frozen=True)
class S3Store:
    """Where artifacts go: `endpoint` is host:port, `secure` says whether it speaks TLS."""

    endpoint: str
    access_key: str
    secret_key: str
    bucket: str
    secure: bool = False


class NoSuchKeyError(Exception):
    """The key is not there."""


class Artifacts:
    """Objects of the bucket as files. All calls block, and raise PodError with the store's words."""

    def __init__(self, store: S3Store, connections: int) -> None:
        self._store = store
        pool = urllib3.PoolManager(
            maxsize=connections,
            timeout=urllib3.Timeout(connect=5, read=60),
            retries=urllib3.Retry(total=3, backoff_factor=0.2, status_forcelist=(500, 502, 503, 504)),
        )
        self._client = Minio(
            store.endpoint,
            access_key=store.access_key,
            secret_key=store.secret_key,
            secure=store.secure,
            http_client=pool,
        )

    def get(self, place: dict[str, Any], to: Path) -> None:
        """Bring an object to the file `to`, or everything below its key to the folder `to`."""
        bucket, key = self._place(place)
        try:
            self._fetch(bucket, key, to)
        except NoSuchKeyError:
            if not self._get_folder(bucket, key.rstrip("/") + "/", to):
                raise

    def put(self, place: dict[str, Any], file: Path) -> None:
        """Store a file under a key."""
        bucket, key = self._place(place)
        self._call(lambda: self._client.fput_object(bucket, key, str(file), part_size=PART_BYTES))

    def _get_folder(self, bucket: str, prefix: str, to: Path) -> bool:
        listing = self._call(lambda: list(self._client.list_objects(bucket, prefix=prefix, recursive=True)))
        for entry in listing:
            name = entry.object_name or ""
            relative = name[len(prefix) :]
            if not relative or relative.endswith("/"):
                continue
            if ".." in relative.split("/") or relative.startswith("/"):
                raise PodError(f"the key {name!r} leaves its folder")
            self._fetch(bucket, name, to / relative)
        return bool(listing)

    def _fetch(self, bucket: str, name: str, to: Path) -> None:
        def stream() -> None:
            answer = self._client.get_object(bucket, name)
            try:
                to.parent.mkdir(parents=True, exist_ok=True)
                to.touch(0o600)  # as in a pod: what was not packed has no mode of its own
                with to.open("wb") as file:
                    for piece in answer.stream(CHUNK):
                        file.write(piece)
            finally:
                answer.close()
                answer.release_conn()

        self._call(stream)

    def _place(self, place: dict[str, Any]) -> tuple[str, str]:
        endpoint = place.get("endpoint")
        if endpoint and endpoint != self._store.endpoint:
            raise PodError(f"s3.endpoint {endpoint!r} is not the store of this machine")
        return str(place.get("bucket") or self._store.bucket), str(place["key"])

    def _call(self, action: Callable[[], T]) -> T:
        try:
            return action()
        except S3Error as error:
            if error.code in {"NoSuchKey", "NoSuchObject"}:
                raise NoSuchKeyError("The specified key does not exist.") from error
            raise PodError(f"{error.code}: {error.message}") from error
        except (MinioException, urllib3.exceptions.HTTPError, ValueError) as error:
            raise PodError(f"the store at {self._store.endpoint} fails: {error}") from error
