"""Archives of artifacts as Argo packs them (tar with gzip, or zip), and safe unpacking of untrusted ones."""

import gzip
import os
import shutil
import stat
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from periplus_local.argo.executor.job import PodError

# The fastest: most artifacts do not leave the machine, and later steps wait for them.
GZIP_LEVEL = 1
COPY_BYTES = 1 << 20


@dataclass
class UnpackBudget:
    """How many bytes and entries one archive may still unpack to."""

    bytes_left: int
    entries_left: int

    def spend(self, size: int) -> None:
        """Count one entry of `size` bytes; raises PodError when the budget is exceeded."""
        self.bytes_left -= size
        self.entries_left -= 1
        if self.bytes_left < 0 or self.entries_left < 0:
            raise PodError("the archive unpacks to more than a step may have")


def pack_tar(source: Path, name: str, to: Path, level: int = GZIP_LEVEL) -> None:
    """Pack a file or a folder as `name`; sockets, pipes and devices are left out."""

    def keep(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return entry if entry.isreg() or entry.isdir() or entry.issym() or entry.islnk() else None

    with (
        to.open("wb") as raw,
        gzip.GzipFile("", "wb", level, raw) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT, bufsize=COPY_BYTES) as tar,
    ):
        tar.add(source, name, filter=keep)


def pack_zip(source: Path, name: str, to: Path) -> None:
    """Pack a file or a folder as `name` into a zip; as in Argo, symbolic links become empty files."""
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED, compresslevel=GZIP_LEVEL) as packed:
        if not source.is_dir():
            packed.write(source, name)
            return
        for path in sorted(source.rglob("*")):
            inner = f"{name}/{path.relative_to(source)}"
            if path.is_symlink():
                packed.writestr(inner, "")
            elif path.is_file():
                packed.write(path, inner)


def is_tar(file: Path) -> bool:
    """Whether a file is a tar that was packed with gzip."""
    try:
        with tarfile.open(file, "r:gz") as tar:
            tar.next()
    except (tarfile.TarError, OSError, EOFError):
        return False
    return True


def unpack_tar(file: Path, folder: Path, budget: UnpackBudget) -> None:
    """Unpack into the new folder `folder`; raises PodError for an entry that would be written outside of it."""
    folder.mkdir()
    modes: list[tuple[Path, int]] = []
    try:
        with tarfile.open(file, "r:gz") as tar:
            for entry in tar:
                budget.spend(entry.size)
                path = _inside(folder, entry.name)
                _unpack_entry(tar, entry, folder, path)
                if entry.isdir():
                    modes.append((path, entry.mode))
    except (tarfile.TarError, EOFError, gzip.BadGzipFile) as error:
        raise PodError(f"the archive is damaged: {error}") from error
    for path, mode in reversed(modes):
        path.chmod(mode & 0o777 | 0o700)


def _unpack_entry(tar: tarfile.TarFile, entry: tarfile.TarInfo, folder: Path, path: Path) -> None:
    if entry.isdir():
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink() or path.is_file():
        path.unlink()
    if entry.issym():
        _check_link(folder, path, entry.linkname)
        path.symlink_to(entry.linkname)
    elif entry.islnk():
        target = _inside(folder, entry.linkname)
        if not target.is_file() or target.is_symlink():
            raise PodError(f"the archive's hard link {entry.name!r} has no file to link to")
        path.hardlink_to(target)
    elif entry.isreg():
        content = tar.extractfile(entry)
        assert content is not None  # it is a regular file
        with content, path.open("xb") as file:
            shutil.copyfileobj(content, file, COPY_BYTES)
        path.chmod(entry.mode & 0o777 | 0o600)
    else:
        raise PodError(f"the archive's entry {entry.name!r} is a device or a pipe")


def unpack_zip(file: Path, folder: Path, budget: UnpackBudget) -> None:
    """Unpack a zip into the new folder `folder`; as in Argo, symbolic links become files."""
    folder.mkdir()
    try:
        with zipfile.ZipFile(file) as packed:
            for entry in packed.infolist():
                budget.spend(entry.file_size)
                path = _inside(folder, entry.filename)
                if entry.is_dir():
                    path.mkdir(parents=True, exist_ok=True)
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                with packed.open(entry) as content, path.open("xb") as out:
                    shutil.copyfileobj(content, out, COPY_BYTES)
                path.chmod(stat.S_IMODE(entry.external_attr >> 16) & 0o777 | 0o600)
    except (zipfile.BadZipFile, EOFError, RuntimeError) as error:
        raise PodError(f"the archive is damaged: {error}") from error


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
