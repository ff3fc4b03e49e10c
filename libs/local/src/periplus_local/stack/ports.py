"""The loopback ports of a stack: chosen among the free ones, recorded, and used again after a restart."""

from __future__ import annotations

import json
import secrets
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from periplus_local.stack.home import write_private_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

LOOPBACK = "127.0.0.1"
_ATTEMPTS = 100
_LOWEST_PORT = 10_240
_OUTGOING_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")

_DEFAULT_FIRST_OUTGOING = 32_768  # Linux'; other systems' are higher


class NoPortError(OSError):
    """No suitable free port was found."""


class PortTakenError(Exception):
    """The requested port can not be used; the message says why."""


def assign(
    path: Path, names: Iterable[str], above: Mapping[str, tuple[str, int]] | None = None
) -> dict[str, int]:
    """Assign each name a port of its own and record the ports in `path`.

    A port that is recorded in `path` is used again if it is free. `above` maps a name to another name and a distance:
    its port is the other's plus the distance. All are bound until the last one is chosen, so that no two
    names get the same. Raises NoPortError.
    """
    previous = recorded(path)
    partners = {of: (name, distance) for name, (of, distance) in (above or {}).items()}
    ports: dict[str, int] = {}
    with ExitStack() as held:
        for name in names:
            if name in ports:
                continue
            partner, distance = partners.get(name, ("", 0))
            taken = {other for owner, other in previous.items() if owner != name} | set(ports.values())
            port = _choose(held, previous.get(name, 0), distance, taken)
            ports[name] = port
            if partner:
                ports[partner] = port + distance
    write_private_json(path, previous | ports)
    return ports


def claim(path: Path, name: str, port: int) -> None:
    """Assign a name this port and record it in `path`. Raises PortTakenError."""
    with ExitStack() as held:
        try:
            _listen(held, port)
        except OSError as error:
            raise PortTakenError(
                f"port {port} on {LOOPBACK}: {error.strerror}; choose another --port, or leave it out"
            ) from error
    write_private_json(path, recorded(path) | {name: port})


def recorded(path: Path) -> dict[str, int]:
    """The ports that were last recorded; none if the file is missing or damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {str(name): port for name, port in found.items() if isinstance(port, int)}


def _choose(held: ExitStack, wanted: int, distance: int, taken: set[int]) -> int:
    """Bind the wanted port, or any free one, and the port at the distance, if that is not 0. Returns the first."""
    # Below the range that the system takes ports for outgoing connections from: one of that range
    # could be taken by any connection between now and the start of the server.
    choices = _first_outgoing() - distance - _LOWEST_PORT
    for attempt in range(_ATTEMPTS):
        chosen = wanted if wanted and attempt == 0 else _LOWEST_PORT + secrets.randbelow(choices)
        if {chosen, chosen + distance} & taken:
            continue
        with ExitStack() as tried:
            try:
                port = _listen(tried, chosen)
                if distance:
                    _listen(tried, port + distance)
            except (OSError, OverflowError):
                continue
            held.push(tried.pop_all())
            return port
    raise NoPortError(f"no free port on {LOOPBACK} after {_ATTEMPTS} attempts")


def _first_outgoing() -> int:
    """The lowest port that the system uses for outgoing connections; the default where it uses nearly all."""
    try:
        first = int(_OUTGOING_RANGE.read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return _DEFAULT_FIRST_OUTGOING
    return first if first >= 3 * _LOWEST_PORT else _DEFAULT_FIRST_OUTGOING


def _listen(held: ExitStack, port: int) -> int:
    listener = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
    # As servers do: closed connections of the last run in TIME_WAIT do not keep the port from being bound.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((LOOPBACK, port))
    listener.listen(1)
    return int(listener.getsockname()[1])
