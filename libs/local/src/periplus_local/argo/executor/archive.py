"""Archives of artifacts as Argo packs them (tar with gzip, or zip), and safe unpacking of untrusted ones."""

import gzip
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from periplus_common.errors import Invalid
from periplus_common.tar import Member, TarLimits, TarReader, is_gzipped_tar
from periplus_local.argo.executor.job import PodError
from periplus_local.argo.executor.settings import UnpackLimits

# The fastest: most artifacts do not leave the machine, and later steps wait for them.
GZIP_LEVEL = 1
COPY_BYTES = 1 << 20
MAX_FOLDERS = TarLimits().max_depth
_ZIP_ENTRY = b"PK\x01\x02"
_ZIP64_END_BYTES = 76  # between a zip's directory and its end record


class _Disk:
    """The space that an archive may still take."""

    def __init__(self, folder: Path, limits: UnpackLimits) -> None:
        self._limits = limits
        self._left = shutil.disk_usage(folder).free - limits.min_free_bytes

    def spend(self, size: int) -> None:
        """Count `size` bytes; raises PodError if they do not fit."""
        self._left -= size
        if self._left < 0:
            raise PodError(
                f"the archive needs more space than the disk has, of which {self._limits.min_free_bytes} bytes stay free"
            )


def below(folder: Path) -> Iterator[tuple[Path, str]]:
    """Everything in a folder with its path from there, each folder before what is in it; links are not followed.

    Raises PodError for more folders within one another than an archive may have, since it could not be unpacked.
    """
    if folder.is_symlink() or not folder.is_dir():
        return
    pending = [(folder, "", 1)]
    while pending:
        path, inner, depth = pending.pop()
        if inner:
            yield path, inner
        if path.is_symlink() or not path.is_dir():
            continue
        if depth > MAX_FOLDERS:
            raise PodError(f"it has more than {MAX_FOLDERS} folders within one another")
        inside = sorted(path.iterdir(), reverse=True)
        pending += [(each, f"{inner}/{each.name}" if inner else each.name, depth + 1) for each in inside]


def pack_tar(source: Path, name: str, to: Path, level: int = GZIP_LEVEL) -> None:
    """Pack a file or a folder as `name`; sockets, pipes and devices are left out."""

    def keep(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return entry if entry.isreg() or entry.isdir() or entry.issym() or entry.islnk() else None

    with (
        to.open("wb") as raw,
        gzip.GzipFile("", "wb", level, raw) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT, bufsize=COPY_BYTES) as tar,
    ):
        tar.add(source, name, recursive=False, filter=keep)
        for path, inner in below(source):
            tar.add(path, f"{name}/{inner}", recursive=False, filter=keep)


def pack_zip(source: Path, name: str, to: Path) -> None:
    """Pack a file or a folder as `name` into a zip; as in Argo, symbolic links become empty files."""
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED, compresslevel=GZIP_LEVEL) as packed:
        if not source.is_dir():
            packed.write(source, name)
            return
        for path, relative in below(source):
            inner = f"{name}/{relative}"
            if path.is_symlink():
                packed.writestr(inner, "")
            elif path.is_file():
                packed.write(path, inner)


def is_tar(file: Path) -> bool:
    """Whether a file is a tar that was packed with gzip."""
    with file.open("rb") as packed:
        return is_gzipped_tar(packed)


def unpack_tar(file: Path, folder: Path, limits: UnpackLimits) -> None:
    """Unpack into the new folder `folder`.

    Raises PodError for what is no complete tar or exceeds the limits, and for an entry outside of the folder.
    """
    modes: list[tuple[Path, int]] = []
    try:
        _check_beginning(file, limits.tar)
        folder.mkdir()
        disk = _Disk(folder, limits)
        with file.open("rb") as packed:
            reader = TarReader(packed, limits.tar)
            for member in reader:
                disk.spend(member.size)
                path = _inside(folder, member.path)
                _unpack_member(reader, member, folder, path)
                if member.kind == "dir":
                    modes.append((path, member.mode))
    except Invalid as error:
        raise PodError(error.message) from error
    for path, mode in reversed(modes):
        path.chmod(mode & 0o777 | 0o700)


def _check_beginning(file: Path, limits: TarLimits) -> None:
    """Raise `Invalid` for what an archive's first part shows, before the first of a hundred thousand files is made."""
    with file.open("rb") as packed:
        reader = TarReader(packed, limits)
        for _ in reader:
            if reader.position > limits.ratio_from_bytes:
                return


