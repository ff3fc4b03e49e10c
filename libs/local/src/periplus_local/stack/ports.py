"""The loopback ports of a stack: chosen free, remembered, and taken again after a restart."""

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
_LOWEST = 10_240
_OUTGOING = Path("/proc/sys/net/ipv4/ip_local_port_range")


class NoPortError(OSError):
    """No free port was found that suits."""


class PortTakenError(Exception):
    """The port that was asked for cannot be had; the message says why."""


def assign(
    path: Path, names: Iterable[str], above: Mapping[str, tuple[str, int]] | None = None
) -> dict[str, int]:
    """Give each name a port of its own and write them to `path`.

    A port that `path` remembers is taken again if it is free. `above` names ports that must lie a
    fixed distance above another's. All are held open until the last one is chosen, so that no two
    names get the same. Raises NoPortError.
    """
    remembered = recorded(path)
    partners = {of: (name, distance) for name, (of, distance) in (above or {}).items()}
    ports: dict[str, int] = {}
    with ExitStack() as held:
        for name in names:
            if name in ports:
                continue
            partner, distance = partners.get(name, ("", 0))
            taken = {other for known, other in remembered.items() if known != name} | set(ports.values())
            port = _choose(held, remembered.get(name, 0), distance, taken)
            ports[name] = port
            if partner:
                ports[partner] = port + distance
    write_private_json(path, remembered | ports)
    return ports


def claim(path: Path, name: str, port: int) -> None:
    """Give a name the very port that was asked for, and write it to `path`. Raises PortTakenError."""
    with ExitStack() as held:
        try:
            _listen(held, port)
        except OSError as error:
            raise PortTakenError(
                f"port {port} on {LOOPBACK}: {error.strerror}; choose another --port, or leave it out"
            ) from error
    write_private_json(path, recorded(path) | {name: port})


def recorded(path: Path) -> dict[str, int]:
    """The ports that were last assigned; none if the file is missing or damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {str(name): port for name, port in found.items() if isinstance(port, int)}


def _choose(held: ExitStack, wanted: int, distance: int, taken: set[int]) -> int:
    """Hold the wanted port, or any free one, and its partner at a distance, if it has one."""
    # Of the ports below those that outgoing connections are given: between now and the start of a
    # server, any connection on this machine could be given one of the others.
    room = _first_outgoing() - distance - _LOWEST
    for attempt in range(_ATTEMPTS):
        chosen = wanted if wanted and attempt == 0 else _LOWEST + secrets.randbelow(room)
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
    """The lowest port that the system gives to outgoing connections; where it gives nearly all, the usual one."""
    try:
        first = int(_OUTGOING.read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return 32_768  # no system's is lower by default
    return first if first >= 3 * _LOWEST else 32_768


def _listen(held: ExitStack, port: int) -> int:
    listener = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
    # As servers do: connections of the last run that linger do not make a port taken.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((LOOPBACK, port))
    listener.listen(1)
    return int(listener.getsockname()[1])
