import logging

import trio

from trio_ws import connect

logging.basicConfig(format="%(name)s %(message)s", level=logging.DEBUG)


async def main() -> None:
    async with connect("ws://127.0.0.1:8765/") as ws:
        await ws.send("Hello")
        await ws.recv()
        await ws.ping()


trio.run(main)
