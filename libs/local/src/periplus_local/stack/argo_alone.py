"""`periplus argo serve`: the local Argo alone in a home of its own, with a store of its own unless another is named."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from periplus_local.argo.token_file import read_or_create
from periplus_local.stack import argo, lock, ports, s3
from periplus_local.stack.argo import Argo
from periplus_local.stack.foreground import end_orphans, print_change, supervised, until_signalled
from periplus_local.stack.home import Home, locate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from periplus_local.stack.bucket import Bucket
    from periplus_local.stack.process import OnChange


@dataclass(frozen=True)
class ArgoOptions:
    """The options of a local Argo that runs alone.

    By default its home is the folder `argo` in $PERIPLUS_HOME or in .periplus, its port a free one, its token file
    one in the home, and its bucket that of a store in the home.
    """

    home: str = ""
    port: int = 0
    token_file: str = ""
    bucket: Bucket | None = None

    def located_home(self) -> Home:
        """The home."""
        return locate(self.home or locate().path / "argo")


@dataclass(frozen=True)
class ServedArgo:
    """A local Argo that is ready."""

    home: Home
    argo: Argo


@asynccontextmanager
async def serving(options: ArgoOptions, on_change: OnChange = print_change) -> AsyncIterator[ServedArgo]:
    """Run the local Argo until the block ends.

    Raises what `stack` raises, TokenError when the token's file can not be used, and PortTakenError.
    """
    home = options.located_home()
    home.create()
    with lock.held(home) as publish:
        end_orphans(home, on_change)
        server = Argo(_port(home, options.port), _token_file(home, options.token_file))
        if options.bucket:
            specs = [argo.spec(home, server, options.bucket)]
        else:
            store = s3.store(home, ports.assign(_ports(home), s3.PORTS, above=s3.ABOVE))
            specs = [
                s3.spec(home, store),
                argo.spec(home, server, store.bucket_of("argo"), stops_before=("s3",)),
            ]
        async with supervised(home, specs, on_change, publish):
            yield ServedArgo(home, server)


def serve(
    options: ArgoOptions,
    on_change: OnChange = print_change,
    on_ready: Callable[[ServedArgo], None] | None = None,
) -> None:
    """Run the local Argo until SIGINT, SIGTERM or SIGHUP, then stop it in order and return.

    A second signal kills the processes that still run. Raises what `serving` raises.
    """
    until_signalled(options.located_home(), serving(options, on_change), on_ready)


def _ports(home: Home) -> Path:
    return home.run / "ports.json"


def _port(home: Home, wanted: int) -> int:
    if not wanted:
        return ports.assign(_ports(home), ("argo",))["argo"]
    ports.claim(_ports(home), "argo", wanted)
    return wanted


def _token_file(home: Home, wanted: str) -> Path:
    """The file with the token: that of the user as it is, or one in the home with a new token."""
    if wanted:
        path = Path(wanted).expanduser().absolute()
    else:
        path = home.secrets / "argo-token"
        path.unlink(missing_ok=True)
    read_or_create(path)
    return path
