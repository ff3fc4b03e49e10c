"""The loopback ports of a stack: chosen free, remembered, and taken again after a restart."""

from __future__ import annotations

import json
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING

from periplus_local.stack.home import write_private_json

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

LOOPBACK = "127.0.0.1"


def assign(path: Path, names: Iterable[str]) -> dict[str, int]:
    """Give each name a port of its own and write them to `path`.

    A port that `path` remembers is taken again if it is free. All are held open until the last one
    is chosen, so that no two names get the same.
    """
    remembered = recorded(path)
    with ExitStack() as held:
        ports = {name: _hold(held, remembered.get(name, 0)) for name in names}
    write_private_json(path, remembered | ports)
    return ports


def recorded(path: Path) -> dict[str, int]:
    """The ports that were last assigned; none if the file is missing or damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {str(name): port for name, port in found.items() if isinstance(port, int)}


def _hold(held: ExitStack, wanted: int) -> int:
    """Bind the wanted port, or any free one if it is taken, until `held` is closed."""
    for port in (wanted, 0) if wanted else (0,):
        listener = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        # As servers do: connections of the last run that linger do not make a port taken.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOOPBACK, port))
            listener.listen(1)
        except OSError:
            if port == 0:
                raise
            continue
        return int(listener.getsockname()[1])
    raise AssertionError("unreachable: port 0 is always tried last")
