"""Echo every message, as the Autobahn fuzzing client expects of a server.

python echo_server.py PORT listens on 127.0.0.1 until it is stopped.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from trio_ws import ConnectionClosed, serve

if TYPE_CHECKING:
    from trio_ws import ServerConnection

# 9.* send messages of up to 16 MiB.
MAX_SIZE = 2**25


async def echo(ws: ServerConnection) -> None:
    with suppress(ConnectionClosed):  # what the suite provokes is no failure here
        async for message in ws:
            await ws.send(message)


async def main(port: int) -> None:
    await serve(echo, port, host="127.0.0.1", max_size=MAX_SIZE)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        trio.run(main, int(sys.argv[1]))
