"""What lies in the store under the keys that the artifacts of ended workflows name."""

import gzip
import io
import tarfile
import zipfile
from typing import Any

from minio import Minio

Body = dict[str, Any]


def contents(minio: Minio, bucket: str, workflows: list[Body | None]) -> Body:
    """The content of every artifact, by the workflow's place, the node's name and the artifact's."""
    found: Body = {}
    for at, workflow in enumerate(workflows):
        name = workflow["metadata"]["name"] if workflow else ""
        for node in ((workflow or {}).get("status", {}).get("nodes") or {}).values():
            for artifact in (node.get("outputs") or {}).get("artifacts") or ():
                if key := (artifact.get("s3") or {}).get("key"):
                    place = f"{at} {node['name'].replace(name, '$')} {artifact['name']}"
                    found[place] = _under(minio, bucket, key)
    return found


def _under(minio: Minio, bucket: str, key: str) -> Any:
    """The object of a key; where the key is that of a folder, all objects in it."""
    keys = [item.object_name or "" for item in minio.list_objects(bucket, prefix=key, recursive=True)]
    if key in keys:
        return _described(minio.get_object(bucket, key).data)
    within = [each for each in keys if each.startswith(key + "/")]
    return {each.removeprefix(key): _described(minio.get_object(bucket, each).data) for each in within}


def _described(data: bytes) -> Any:
    if data.startswith(b"\x1f\x8b"):
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(data))) as packed:
            return {entry.name: _entry(packed, entry) for entry in packed}
    if data.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(data)) as packed_zip:
            return {entry.filename: packed_zip.read(entry).decode() for entry in packed_zip.infolist()}
    return data.decode()


def _entry(packed: tarfile.TarFile, entry: tarfile.TarInfo) -> Body:
    if entry.issym():
        return {"link": entry.linkname}
    if entry.isdir():
        return {"folder": ""}
    content = packed.extractfile(entry)
    # A pod's umask is 0, a step's on a laptop is 022: only what both leave alone is compared.
    kind = "program" if entry.mode & 0o100 else "file"
    return {kind: _described(content.read()) if content else ""}
