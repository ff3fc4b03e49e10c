"""The embedded S3 store, SeaweedFS: its settings, bucket and process.

SeaweedFS is several servers in one process. In addition to the S3 port, which requires signed requests, it opens a port for
HTTP and one for gRPC for each of master, volume, filer and admin. These require a client
certificate that only this home has.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import hmac
import http.client
import json
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from periplus_common import tls
from periplus_local.stack import programs
from periplus_local.stack.bucket import Bucket
from periplus_local.stack.home import write_private, write_private_json
from periplus_local.stack.ports import LOOPBACK
from periplus_local.stack.process import NotReadyError, ProcessSpec
from periplus_local.stack.tls_pair import TlsPair, tls_pair

if TYPE_CHECKING:
    from collections.abc import Mapping

    from periplus_local.stack.home import Home

BUCKET = "artifacts"
_REQUEST_TIMEOUT_SECONDS = 5
_MAX_ANSWER_BYTES = 1 << 20
_EMPTY_BODY = hashlib.sha256(b"").hexdigest()
_SERVERS = ("master", "volume", "filer", "admin")
_GRPC = (*_SERVERS, "s3", "worker", "client", "mq", "msg_broker", "msg_agent")
# It allocates 120 MB at the start. A limit near that makes it collect garbage all the time (a tenth of a core
# when idle, puts four times slower); without a limit it has 470 MB after large puts.
_GO_MEMORY_LIMIT = "200MiB"
PORTS = ("s3", "s3-grpc", *(f"{s}{kind}" for s in _SERVERS for kind in ("", "-grpc")))
"""The names of the ports that it opens."""

ABOVE = {"admin-grpc": ("admin", 10_000)}
"""Its maintenance worker expects the admin server's gRPC port at this distance from its HTTP port."""


RIGHTS = {
    "argo": (f"Read:{BUCKET}", f"Write:{BUCKET}", f"List:{BUCKET}"),
    "cache": (f"Read:{BUCKET}", f"List:{BUCKET}"),
    "snapshotter": tuple(
        f"{action}:{BUCKET}/{folder}/*" for action in ("Read", "Write") for folder in ("code", "snapshots")
    ),
}
"""What each process may do, as actions of SeaweedFS; Write includes deleting. The others have no keys."""


@dataclass(frozen=True)
class S3:
    """The store's ports by name, and the keys of its administrator and of each process of `RIGHTS`.

    `tls`: whether the S3 API has TLS, as the inner ports always have.
    """

    ports: Mapping[str, int]
    access_key: str
    secret_key: str
    identities: Mapping[str, tuple[str, str]]
    """Access key and secret key by process."""
    tls_pair: TlsPair
    tls: bool = True

    @property
    def endpoint(self) -> str:
        """Host and port of the S3 API."""
        return f"{LOOPBACK}:{self.ports['s3']}"

    @property
    def bucket(self) -> Bucket:
        """The bucket that artifacts go to, with the keys of the administrator."""
        return self._bucket(self.access_key, self.secret_key)

    def bucket_of(self, process: str) -> Bucket:
        """The same with the keys of a process, which have its rights."""
        return self._bucket(*self.identities[process])

    def _bucket(self, access_key: str, secret_key: str) -> Bucket:
        ca_file = str(self.tls_pair.certificate) if self.tls else ""
        return Bucket(self.endpoint, access_key, secret_key, BUCKET, self.tls, ca_file)


def store(home: Home, chosen: Mapping[str, int], *, tls: bool = True) -> S3:
    """The store of a home on these ports, with the home's secrets."""
    ports = {name: chosen[name] for name in PORTS}
    identities = {
        process: (home.secret(f"s3-{process}-access-key"), home.secret(f"s3-{process}-secret-key"))
        for process in RIGHTS
    }
    administrator = (home.secret("s3-access-key"), home.secret("s3-secret-key"))
    return S3(ports, *administrator, identities, tls_pair(home), tls)


