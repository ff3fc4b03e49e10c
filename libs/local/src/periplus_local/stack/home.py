"""The one directory that holds everything of a stack: its data, run files, logs and secrets."""

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
_OTHERWISE = "(--home or PERIPLUS_HOME)"


class HomeError(Exception):
    """The home cannot be used; the message says which path and what to do about it."""


def locate(home: Path | str | None = None) -> Home:
    """The home that is meant: the argument, else $PERIPLUS_HOME, else .periplus here."""
    chosen = home or os.environ.get("PERIPLUS_HOME") or ".periplus"
    return Home(Path(chosen).expanduser().absolute())


@dataclass(frozen=True)
class Home:
    """Paths below one directory. Nothing is created before `create`."""

    path: Path

    @property
    def data(self) -> Path:
        """What must survive a restart: the servers' own files."""
        return self.path / "data"

    @property
    def run(self) -> Path:
        """What describes the running stack: lock, ports, recorded children, rendered settings."""
        return self.path / "run"

    @property
    def log(self) -> Path:
        """One log file per part."""
        return self.path / "log"

    @property
    def secrets(self) -> Path:
        """One file per secret, readable by the owner alone."""
        return self.path / "secrets"

    @property
    def client_settings(self) -> Path:
        """What the command line needs to speak to this stack: addresses and a token."""
        return self.path / "client.json"

    def create(self) -> None:
        """Make the directories, private to their owner, and keep them out of git.

        Raises HomeError when a path cannot be made or belongs to somebody else.
        """
        for directory in (self.path, self.data, self.run, self.log, self.secrets):
            with _usable(directory):
                directory.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
                owner = directory.stat().st_uid
                if owner != os.geteuid():
                    raise HomeError(
                        f"{directory} belongs to user {owner}, not to {os.geteuid()}: "
                        f"choose a directory of your own {_OTHERWISE}"
                    )
                directory.chmod(_PRIVATE)
        ignore = self.path / ".gitignore"
        with _usable(ignore):
            if not ignore.exists():
                ignore.write_text("*\n", encoding="utf-8")

    def secret(self, name: str) -> str:
        """The secret of that name, made at random (192 bits, URL-safe) when first asked for."""
        path = self.secrets / name
        if not path.exists():
            write_private(path, secrets.token_urlsafe(24))
        return path.read_text(encoding="utf-8")


@contextmanager
def _usable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise HomeError(f"{path}: {error.strerror}; choose another home {_OTHERWISE}") from error


def write_private(path: Path, text: str) -> None:
    """Replace a file as a whole, readable by its owner alone; no reader sees half of it."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    Path(name).replace(path)


def write_private_json(path: Path, value: object) -> None:
    """Replace a JSON file as a whole, readable by its owner alone."""
    write_private(path, json.dumps(value, indent=2) + "\n")
