"""Debian's docker-registry as a process of its own, and images that skopeo copies into it."""

import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import tarfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MISSING = ", ".join(name for name in ("docker-registry", "skopeo") if shutil.which(name) is None)
"""Programs that are not installed here."""
_USER_LINE = "user:$2b$04$H3W2BH5SCgepTl9TWU4/XeIqQqEh7NR20HfMXrLirgTyLZXq3iFpe"  # the password is "secret"


@dataclass(frozen=True)
class RegistryServer:
    """A running registry: "127.0.0.1:port", and the folder for what is copied into it."""

    name: str
    folder: Path
    credentials: tuple[str, ...] = ()

    def push(self, tag: str, files: Mapping[str, bytes] | None = None, *, layer: bytes = b"") -> str:
        """Copy an image with one layer to a tag ("team/train:1"). Gives the digest of its manifest."""
        layout = self.folder / hashlib.sha256(os.urandom(16)).hexdigest()[:12]
        write_layout(layout, layer or tar_of(files or {}))
        target = self.copy(layout, tag)
        shown = self._skopeo(
            "inspect", "--tls-verify=false", *self._as("--creds"), "--format", "{{.Digest}}", target
        )
        return shown.strip()

    def copy(self, layout: Path, tag: str) -> str:
        """Copy the image `x` of an OCI layout to a tag, for all its platforms. Gives its address."""
        target = f"docker://{self.name}/{tag}"
        options = ("--all", "--quiet", "--dest-tls-verify=false", *self._as("--dest-creds"))
        self._skopeo("copy", *options, f"oci:{layout}:x", target)
        return target

    def raw(self, tag: str) -> bytes:
        """The bytes that a tag points to."""
        options = ("--tls-verify=false", *self._as("--creds"), "--raw")
        return self._skopeo("inspect", *options, f"docker://{self.name}/{tag}").encode()

    def _as(self, option: str) -> tuple[str, ...]:
        return (option, ":".join(self.credentials)) if self.credentials else ()

    def _skopeo(self, *arguments: str) -> str:
        command = ("skopeo", "--insecure-policy", *arguments)
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def write_layout(folder: Path, layer: bytes) -> None:
    """An OCI layout with one image of one layer, tagged `x`."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(content: bytes, kind: str) -> dict[str, object]:
        digest = hashlib.sha256(content).hexdigest()
        (blobs / digest).write_bytes(content)
        return {
            "mediaType": f"application/vnd.oci.image.{kind}",
            "digest": f"sha256:{digest}",
            "size": len(content),
        }

    rootfs = {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]}
    config = put(
        json.dumps({"architecture": "amd64", "os": "linux", "rootfs": rootfs}).encode(), "config.v1+json"
    )
    manifest = {
        "schemaVersion": 2, "config": config, "layers": [put(layer, "layer.v1.tar")],
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
    }  # fmt: skip
    entry = put(json.dumps(manifest).encode(), "manifest.v1+json")
    entry["annotations"] = {"org.opencontainers.image.ref.name": "x"}
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def tar_of(files: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


@contextmanager
def registry_server(
    folder: Path, *, with_users: bool = False, tls: tuple[Path, Path] | None = None
) -> Iterator[RegistryServer]:
    """A registry on a free port of loopback; with `with_users`, only `user` with the password `secret` may use it.

    With `tls`, a certificate and its key (PEM), it speaks HTTPS.
    """
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        name = f"127.0.0.1:{free.getsockname()[1]}"
    config: dict[str, Any] = {
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "registry")}, "delete": {"enabled": True}},
        "http": {"addr": name},
    }
    if tls:
        config["http"]["tls"] = {"certificate": str(tls[0]), "key": str(tls[1])}
    if with_users:
        (folder / "users").write_text(_USER_LINE)
        config["auth"] = {"htpasswd": {"realm": "tests", "path": str(folder / "users")}}
    (folder / "registry.yml").write_text(json.dumps(config))
    process = subprocess.Popen(
        ["docker-registry", "serve", str(folder / "registry.yml")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(name, process)
        yield RegistryServer(name, folder, ("user", "secret") if with_users else ())
    finally:
        process.terminate()
        process.wait(10)


def _wait_for(name: str, process: subprocess.Popen[bytes]) -> None:
    host, _, port = name.partition(":")
    for _ in range(1200):
        assert process.poll() is None, "docker-registry ended"
        try:
            socket.create_connection((host, int(port)), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("docker-registry does not listen")