def spec(home: Home, store: S3) -> ProcessSpec:
    """The process of SeaweedFS."""
    return ProcessSpec(
        name="s3",
        command=(str(programs.weed()), *_arguments(home, store)),
        directory=home.run / "s3",  # where it reads security.toml
        prepare=partial(_prepare, home, store),
        ready=partial(_ready, store),
        # It reads settings from $HOME too.
        env={"GOMEMLIMIT": _GO_MEMORY_LIMIT, "HOME": str(home.run / "s3")},
        address=store.endpoint,
        stop_timeout_seconds=10.0,
        temporary=_sockets(store.ports),
    )


def _arguments(home: Home, store: S3) -> list[str]:
    # Paths are relative to its working directory: it splits paths at commas, and a socket's path must be short.
    options: dict[str, object] = {
        "dir": os.path.relpath(home.data / "s3", home.run / "s3"),
        "ip": LOOPBACK,
        "ip.bind": LOOPBACK,
        "master.telemetry": "false",
        "master.volumeSizeLimitMB": 1024,
        "admin.ui": "false",
        "webdav": "false",
        "s3.iam": "false",
        "s3.idleTimeout": 60,  # seconds; 120 by default
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.config": "s3.json",
        "s3.localSocket": "s3.sock",
        "s3.allowedOrigins": "http://127.0.0.1",
        "filer.localSocket": "filer.sock",
        "filer.allowedOrigins": "http://127.0.0.1",
        "volume.preStopSeconds": 0,
    }
    if store.tls:
        options["s3.cert.file"] = os.path.relpath(store.tls_pair.certificate, home.run / "s3")
        options["s3.key.file"] = os.path.relpath(store.tls_pair.key, home.run / "s3")
    for server in (*_SERVERS, "s3"):
        options[f"{server}.port"] = store.ports[server]
        options[f"{server}.port.grpc"] = store.ports[f"{server}-grpc"]
    flags = [f"-{name}={value}" for name, value in options.items()]
    return ["-logtostderr=true", "-v=0", "mini", *flags]


async def _prepare(home: Home, store: S3) -> None:
    run = home.run / "s3"
    run.mkdir(mode=0o700, exist_ok=True)
    (home.data / "s3").mkdir(mode=0o700, exist_ok=True)
    everything = ("Admin", "Read", "Write", "List", "Tagging")
    identities = [_identity("periplus", store.access_key, store.secret_key, everything)]
    identities += [_identity(name, *store.identities[name], rights) for name, rights in RIGHTS.items()]
    write_private_json(run / "s3.json", {"identities": identities})
    write_private(run / "filer.toml", _filer(home))
    write_private(run / "security.toml", _security(home, store.tls_pair))


def _identity(name: str, access_key: str, secret_key: str, actions: tuple[str, ...]) -> dict[str, object]:
    keys = {"accessKey": access_key, "secretKey": secret_key}
    return {"name": name, "credentials": [keys], "actions": list(actions)}


def _filer(home: Home) -> str:
    """One index instead of eight, each of which allocates 16 MB twice."""
    index = os.path.relpath(home.data / "s3" / "index", home.run / "s3")
    return f"[leveldb]\nenabled = true\ndir = {json.dumps(index)}\n"


def _security(home: Home, own: TlsPair) -> str:
    """Mutual TLS on every inner port, and signed tokens where SeaweedFS supports them."""
    run = home.run / "s3"
    crt, private = (json.dumps(os.path.relpath(path, run)) for path in (own.certificate, own.key))
    pair = f"cert = {crt}\nkey = {private}\n"
    authority = f"ca = {crt}\n"
    sections = [f"[grpc]\n{authority}"]
    sections += [f"[grpc.{server}]\n{pair}" for server in _GRPC]
    sections += [f"[https.{server}]\n{pair}{authority}" for server in _SERVERS]
    sections.append(f"[https.client]\nenabled = true\n{pair}{authority}")
    for use in ("signing", "signing.read", "filer_signing", "filer_signing.read"):
        secret = home.secret(f"s3-jwt-{use.replace('.', '-')}")
        sections.append(f'[jwt.{use}]\nkey = "{secret}"\n')
    sections.append("[access]\nui = false\n")
    sections.append(f'[admin]\nuser = "admin"\npassword = "{home.secret("s3-admin")}"\n')
    return "\n".join(sections)


