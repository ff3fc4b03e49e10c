"""A real S3 store for the conformance suite, with what a recorded run found in it."""

import contextlib
import io
import json
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minio import Minio
from minio.error import MinioException
from urllib3 import PoolManager, Retry
from urllib3.exceptions import HTTPError

from periplus_local.argo.settings import ArgoSettings
from periplus_local.stack.running_process import tied_to_this_process

KEY, SECRET, BUCKET = "conformance", "conformance-secret", "artifacts"
PARTS = ("master", "volume", "filer", "s3", "admin")
# What the recorded run of gate-hit.yaml found under the key of its answer.
MODEL = ("recordings/model.tgz", "model", b"model\ndata100\n97\n")


@dataclass(frozen=True)
class Store:
    """Where the store answers, and a client of it."""

    endpoint: str
    minio: Minio


def settings(home: Path, s3: Store, **more: Any) -> ArgoSettings:
    """The settings of a local Argo on the store."""
    keys = {"s3_access_key": KEY, "s3_secret_key": SECRET, "s3_bucket": BUCKET}
    return ArgoSettings(home=home, s3_endpoint=s3.endpoint, **(keys | more))


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on just now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


@contextlib.contextmanager
def store(folder: Path) -> Iterator[Store]:
    """SeaweedFS on loopback, its data below the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    ports = free_ports(2 * len(PARTS))
    keys = [{"accessKey": KEY, "secretKey": SECRET}]
    identity = {"name": KEY, "credentials": keys, "actions": ["Admin", "Read", "Write", "List"]}
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    flags = [f"-{part}.port={ports[2 * at]}" for at, part in enumerate(PARTS)]
    flags += [f"-{part}.port.grpc={ports[2 * at + 1]}" for at, part in enumerate(PARTS)]
    fixed = "-ip=127.0.0.1 -ip.bind=127.0.0.1 -master.telemetry=false -admin.ui=false -webdav=false"
    fixed += " -s3.iam=false -s3.port.iceberg=0 -s3.port.lance=0"
    weed = str(Path(sys.executable).parent / "weed")
    start = [weed, "-logtostderr=true", "-v=0", "mini", f"-dir={folder}", *fixed.split(), *flags]
    start += [f"-s3.config={folder}/s3.json", f"-filer.localSocket={folder}/f.sock"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            tied_to_this_process(start, signal.SIGTERM), stdout=log, stderr=log, cwd=folder
        )
    try:
        endpoint = f"127.0.0.1:{ports[6]}"
        yield Store(endpoint, with_bucket(endpoint, process))
    finally:
        process.terminate()
        process.wait(20)


def with_bucket(endpoint: str, process: "subprocess.Popen[bytes]") -> Minio:
    """A client of the store once it answers, with the bucket and the recorded object in it."""
    minio = Minio(endpoint, KEY, SECRET, secure=False, http_client=PoolManager(retries=Retry(0)))
    end = time.monotonic() + 30
    while True:
        assert process.poll() is None, "the S3 store has ended"
        try:
            minio.make_bucket(BUCKET)
            put_model(minio, BUCKET)
            return minio
        except (MinioException, HTTPError, OSError):
            assert time.monotonic() < end, "the S3 store does not answer"
            time.sleep(0.1)


def put_model(minio: Minio, bucket: str) -> None:
    """Put the recorded object where the answer of a gate names it."""
    key, name, content = MODEL
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    minio.put_object(bucket, key, io.BytesIO(packed.getvalue()), len(packed.getvalue()))