def _unpack_member(reader: TarReader, member: Member, folder: Path, path: Path) -> None:
    if member.kind == "dir":
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink() or path.is_file():
        path.unlink()
    if member.kind == "link":
        _check_link(folder, path, member.target)
        path.symlink_to(member.target)
    elif member.kind == "hardlink":
        target = _inside(folder, member.target)
        if not target.is_file() or target.is_symlink():
            raise PodError(f"the archive's hard link {member.path!r} has no file to link to")
        path.hardlink_to(target)
    else:
        with path.open("xb") as file:
            file.writelines(reader.content())
        path.chmod(member.mode & 0o777 | 0o600)


def unpack_zip(file: Path, folder: Path, limits: UnpackLimits) -> None:
    """Unpack a zip into the new folder `folder`; as in Argo, symbolic links become files.

    Raises PodError for what is no complete zip or exceeds the limits, and for an entry outside of the folder.
    """
    folder.mkdir()
    try:
        _check_directory(file, limits.tar)
        with zipfile.ZipFile(file) as packed:
            _check_zip(packed.infolist(), file, _Disk(folder, limits), limits.tar)
            for entry in packed.infolist():
                path = _inside(folder, entry.filename)
                if entry.is_dir():
                    path.mkdir(parents=True, exist_ok=True)
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                with packed.open(entry) as content, path.open("xb") as out:
                    shutil.copyfileobj(content, out, COPY_BYTES)
                path.chmod(stat.S_IMODE(entry.external_attr >> 16) & 0o777 | 0o600)
    except (zipfile.BadZipFile, EOFError, RuntimeError, zlib.error) as error:
        raise PodError(f"the archive is damaged: {error}") from error


def _check_directory(file: Path, limits: TarLimits) -> None:
    """Raise PodError for a directory of too many entries, which zipfile would read into objects of 700 bytes each."""
    with file.open("rb") as packed:
        end = zipfile._EndRecData(packed)  # type: ignore[attr-defined]  # noqa: SLF001 - what ZipFile will read
        if end is None:
            raise zipfile.BadZipFile("it has no directory")
        size, at = end[zipfile._ECD_SIZE], end[zipfile._ECD_LOCATION]  # type: ignore[attr-defined]  # noqa: SLF001
        if size > limits.max_names_bytes:
            raise PodError(f"the archive has more than {limits.max_names_bytes} bytes of names and headers")
        packed.seek(max(0, at - size - _ZIP64_END_BYTES))
        if packed.read(size + _ZIP64_END_BYTES).count(_ZIP_ENTRY) > limits.max_entries:
            raise PodError(f"the archive has more than {limits.max_entries} entries")


def _check_zip(entries: list[zipfile.ZipInfo], file: Path, disk: _Disk, limits: TarLimits) -> None:
    """Raise PodError for what a zip's directory shows. An entry never unpacks to more than it says there."""
    total, folders = 0, {PurePosixPath(), PurePosixPath("/")}
    for entry in entries:
        total += entry.file_size
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise PodError(f"the archive's entry {entry.filename!r} is neither stored nor deflated")
        if len(entry.filename) > limits.max_path_bytes or entry.filename.count("/") > limits.max_depth:
            raise PodError(
                f"the archive has a path of {len(entry.filename)} characters in {entry.filename.count('/')} folders, "
                f"at most {limits.max_path_bytes} in {limits.max_depth} are allowed: {entry.filename[:80]!r}"
            )
        above = PurePosixPath(entry.filename).parent
        while above not in folders:
            folders.add(above)
            above = above.parent
    if len(entries) + len(folders) > limits.max_entries:
        raise PodError(f"the archive has more than {limits.max_entries} entries")
    if total > limits.max_bytes:
        raise PodError(f"the archive unpacks to more than {limits.max_bytes} bytes")
    if total > limits.ratio_from_bytes and total > limits.max_ratio * file.stat().st_size:
        raise PodError(f"the archive unpacks to more than {limits.max_ratio} times its size")
    disk.spend(total)


def _inside(folder: Path, name: str) -> Path:
    """The path of an entry; raises PodError when it, or a link on the way, leads out of the folder."""
    path = folder / os.path.normpath(name)
    parent = os.path.realpath(path.parent)
    if name.startswith("/") or ".." in Path(name).parts or not _below(parent, folder):
        raise PodError(f"the archive's entry {name!r} leaves its folder")
    return path


def _check_link(folder: Path, path: Path, target: str) -> None:
    """Refuse a link out of the folder. `..` is allowed at the start only: after a name that is itself a link, it
    would be resolved somewhere else than here.
    """
    parts = Path(target).parts
    ups = sum(1 for part in parts if part == "..")
    resolved = os.path.normpath(f"{os.path.realpath(path.parent)}/{target}")
    if target.startswith("/") or ".." in parts[ups:] or not _below(resolved, folder):
        raise PodError(f"the archive's link {path.name!r} leaves its folder")


def _below(path: str, folder: Path) -> bool:
    root = os.path.realpath(folder)
    return path == root or path.startswith(root + os.sep)
