"""Send every message back."""

import trio

from trio_ws import ServerConnection, serve


async def echo(ws: ServerConnection) -> None:
    async for message in ws:
        await ws.send(message)


trio.run(serve, echo, 8765)
