"""The addresses of the services and the token: from the environment, or from the file that `periplus up` writes."""

from __future__ import annotations

import fcntl
import json
import os
import stat
from contextlib import ExitStack
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

FILE = "client.json"
_MAX_BYTES = 64 << 10
_FOR_OTHERS = 0o077


class NotConnectedError(Exception):
    """The addresses of the services are not configured.

    `missing`: no stack runs here; else its `client.json` cannot be used or lacks an address.
    """

    def __init__(self, what: str, *, where: str, fix: str, missing: bool) -> None:
        super().__init__(f"{where}: {what}")
        self.what = what
        self.where = where
        self.fix = fix
        self.missing = missing


@dataclass(frozen=True)
class Connection:
    """The services' addresses (host:port or unix:/path), the token for them, the project to work in, and the NATS URL of events
    with the file of the authorities that its server's certificate is verified by, which only subscribers need.
    """

    dispatcher: str
    cache: str
    snapshotter: str
    lineage: str
    token: str
    project: str = "default"
    events: str = ""
    events_ca_file: str = ""


def connection(environment: Mapping[str, str] = os.environ, *, project: str = "") -> Connection:
    """The configured connection: each of PERIPLUS_DISPATCHER, _CACHE, _SNAPSHOTTER, _LINEAGE, _TOKEN,
    _PROJECT, _EVENTS and _EVENTS_CA_FILE if it is set, the rest from `client.json` in $PERIPLUS_HOME, or in .periplus here.

    The file is believed only if the home is this user's alone, and while the process that wrote it holds the home: an address
    from anywhere else would receive what is sent. `project` overrides both. Raises NotConnectedError.
    """
    names = [field.name for field in fields(Connection)]
    needed = {field.name for field in fields(Connection) if field.default is MISSING}
    values = {name: environment.get(f"PERIPLUS_{name.upper()}", "") for name in names}
    values = {name: value for name, value in values.items() if value}
    if project:
        values["project"] = project
    home = Path(environment.get("PERIPLUS_HOME") or ".periplus").expanduser()
    if not needed <= values.keys():
        values = _read(home) | values
    missing = sorted(needed - values.keys())
    if missing:
        raise NotConnectedError(
            f"has no {', '.join(missing)}", where=str(home / FILE), fix="periplus up --detach", missing=False
        )
    return Connection(**{name: values[name] for name in names if name in values})


def _read(home: Path) -> dict[str, str]:
    """The settings that the process which holds the home wrote."""

    def refused(what: str, *, missing: bool = False) -> NotConnectedError:
        return NotConnectedError(what, where=str(home / FILE), fix="periplus up --detach", missing=missing)

    try:
        with ExitStack() as opened:
            folder = _open(opened, str(home), os.O_DIRECTORY)
            file = _open(opened, FILE, os.O_NONBLOCK, folder)
            lock = _open(opened, "lock", os.O_NONBLOCK, _open(opened, "run", os.O_DIRECTORY, folder))
            if not _is_held(lock):
                raise refused("no stack runs here", missing=True)
            holder = os.read(lock, _MAX_BYTES).decode("ascii")
            document = json.loads(os.read(file, _MAX_BYTES))
    except FileNotFoundError:
        raise refused("no stack was started here", missing=True) from None
    except (OSError, ValueError, RecursionError) as error:
        raise refused(f"cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise refused("is not a JSON object")
    if not holder or document.get("lock") != holder:
        raise refused("was not written by the stack that runs here")
    return {str(name): value for name, value in document.items() if isinstance(value, str)}


def _open(opened: ExitStack, path: str, flags: int, folder: int | None = None) -> int:
    """A descriptor of a file or folder that is this user's alone. Raises OSError for any other."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | flags, dir_fd=folder)
    opened.callback(os.close, descriptor)
    status = os.fstat(descriptor)
    if status.st_uid != os.geteuid():
        raise PermissionError(f"{path} belongs to user {status.st_uid}")
    if status.st_mode & _FOR_OTHERS:
        raise PermissionError(f"{path} is open to others (mode {stat.S_IMODE(status.st_mode):04o})")
    if not flags & os.O_DIRECTORY and not stat.S_ISREG(status.st_mode):
        raise PermissionError(f"{path} is no file")
    return descriptor


def _is_held(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False