def _sockets(ports: Mapping[str, int]) -> tuple[Path, ...]:
    """Its inner sockets, whose folder, /tmp, can not be configured; our umask makes them private."""
    servers = (*_SERVERS, "s3")
    return tuple(Path(f"/tmp/seaweedfs-{s}-grpc-{ports[f'{s}-grpc']}.sock") for s in servers)  # noqa: S108


async def _ready(store: S3) -> None:
    """Return if objects can be written and read, and the bucket exists. Raises NotReadyError.

    The S3 port answers for buckets some time before the volume server has registered with the master: up to 20 seconds
    if it was refused once. Until then a read is an internal error, and a write waits.
    """
    try:
        status = await asyncio.to_thread(_ensure_bucket, store)
        if status != http.HTTPStatus.OK:
            raise NotReadyError(f"{store.endpoint}: HTTP {status} for the bucket {BUCKET}")
        volumes = await asyncio.to_thread(_registered_volumes, store)
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError) as error:
        raise NotReadyError(f"{type(error).__name__}: {error}") from error
    if not volumes:
        raise NotReadyError(f"{store.endpoint}: no volume server has registered with the master")


def _registered_volumes(store: S3) -> int:
    """How many volumes the servers that have registered with the master can hold.

    Raises OSError, http.client.HTTPException, and ValueError, LookupError or TypeError if the answer is another.
    """
    verified = tls.context(str(store.tls_pair.certificate))
    verified.load_cert_chain(store.tls_pair.certificate, store.tls_pair.key)
    address = f"{LOOPBACK}:{store.ports['master']}"
    connection = http.client.HTTPSConnection(address, timeout=_REQUEST_TIMEOUT_SECONDS, context=verified)
    try:
        connection.request("GET", "/dir/status")
        return int(json.loads(connection.getresponse().read(_MAX_ANSWER_BYTES))["Topology"]["Max"])
    finally:
        connection.close()


def _ensure_bucket(store: S3) -> int:
    """Create the bucket unless it exists; returns the HTTP status of a HEAD request for it."""
    status = _request("HEAD", f"/{BUCKET}", store)
    if status == http.HTTPStatus.NOT_FOUND:
        _request("PUT", f"/{BUCKET}", store)
        status = _request("HEAD", f"/{BUCKET}", store)
    return status


def _request(method: str, path: str, store: S3) -> int:
    """Send a request without a body, signed by AWS Signature Version 4, and return its status.

    Not by the client library, which takes 20 MB. `path` has no query and no characters to escape. Raises OSError
    and http.client.HTTPException.
    """
    now = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%SZ")
    headers = {"host": store.endpoint, "x-amz-content-sha256": _EMPTY_BODY, "x-amz-date": now}
    names = ";".join(headers)
    lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
    canonical = f"{method}\n{path}\n\n{lines}\n{names}\n{_EMPTY_BODY}"
    scope = f"{now[:8]}/us-east-1/s3/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    key = f"AWS4{store.secret_key}".encode()
    for word in scope.split("/"):
        key = hmac.digest(key, word.encode(), "sha256")
    signature = hmac.digest(key, f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{digest}".encode(), "sha256").hex()
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={store.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    connection = _connection(store)
    try:
        connection.request(method, path, headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()


def _connection(store: S3) -> http.client.HTTPConnection:
    if not store.tls:
        return http.client.HTTPConnection(store.endpoint, timeout=_REQUEST_TIMEOUT_SECONDS)
    verified = tls.context(str(store.tls_pair.certificate))
    return http.client.HTTPSConnection(store.endpoint, timeout=_REQUEST_TIMEOUT_SECONDS, context=verified)
