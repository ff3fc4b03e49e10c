"""Serves gRPC until its standard input ends; prints the port. For tests that limit its descriptors."""

import asyncio
import sys

from periplus_common import rpc


async def main() -> None:
    async with rpc.serving("127.0.0.1:0", "token", names=[]) as port:
        print(port, flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
