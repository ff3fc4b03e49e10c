"""The addresses of the services and the token: from the environment, or from the file that `periplus up` writes."""

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
    """The addresses of the services are not configured.

    `missing`: there is no `client.json`; else it cannot be read or lacks an address.
    """

    def __init__(self, what: str, *, where: str, fix: str, missing: bool) -> None:
        super().__init__(f"{where}: {what}")
        self.what = what
        self.where = where
        self.fix = fix
        self.missing = missing


@dataclass(frozen=True)
class Connection:
    """The services' addresses (host:port or unix:/path), the token for them, the project to work in, and the NATS URL of events,
    which only subscribers need.
    """

    dispatcher: str
    cache: str
    snapshotter: str
    lineage: str
    token: str
    project: str = "default"
    events: str = ""


def connection(environment: Mapping[str, str] = os.environ, *, project: str = "") -> Connection:
    """The configured connection: each of PERIPLUS_DISPATCHER, _CACHE, _SNAPSHOTTER, _LINEAGE, _TOKEN,
    _PROJECT and _EVENTS if it is set, the rest from `client.json` in $PERIPLUS_HOME, or in .periplus here.

    `project` overrides both. Raises NotConnectedError.
    """
    names = [field.name for field in fields(Connection)]
    needed = {field.name for field in fields(Connection) if field.default is MISSING}
    values = {name: environment.get(f"PERIPLUS_{name.upper()}", "") for name in names}
    values = {name: value for name, value in values.items() if value}
    if project:
        values["project"] = project
    file = Path(environment.get("PERIPLUS_HOME") or ".periplus").expanduser() / FILE
    if not needed <= values.keys():
        values = _read(file) | values
    missing = sorted(needed - values.keys())
    if missing:
        raise NotConnectedError(
            f"has no {', '.join(missing)}", where=str(file), fix="periplus up --detach", missing=False
        )
    return Connection(**{name: values[name] for name in names if name in values})


def _read(file: Path) -> dict[str, str]:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotConnectedError(
            "no stack was started here", where=str(file), fix="periplus up --detach", missing=True
        ) from None
    except (OSError, ValueError) as error:
        raise NotConnectedError(
            f"cannot be read: {error}", where=str(file), fix="periplus up --detach", missing=False
        ) from error
    if not isinstance(document, dict):
        raise NotConnectedError(
            "is not a JSON object", where=str(file), fix="periplus up --detach", missing=False
        )
    return {str(name): value for name, value in document.items() if isinstance(value, str)}
