"""`python -m periplus_local.argo`: serve until SIGINT or SIGTERM."""

import asyncio
import logging
import os
import signal
import sys

from periplus_common import private_process
from periplus_local.argo.app import app
from periplus_local.argo.settings import ArgoSettings
from periplus_local.argo.token_file import TokenError


async def serve() -> None:
    """Print the address and serve until a signal comes or the HTTP server ends."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    settings = ArgoSettings.read({**os.environ, **private_process.take(os.environ)})
    async with app(settings) as argo:
        sys.stdout.write(f"{argo.address}\n")
        sys.stdout.flush()
        stop = asyncio.create_task(stopped.wait())
        await asyncio.wait({stop, argo.serving}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()


def main() -> int:
    """The command; 1 when the server cannot start."""
    private_process.forbid_inspection()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        asyncio.run(serve())
    except (RuntimeError, OSError, TokenError) as error:
        sys.stderr.write(f"the local Argo cannot run: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
