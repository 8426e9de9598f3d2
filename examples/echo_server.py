"""Send every message back, until Ctrl+C or SIGTERM."""

import trio

from trio_ws import ServerConnection, open_server


async def echo(ws: ServerConnection) -> None:
    async for message in ws:
        await ws.send(message)


async def main() -> None:
    async with open_server(echo, 8765) as server:
        await server.aclose_on_signal()


trio.run(main)
