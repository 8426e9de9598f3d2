"""Say hello to the echo server."""

import trio

from trio_ws import connect


async def main() -> None:
    async with connect("ws://localhost:8765/") as ws:
        await ws.send("Hello!")
        print(await ws.recv())


trio.run(main)
