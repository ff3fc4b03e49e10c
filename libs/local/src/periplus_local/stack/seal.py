"""The seal of a home: shows that this user made this very folder on this machine.

It is an HMAC over what no clone, archive, copy or backup of the folder has, the inode, with a key that only this user has,
outside of every project: `periplus/home.key` in $XDG_STATE_HOME, by default ~/.local/state. A folder that is renamed
keeps its seal.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import hmac
import json
import os
import secrets
import stat
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

FILE = "seal"
_VERSION = 1
_KEY_BYTES = 32
_MAX_SEAL_BYTES = 200
_FOR_OTHERS = 0o077
_MACHINE_ID = Path("/etc/machine-id")
_FS_IOC_GETVERSION = 0x80087601
"""Linux: asks for the generation of an inode, which changes when its number is used again for another file."""


class KeyFileError(Exception):
    """The key can not be read or made; the message names the file, the reason, and the fix."""


def write(folder: Path) -> None:
    """Seal a folder. Raises KeyFileError, and OSError where the folder can not be written."""
    expected = _expected(folder, _read_or_make_key())
    descriptor, name = tempfile.mkstemp(dir=folder, prefix=f".{FILE}.")
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(expected)
    Path(name).replace(folder / FILE)


def is_valid(folder: Path) -> bool:
    """Whether the folder has the seal that `write` gave this very folder. Raises KeyFileError."""
    found = _read_private(folder / FILE, _MAX_SEAL_BYTES)
    key = _read_key() if found else None
    if not found or key is None:
        return False
    return hmac.compare_digest(found, _expected(folder, key).encode())


def key_file() -> Path:
    """Where the key is. Raises KeyFileError where the user has no home directory."""
    configured = Path(os.environ.get("XDG_STATE_HOME", ""))
    try:
        # As XDG has it: a relative path is ignored. It would depend on the project that the command runs in.
        state = configured if configured.is_absolute() else Path.home() / ".local" / "state"
    except RuntimeError as error:
        raise KeyFileError(f"{error}; set XDG_STATE_HOME to a folder of your own") from error
    return state / "periplus" / "home.key"


def state_folders() -> tuple[Path, ...]:
    """Where keys of this user's homes are: the folder that is configured, and the default. Raises KeyFileError."""
    folders = [key_file().parent]
    with suppress(RuntimeError):  # a user without a home directory has no default
        folders.append(Path.home() / ".local" / "state" / "periplus")
    return tuple(dict.fromkeys(folders))


def home_list() -> Path:
    """The folder with a file for each home that this user ran, which holds its path. Raises KeyFileError."""
    return key_file().parent / "homes"


def remember(home: Path) -> None:
    """Add a home to the list, and remove those that are gone: steps of one home do not see the others. Raises OSError."""
    listed = home_list()
    listed.mkdir(mode=0o700, exist_ok=True)
    for file in listed.iterdir():
        with suppress(OSError):
            if not Path(file.read_text(encoding="utf-8", errors="surrogateescape")).is_dir():
                file.unlink()
    file = listed / hashlib.sha256(os.fsencode(home)).hexdigest()
    if not file.exists():
        file.write_text(str(home), encoding="utf-8", errors="surrogateescape")


def _expected(folder: Path, key: bytes) -> str:
    machine = _MACHINE_ID.read_text(encoding="utf-8").strip() if _MACHINE_ID.is_file() else ""
    # Not the device: its number may be another one after each start of the machine.
    sealed = [_VERSION, machine, os.geteuid(), *_inode(folder)]
    return f"{_VERSION} {hmac.digest(key, json.dumps(sealed).encode(), 'sha256').hex()}\n"


def _inode(folder: Path) -> tuple[int, str]:
    """The folder's inode number, and what tells it apart from a later folder with that number, where the system says it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        status = os.fstat(descriptor)
        if sys.platform == "darwin":
            return status.st_ino, str(status.st_birthtime)
        generation = bytes(8)
        with suppress(OSError):  # of a file system that counts no generations
            generation = fcntl.ioctl(descriptor, _FS_IOC_GETVERSION, generation)
        return status.st_ino, generation.hex()
    finally:
        os.close(descriptor)


def _read_or_make_key() -> bytes:
    key = _read_key()
    if key is not None:
        return key
    path = key_file()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
        try:
            with suppress(FileExistsError):  # another process was faster, and its key counts
                os.link(name, path)
        finally:
            Path(name).unlink()
    except OSError as error:
        raise _unusable(path, error) from error
    made = _read_key()
    if made is None:
        raise KeyFileError(f"the key of your homes, {path}, was removed while it was made; start again")
    return made


def _read_key() -> bytes | None:
    """The key; None if none was made yet. Raises KeyFileError for one that others could know."""
    path = key_file()
    try:
        folder = path.parent.lstat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unusable(path, error) from error
    if folder.st_uid != os.geteuid() or folder.st_mode & _FOR_OTHERS or not stat.S_ISDIR(folder.st_mode):
        raise KeyFileError(
            f"{path.parent} is not a folder of yours alone: chown {os.geteuid()} and chmod 700 it"
        )
    if not path.exists() and not path.is_symlink():
        return None
    key = _read_private(path, _KEY_BYTES)
    if key is None or len(key) != _KEY_BYTES:
        raise KeyFileError(
            f"the key of your homes, {path}, is not a file of {_KEY_BYTES} bytes that is yours alone: remove it, and a new "
            "one is made; homes from before are not trusted then"
        )
    return key


def _unusable(path: Path, error: OSError) -> KeyFileError:
    return KeyFileError(
        f"the key of your homes, {path}: {error.strerror}; set XDG_STATE_HOME to a folder of your own that can be "
        "written and is in no project"
    )


def _read_private(path: Path, max_bytes: int) -> bytes | None:
    """The content of a file of this user's that nobody else can read; None if it is anything else."""
    try:
        # Not blocking: a pipe without a writer would be waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.EACCES, errno.ENXIO, errno.EMLINK):
            return None
        raise
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        private = status.st_uid == os.geteuid() and not status.st_mode & _FOR_OTHERS
        if not (stat.S_ISREG(status.st_mode) and private):
            return None
        found = file.read(max_bytes + 1)
    return found if len(found) <= max_bytes else None
