"""Handlers that many tests of servers use."""

from __future__ import annotations

import trio
import trio.lowlevel
import trio.testing

from trio_ws import ServerConnection


async def echo(ws: ServerConnection) -> None:
    async for message in ws:
        await ws.send(message)


async def wait(ws: ServerConnection) -> None:
    await ws.wait_closed()


async def stubborn(ws: ServerConnection) -> None:
    await trio.sleep_forever()
