"""The home of a stack: the directory of its data, run files, logs and secrets."""

from __future__ import annotations

import json
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from periplus_local.stack import seal
from periplus_local.stack.tracked import tracked

_PRIVATE = 0o700
_HOW_TO_CHOOSE = "(--home or PERIPLUS_HOME)"


class HomeError(Exception):
    """The home can not be used; the message says which path and what to do about it."""


class UntrustedHomeError(HomeError):
    """What is in place of the home was not made by this user on this machine, or others had access to it."""

    def __init__(self, path: Path, found: str) -> None:
        super().__init__(f"{path} is not trusted, and nothing in it is used: {found}")
        self.path = path


def locate(home: Path | str | None = None) -> Home:
    """The home: the argument, else $PERIPLUS_HOME, else .periplus in the working directory."""
    chosen = home or os.environ.get("PERIPLUS_HOME") or ".periplus"
    return Home(Path(chosen).expanduser().absolute())


@dataclass(frozen=True)
class Home:
    """Paths below one directory. Nothing is created before `create`."""

    path: Path

    @property
    def data(self) -> Path:
        """The servers' own files, which must survive a restart."""
        return self.path / "data"

    @property
    def run(self) -> Path:
        """Files about the running stack: lock, ports, records of processes, rendered settings."""
        return self.path / "run"

    @property
    def log(self) -> Path:
        """One log file per process."""
        return self.path / "log"

    @property
    def secrets(self) -> Path:
        """One file per secret, readable by the owner alone."""
        return self.path / "secrets"

    @property
    def client_settings(self) -> Path:
        """The file with the addresses and the token that the `periplus` command reads."""
        return self.path / "client.json"

    def create(self) -> None:
        """Make the directories, private to their owner, seal the home, and keep it out of git.

        Raises UntrustedHomeError for a home that this user did not make on this machine, and HomeError for a path that
        can not be made or is another user's.
        """
        with _home_errors(self.path):
            try:
                self.path.mkdir(mode=_PRIVATE, parents=True)
            except FileExistsError:
                self.check()
            if not (self.path / seal.FILE).exists():
                # Found empty: made private before anything is in it. What another user put there meanwhile is found.
                self.path.chmod(_PRIVATE)
                self.check()
                seal.write(self.path)
        for directory in self._folders:
            with _home_errors(directory):
                directory.mkdir(mode=_PRIVATE, exist_ok=True)
        ignore = self.path / ".gitignore"
        with _home_errors(ignore):
            if not ignore.exists():
                ignore.write_text("*\n", encoding="utf-8")
        self.check()
        with _home_errors(seal.home_list()):
            seal.remember(self.path)

    def check(self) -> None:
        """Raise UntrustedHomeError unless this user made the home on this machine, or there is none yet.

        Before it returns nothing that is in a home may be believed: it may be of a cloned repository or an archive, and name
        processes to end, files to remove and commands to run. Raises HomeError where that can not be found out.
        """
        with _home_errors(self.path):
            found = self.why_untrusted()
        if found:
            raise UntrustedHomeError(self.path, found)

    def why_untrusted(self) -> str:
        """Why the home is not trusted; empty if it is, or if there is nothing."""
        if not os.path.lexists(self.path):
            return ""
        if self.path.is_symlink():
            return f"it is a symbolic link to {self.path.readlink()}"
        if why := _not_private(self.path, modes=False):
            return why
        if not (self.path / seal.FILE).exists() and self._may_become_a_home():
            return ""
        if not seal.is_valid(self.path):
            return f"it has no valid {seal.FILE}, which `periplus up` writes for this user, this machine and this very folder"
        if why := next(filter(None, map(_not_private, self._private())), ""):
            return why
        if file := tracked(self.path):
            return f"git tracks {file}, so that a pull or a checkout may have changed what is in it"
        strangers = (path for path in self._entries() if path.lstat().st_uid != os.geteuid())
        return next((f"{path} belongs to user {path.lstat().st_uid}" for path in strangers), "")

    def _entries(self) -> Iterator[Path]:
        """What is in the home and in its folders, without what another user runs for root: PostgreSQL's."""
        for folder in self._private():
            for path in folder.iterdir():
                if os.geteuid() != 0 or not path.name.startswith("postgres"):
                    yield path

    def _may_become_a_home(self) -> bool:
        """Whether there is nothing but homes that are trusted, as in .periplus after `periplus argo serve`."""
        entries = list(self.path.iterdir())
        return all(entry.is_dir() and (entry / seal.FILE).exists() for entry in entries) and not any(
            Home(entry).why_untrusted() for entry in entries
        )

    @property
    def _folders(self) -> tuple[Path, ...]:
        return (self.data, self.run, self.log, self.secrets)

    def _private(self) -> Iterator[Path]:
        """The home and its folders, as far as they exist."""
        return (path for path in (self.path, *self._folders) if os.path.lexists(path))

    def move_aside(self) -> Path:
        """Rename a home that is not trusted, so that a new one can be made, and return where it is now.

        Nothing in it is read, run or removed. Raises HomeError where there is none, or where it is trusted.
        """
        if not os.path.lexists(self.path) or not self._is_untrusted():
            raise HomeError(f"{self.path} is no home from elsewhere, so there is nothing to move aside")
        when = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        aside = self.path.with_name(f"{self.path.name}.untrusted-{when}")
        with _home_errors(self.path):
            self.path.rename(aside)
        return aside

    def _is_untrusted(self) -> bool:
        try:
            self.check()
        except UntrustedHomeError:
            return True
        return False

    def trust(self) -> None:
        """Seal a home that came from elsewhere, such as a backup: whatever is in it is believed from now on.

        Its permissions are taken away from others. What it says about processes is of another time or machine, and is
        removed. Raises HomeError where there is no folder of this user's.
        """
        with _home_errors(self.path):
            if self.path.is_symlink() or not self.path.is_dir():
                raise HomeError(f"{self.path} is no folder")
            for path in self._private():
                if why := _not_private(path, modes=False):
                    raise HomeError(f"{path} can not be trusted: {why}")
            for path in self._private():
                path.chmod(_PRIVATE)
            for path in (self.client_settings, self.run / "processes.json", self.run / "holder.json"):
                path.unlink(missing_ok=True)
            seal.write(self.path)

    def secret(self, name: str) -> str:
        """The secret of that name (192 random bits, URL-safe); made at the first call."""
        path = self.secrets / name
        return path.read_text(encoding="utf-8") if path.exists() else self.new_secret(name)

    def new_secret(self, name: str) -> str:
        """A new secret in place of any of that name."""
        secret = secrets.token_urlsafe(24)
        write_private(self.secrets / name, secret)
        return secret


def _not_private(path: Path, *, modes: bool = True) -> str:
    """Why a directory is not this user's alone; empty if it is. Without `modes`, others may have permissions."""
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode):
        return f"{path} is no folder"
    if status.st_uid != os.geteuid():
        return f"{path} belongs to user {status.st_uid}, not to {os.geteuid()}"
    if modes and stat.S_IMODE(status.st_mode) & 0o077:
        return f"{path} is open to others (mode {stat.S_IMODE(status.st_mode):04o})"
    return ""


@contextmanager
def _home_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise HomeError(f"{path}: {error.strerror}; choose another home {_HOW_TO_CHOOSE}") from error
    except seal.KeyFileError as error:
        raise HomeError(str(error)) from error


def write_private(path: Path, text: str) -> None:
    """Replace a file atomically; it is readable by its owner alone."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    Path(name).replace(path)


def write_private_json(path: Path, value: object) -> None:
    """Replace a JSON file atomically; it is readable by its owner alone."""
    write_private(path, json.dumps(value, indent=2) + "\n")
