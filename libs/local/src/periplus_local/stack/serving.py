"""The local Argo alone in a home of its own, with a store of its own unless another is named."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from periplus_local.argo import credential
from periplus_local.stack import argo, lock, ports, s3
from periplus_local.stack.argo import Argo
from periplus_local.stack.home import Home, locate
from periplus_local.stack.running import clean, print_change, supervised, until_signalled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from periplus_local.stack.bucket import Bucket
    from periplus_local.stack.part import OnChange


@dataclass(frozen=True)
class Alone:
    """What a person may choose of a local Argo that runs alone; nothing need be chosen.

    `home` is by default `argo` below $PERIPLUS_HOME, or below .periplus here; the port is a free one, the
    token is kept in the home, and the bucket is that of a store in the home.
    """

    home: str = ""
    port: int = 0
    token_file: str = ""
    bucket: Bucket | None = None

    def place(self) -> Home:
        """The home that is meant."""
        return locate(self.home or locate().path / "argo")


@dataclass(frozen=True)
class Serving:
    """A local Argo that answers."""

    home: Home
    argo: Argo


@asynccontextmanager
async def serving(chosen: Alone, on_change: OnChange = print_change) -> AsyncIterator[Serving]:
    """Run the local Argo for as long as the block lasts.

    Raises what `stack` raises, TokenError when the token's file cannot hold it, and PortTakenError.
    """
    home = chosen.place()
    home.create()
    with lock.held(home) as note:
        clean(home, on_change)
        served = Argo(_port(home, chosen.port), _token_file(home, chosen.token_file))
        if chosen.bucket:
            parts = [argo.part(home, served, chosen.bucket)]
        else:
            store = s3.store(home, ports.assign(_ports(home), s3.PORTS, above=s3.ABOVE))
            parts = [s3.part(home, store), argo.part(home, served, store.bucket, uses=("s3",))]
        async with supervised(home, parts, on_change, note):
            yield Serving(home, served)


def serve(
    chosen: Alone,
    on_change: OnChange = print_change,
    on_ready: Callable[[Serving], None] | None = None,
) -> None:
    """Run the local Argo until SIGINT, SIGTERM or SIGHUP, then stop it in order and return.

    A second signal kills what is left. Raises what `serving` raises.
    """
    until_signalled(chosen.place(), serving(chosen, on_change), on_ready)


def _ports(home: Home) -> Path:
    return home.run / "ports.json"


def _port(home: Home, wanted: int) -> int:
    if not wanted:
        return ports.assign(_ports(home), ("argo",))["argo"]
    ports.claim(_ports(home), "argo", wanted)
    return wanted


def _token_file(home: Home, wanted: str) -> Path:
    path = Path(wanted).expanduser().absolute() if wanted else home.secrets / "argo-token"
    credential.kept(path)
    return path
