"""Where the services are and who asks: from the environment, or from the file that `periplus up` writes."""

from __future__ import annotations

import json
import os
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

FILE = "client.json"


class NotConnectedError(Exception):
    """Nobody said where the services are. `missing` is true where nothing was found, false where it is unreadable."""

    def __init__(self, what: str, *, where: str, fix: str, missing: bool) -> None:
        super().__init__(f"{where}: {what}")
        self.what = what
        self.where = where
        self.fix = fix
        self.missing = missing


@dataclass(frozen=True)
class Connection:
    """The services' addresses (host:port), the token that they ask for, the project to work in, and the NATS URL
    where events are heard, which only subscribers need.
    """

    dispatcher: str
    cache: str
    snapshotter: str
    lineage: str
    token: str
    project: str = "default"
    events: str = ""


def connection(environment: Mapping[str, str] = os.environ, *, project: str = "") -> Connection:
    """The connection that is meant: each of PERIPLUS_DISPATCHER, _CACHE, _SNAPSHOTTER, _LINEAGE, _TOKEN,
    _PROJECT and _EVENTS if it is set, the rest from `client.json` in $PERIPLUS_HOME, or in .periplus here.

    `project` goes before both. Raises NotConnectedError.
    """
    names = [field.name for field in fields(Connection)]
    needed = {field.name for field in fields(Connection) if field.default is MISSING}
    given = {name: environment.get(f"PERIPLUS_{name.upper()}", "") for name in names}
    given = {name: value for name, value in given.items() if value}
    if project:
        given["project"] = project
    file = Path(environment.get("PERIPLUS_HOME") or ".periplus").expanduser() / FILE
    if not needed <= given.keys():
        given = _read(file) | given
    missing = sorted(needed - given.keys())
    if missing:
        raise NotConnectedError(
            f"does not say {', '.join(missing)}", where=str(file), fix="periplus up --detach", missing=False
        )
    return Connection(**{name: given[name] for name in names if name in given})


def _read(file: Path) -> dict[str, str]:
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotConnectedError(
            "no stack was started here", where=str(file), fix="periplus up --detach", missing=True
        ) from None
    except (OSError, ValueError) as error:
        raise NotConnectedError(
            f"can not be read: {error}", where=str(file), fix="periplus up --detach", missing=False
        ) from error
    if not isinstance(told, dict):
        raise NotConnectedError(
            "is no JSON object", where=str(file), fix="periplus up --detach", missing=False
        )
    return {str(name): value for name, value in told.items() if isinstance(value, str)}
