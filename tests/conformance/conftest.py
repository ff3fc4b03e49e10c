"""The Argo that the recordings are held against: a local one on a real S3 store, or ARGO_SERVER."""

import io
import json
import os
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from minio import Minio
from minio.error import MinioException
from urllib3.exceptions import HTTPError

from periplus_local.argo.settings import ArgoSettings
from periplus_local.argo.testing import Client, Serving

KEY, SECRET, BUCKET = "conformance", "conformance-secret", "artifacts"
PARTS = ("master", "volume", "filer", "s3", "admin")
# What the recorded run of gate-hit.yaml found under the key of its answer.
MODEL = ("recordings/model.tgz", "model", b"model\ndata100\n97\n")


@dataclass(frozen=True)
class Store:
    endpoint: str
    minio: Minio


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


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    folder = tmp_path_factory.mktemp("s3")
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
        process = subprocess.Popen(start, stdout=log, stderr=log, cwd=folder)
    try:
        endpoint = f"127.0.0.1:{ports[6]}"
        yield Store(endpoint, with_bucket(endpoint, process))
    finally:
        process.terminate()
        process.wait(20)


def with_bucket(endpoint: str, process: "subprocess.Popen[bytes]") -> Minio:
    """A client of the store once it answers, with the bucket and the recorded object in it."""
    minio = Minio(endpoint, KEY, SECRET, secure=False)
    end = time.monotonic() + 30
    while True:
        assert process.poll() is None, "the S3 store has ended"
        try:
            minio.make_bucket(BUCKET)
            put_model(minio)
            return minio
        except (MinioException, HTTPError, OSError):
            assert time.monotonic() < end, "the S3 store does not answer"
            time.sleep(0.1)


def put_model(minio: Minio) -> None:
    """Put the recorded object where the answer of a gate names it."""
    key, name, content = MODEL
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    minio.put_object(BUCKET, key, io.BytesIO(packed.getvalue()), len(packed.getvalue()))


def settings(home: Path, s3: Store, **more: object) -> ArgoSettings:
    """The settings of a local Argo on the session's store."""
    values = {"s3_access_key": KEY, "s3_secret_key": SECRET, "s3_bucket": BUCKET, **more}
    return ArgoSettings(home=home, s3_endpoint=s3.endpoint, **values)


@pytest.fixture(scope="session")
def client(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Client]:
    server = os.environ.get("ARGO_SERVER")
    if server:
        namespace = os.environ.get("ARGO_NAMESPACE", "argo")
        yield Client(server.rstrip("/"), os.environ.get("ARGO_TOKEN", ""), namespace)
        return
    s3 = request.getfixturevalue("s3")
    with Serving(settings(tmp_path_factory.mktemp("argo"), s3)) as local:
        yield local
