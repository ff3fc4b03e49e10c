"""The project's code and the runner as one archive, the same bytes for the same files."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from periplus.sdk.errors import PipelineError

# Argo unpacks an archive with one entry at its root as that entry, so this folder becomes the artifact's path.
ROOT_FOLDER = "code"

# The snapshotter accepts no larger archive.
MAX_ARCHIVE_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True)
class Archive:
    """A tar.gz of code. `digest` is `sha256:…` of its bytes."""

    data: bytes
    digest: str

    def key(self, project: str) -> str:
        """Its key in the artifact repository, where the snapshotter stores it for this project."""
        hexadecimal = self.digest.removeprefix("sha256:")
        return f"code/{project}/sha256/{hexadecimal[:2]}/{hexadecimal[2:4]}/{hexadecimal}.tgz"


def archive(files: Mapping[str, Path | bytes]) -> Archive:
    """Pack files, or their contents, under their names, without times and owners, in the order of their names.

    Raises PipelineError when one cannot be read.
    """
    names = sorted(files)
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", filename="", mtime=0, compresslevel=6) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for folder in sorted(
            {ROOT_FOLDER, *(f"{ROOT_FOLDER}/{parent}" for name in names for parent in _parents(name))}
        ):
            tar.addfile(_entry(folder, tarfile.DIRTYPE, 0o755))
        for name in names:
            data = _content(name, files[name])
            entry = _entry(f"{ROOT_FOLDER}/{name}", tarfile.REGTYPE, 0o644)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    data = packed.getvalue()
    if len(data) > MAX_ARCHIVE_BYTES:
        largest = max(names, key=lambda name: len(_content(name, files[name])))
        raise PipelineError(
            f"the code of the steps is {len(data)} bytes packed, and at most {MAX_ARCHIVE_BYTES} are taken",
            fix=f"keep data out of modules: the largest file is {largest}",
        )
    return Archive(data, "sha256:" + hashlib.sha256(data).hexdigest())


def _content(name: str, file: Path | bytes) -> bytes:
    if isinstance(file, bytes):
        return file
    try:
        return file.read_bytes()
    except OSError as missing:
        raise PipelineError(f"the code of {name} cannot be read: {missing}") from missing


def _parents(name: str) -> list[str]:
    return [parent.as_posix() for parent in Path(name).parents if parent != Path()]


def _entry(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type = kind
    entry.mode = mode
    return entry
