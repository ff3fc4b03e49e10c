"""A real S3 store for the conformance suite, with the artifact that a recorded run read from its own."""

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
SERVERS = ("master", "volume", "filer", "s3", "admin")
# The artifact that the recorded answer of the gate in gate-hit.yaml refers to: key, file name, content.
MODEL = ("recordings/model.tgz", "model", b"model\ndata100\n97\n")


@dataclass(frozen=True)
class S3Store:
    """A running store: its host:port, and a client of it."""

    endpoint: str
    minio: Minio


def argo_settings(home: Path, s3: S3Store, **more: Any) -> ArgoSettings:
    """The settings of a local Argo on the store."""
    keys = {"s3_access_key": KEY, "s3_secret_key": SECRET, "s3_bucket": BUCKET}
    return ArgoSettings(home=home, s3_endpoint=s3.endpoint, **(keys | more))


def free_ports(count: int) -> list[int]:
    """Ports that no process listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


@contextlib.contextmanager
def s3_store(folder: Path) -> Iterator[S3Store]:
    """SeaweedFS on loopback, its data below the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    keys = [{"accessKey": KEY, "secretKey": SECRET}]
    identity = {"name": KEY, "credentials": keys, "actions": ["Admin", "Read", "Write", "List"]}
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    for last in (False, False, True):
        process, endpoint = start(folder)
        try:
            yield S3Store(endpoint, client_with_bucket(endpoint, process))
            return
        except EndedError:
            # Between the choice of a free port and its use, another process may have taken it.
            if last:
                raise AssertionError((folder / "log").read_text()[-2000:]) from None
        finally:
            process.terminate()
            process.wait(20)


class EndedError(Exception):
    """The store's process ended before it answered."""


def start(folder: Path) -> tuple["subprocess.Popen[bytes]", str]:
    """Start SeaweedFS on free ports; gives the process and the endpoint of S3."""
    ports = free_ports(2 * len(SERVERS))
    flags = [f"-{server}.port={ports[2 * index]}" for index, server in enumerate(SERVERS)]
    flags += [f"-{server}.port.grpc={ports[2 * index + 1]}" for index, server in enumerate(SERVERS)]
    fixed = "-ip=127.0.0.1 -ip.bind=127.0.0.1 -master.telemetry=false -admin.ui=false -webdav=false"
    fixed += " -s3.iam=false -s3.port.iceberg=0 -s3.port.lance=0"
    weed = str(Path(sys.executable).parent / "weed")
    command = [weed, "-logtostderr=true", "-v=0", "mini", f"-dir={folder}", *fixed.split(), *flags]
    command += [f"-s3.config={folder}/s3.json", f"-filer.localSocket={folder}/f.sock"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            tied_to_this_process(command, signal.SIGTERM), stdout=log, stderr=log, cwd=folder
        )
    return process, f"127.0.0.1:{ports[6]}"


def client_with_bucket(endpoint: str, process: "subprocess.Popen[bytes]") -> Minio:
    """Wait until the store answers, make the bucket and put the recorded artifact; gives a client.

    Raises `EndedError` if the process ends meanwhile.
    """
    minio = Minio(endpoint, KEY, SECRET, secure=False, http_client=PoolManager(retries=Retry(0)))
    end = time.monotonic() + 60
    while True:
        if process.poll() is not None:
            raise EndedError
        try:
            minio.make_bucket(BUCKET)
            put_model(minio, BUCKET)
            return minio
        except (MinioException, HTTPError, OSError):
            assert time.monotonic() < end, "the S3 store does not answer"
            time.sleep(0.1)


def put_model(minio: Minio, bucket: str) -> None:
    """Put the recorded artifact at its key."""
    key, name, content = MODEL
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    minio.put_object(bucket, key, io.BytesIO(packed.getvalue()), len(packed.getvalue()))
