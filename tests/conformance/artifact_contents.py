"""The contents of the artifacts of ended workflows, read from the artifact repository."""

import gzip
import io
import tarfile
import zipfile
from typing import Any

from minio import Minio

Body = dict[str, Any]


def artifact_contents(minio: Minio, bucket: str, workflows: list[Body | None]) -> Body:
    """The content of every output artifact, by "<index of the workflow> <node> <artifact>"."""
    found: Body = {}
    for index, workflow in enumerate(workflows):
        name = workflow["metadata"]["name"] if workflow else ""
        for node in ((workflow or {}).get("status", {}).get("nodes") or {}).values():
            for artifact in (node.get("outputs") or {}).get("artifacts") or ():
                if key := (artifact.get("s3") or {}).get("key"):
                    path = f"{index} {node['name'].replace(name, '$')} {artifact['name']}"
                    found[path] = _content_of_key(minio, bucket, key)
    return found


def _content_of_key(minio: Minio, bucket: str, key: str) -> Any:
    """The content of the object, or of all objects below the key."""
    keys = [item.object_name or "" for item in minio.list_objects(bucket, prefix=key, recursive=True)]
    if key in keys:
        return _content(minio.get_object(bucket, key).data)
    below = [each for each in keys if each.startswith(key + "/")]
    return {each.removeprefix(key): _content(minio.get_object(bucket, each).data) for each in below}


def _content(data: bytes) -> Any:
    if data.startswith(b"\x1f\x8b"):
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(data))) as packed:
            return {entry.name: _tar_entry(packed, entry) for entry in packed}
    if data.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(data)) as packed_zip:
            return {entry.filename: packed_zip.read(entry).decode() for entry in packed_zip.infolist()}
    return data.decode()


def _tar_entry(packed: tarfile.TarFile, entry: tarfile.TarInfo) -> Body:
    if entry.issym():
        return {"link": entry.linkname}
    if entry.isdir():
        return {"folder": ""}
    content = packed.extractfile(entry)
    # A pod's umask is 0, that of a step on a laptop is 022: only the owner's execute bit is compared.
    kind = "program" if entry.mode & 0o100 else "file"
    return {kind: _content(content.read()) if content else ""}
