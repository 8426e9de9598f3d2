"""A server whose socket systemd keeps, so that a restart refuses nobody.

To try it without a unit: systemd-socket-activate -l 8765 python systemd.py
"""

import logging
import os

import trio

from trio_ws import ServerConnection, open_server, open_systemd_listeners


async def echo(ws: ServerConnection) -> None:
    async for message in ws:
        await ws.send(f"{os.getpid()} says {message!s}")


async def main() -> None:
    async with open_server(
        echo,
        listeners=open_systemd_listeners(),
        max_connections=60_000,  # less than LimitNOFILE
    ) as server:
        # In all less than TimeoutStopSec.
        await server.aclose_on_signal(open_grace=2, timeout=20)


logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
trio.run(main)
