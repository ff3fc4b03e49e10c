"""The home of a stack: the directory of its data, run files, logs and secrets."""

from __future__ import annotations

import json
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_PRIVATE = 0o700
_HOW_TO_CHOOSE = "(--home or PERIPLUS_HOME)"


class HomeError(Exception):
    """The home can not be used; the message says which path and what to do about it."""


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
        """Make the directories, private to their owner, and keep them out of git.

        Raises HomeError when a path can not be made or belongs to another user.
        """
        for directory in (self.path, self.data, self.run, self.log, self.secrets):
            with _home_errors(directory):
                directory.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
                owner = directory.stat().st_uid
                if owner != os.geteuid():
                    raise HomeError(
                        f"{directory} belongs to user {owner}, not to {os.geteuid()}: "
                        f"choose a directory of your own {_HOW_TO_CHOOSE}"
                    )
                directory.chmod(_PRIVATE)
        ignore = self.path / ".gitignore"
        with _home_errors(ignore):
            if not ignore.exists():
                ignore.write_text("*\n", encoding="utf-8")

    def secret(self, name: str) -> str:
        """The secret of that name (192 random bits, URL-safe); made at the first call."""
        path = self.secrets / name
        return path.read_text(encoding="utf-8") if path.exists() else self.new_secret(name)

    def new_secret(self, name: str) -> str:
        """A new secret in place of any of that name."""
        secret = secrets.token_urlsafe(24)
        write_private(self.secrets / name, secret)
        return secret


@contextmanager
def _home_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise HomeError(f"{path}: {error.strerror}; choose another home {_HOW_TO_CHOOSE}") from error


def write_private(path: Path, text: str) -> None:
    """Replace a file atomically; it is readable by its owner alone."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    Path(name).replace(path)


def write_private_json(path: Path, value: object) -> None:
    """Replace a JSON file atomically; it is readable by its owner alone."""
    write_private(path, json.dumps(value, indent=2) + "\n")
