"""The embedded S3 store, SeaweedFS: its settings, its bucket, and every inner port closed.

SeaweedFS is several servers in one process: beside the S3 port, which asks for signed requests,
it opens a port for HTTP and one for gRPC each for master, volume, filer and admin. All of them
demand a client certificate that only this home has.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from periplus_local.stack import programs, signed
from periplus_local.stack.bucket import Bucket
from periplus_local.stack.home import write_private, write_private_json
from periplus_local.stack.part import NotReadyError, Part
from periplus_local.stack.ports import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Mapping

    from periplus_local.stack.home import Home

BUCKET = "artifacts"
_SERVERS = ("master", "volume", "filer", "admin")
_GRPC = (*_SERVERS, "s3", "worker", "client", "mq", "msg_broker", "msg_agent")
# It sets 120 MB aside of which it touches a quarter. A limit near that makes it collect garbage without
# end (a tenth of a core when idle, puts four times slower); without one it keeps 470 MB after large puts.
_MEMORY = "200MiB"
PORTS = ("s3", "s3-grpc", *(f"{s}{kind}" for s in _SERVERS for kind in ("", "-grpc")))
"""The names of the ports it opens."""

ABOVE = {"admin-grpc": ("admin", 10_000)}
"""Its maintenance worker finds the admin server's gRPC port nowhere else."""


@dataclass(frozen=True)
class S3:
    """The store's ports by name, and the keys of its S3 API."""

    ports: Mapping[str, int]
    access_key: str
    secret_key: str

    @property
    def endpoint(self) -> str:
        """Host and port of the S3 API, plain HTTP."""
        return f"{LOOPBACK}:{self.ports['s3']}"

    @property
    def bucket(self) -> Bucket:
        """The bucket that artifacts go to."""
        return Bucket(self.endpoint, self.access_key, self.secret_key, BUCKET)


def store(home: Home, chosen: Mapping[str, int]) -> S3:
    """The store of a home on these ports, with the secrets that the home keeps."""
    ports = {name: chosen[name] for name in PORTS}
    return S3(ports, access_key=home.secret("s3-access-key"), secret_key=home.secret("s3-secret-key"))


def part(home: Home, store: S3) -> Part:
    """SeaweedFS as a part of the stack."""
    return Part(
        name="s3",
        command=(str(programs.weed()), *_arguments(home, store)),
        directory=home.run / "s3",  # where it looks for security.toml
        prepare=partial(_prepare, home, store),
        ready=partial(_answers, store),
        # It would also read settings below the user's home.
        env={"GOMEMLIMIT": _MEMORY, "HOME": str(home.run / "s3")},
        address=store.endpoint,
        grace=10.0,
        temporary=_sockets(store.ports),
    )


def _arguments(home: Home, store: S3) -> list[str]:
    # Relative to where it runs: it splits a path at commas, and a socket's path must be short.
    options: dict[str, object] = {
        "dir": os.path.relpath(home.data / "s3", home.run / "s3"),
        "ip": LOOPBACK,
        "ip.bind": LOOPBACK,
        "master.telemetry": "false",
        "master.volumeSizeLimitMB": 1024,
        "admin.ui": "false",
        "webdav": "false",
        "s3.iam": "false",
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.config": "s3.json",
        "s3.localSocket": "s3.sock",
        "s3.allowedOrigins": "http://127.0.0.1",
        "filer.localSocket": "filer.sock",
        "filer.allowedOrigins": "http://127.0.0.1",
        "volume.preStopSeconds": 0,
    }
    for server in (*_SERVERS, "s3"):
        options[f"{server}.port"] = store.ports[server]
        options[f"{server}.port.grpc"] = store.ports[f"{server}-grpc"]
    flags = [f"-{name}={value}" for name, value in options.items()]
    return ["-logtostderr=true", "-v=0", "mini", *flags]


async def _prepare(home: Home, store: S3) -> None:
    run = home.run / "s3"
    run.mkdir(mode=0o700, exist_ok=True)
    (home.data / "s3").mkdir(mode=0o700, exist_ok=True)
    keys = {"accessKey": store.access_key, "secretKey": store.secret_key}
    everything = ["Admin", "Read", "Write", "List", "Tagging"]
    identity = {"name": "periplus", "credentials": [keys], "actions": everything}
    write_private_json(run / "s3.json", {"identities": [identity]})
    held, key = home.secrets / "s3-tls.crt", home.secrets / "s3-tls.key"
    if not (held.exists() and key.exists()):
        await _certify(held, key)
    write_private(run / "filer.toml", _filer(home))
    write_private(run / "security.toml", _security(home, held, key))


async def _certify(certificate: Path, key: Path) -> None:
    """Write a pair that only the processes of this home know."""
    program = [sys.executable, "-m", "periplus_local.certificate"]
    pair = await asyncio.to_thread(subprocess.check_output, program, text=True)
    private, begin, public = pair.partition("-----BEGIN CERTIFICATE-----")
    write_private(key, private)
    write_private(certificate, begin + public)


def _filer(home: Home) -> str:
    """One index instead of eight, each of which would set aside 16 MB twice."""
    index = os.path.relpath(home.data / "s3" / "index", home.run / "s3")
    return f"[leveldb]\nenabled = true\ndir = {json.dumps(index)}\n"


def _security(home: Home, held: Path, key: Path) -> str:
    """Mutual TLS on every inner port, and signed tokens on top where SeaweedFS knows them."""
    run = home.run / "s3"
    crt, private = (json.dumps(os.path.relpath(path, run)) for path in (held, key))
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
    """Its inner sockets, which it insists on having in /tmp; private by our umask."""
    servers = (*_SERVERS, "s3")
    return tuple(Path(f"/tmp/seaweedfs-{s}-grpc-{ports[f'{s}-grpc']}.sock") for s in servers)  # noqa: S108


async def _answers(store: S3) -> None:
    """The bucket is there, which it can be only later than the open port."""
    try:
        status = await asyncio.to_thread(_ensure_bucket, store)
    except (OSError, http.client.HTTPException) as error:
        raise NotReadyError(str(error)) from error
    if status != http.HTTPStatus.OK:
        raise NotReadyError(f"{store.endpoint}: HTTP {status} for the bucket {BUCKET}")


def _ensure_bucket(store: S3) -> int:
    """Make the bucket unless it is there; returns the status of asking for it."""
    place = (store.endpoint, f"/{BUCKET}", store.access_key, store.secret_key)
    status = signed.request("HEAD", *place)
    if status == http.HTTPStatus.NOT_FOUND:
        signed.request("PUT", *place)
        status = signed.request("HEAD", *place)
    return status
