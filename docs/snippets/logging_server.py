import logging

import trio

from trio_ws import ServerConnection, connect, open_server

logging.basicConfig(format="%(levelname)s %(name)s %(message)s", level=logging.INFO)


async def echo(ws: ServerConnection) -> None:
    async for message in ws:
        ws.logger.info("echo of %r", message)
        await ws.send(message)


async def main() -> None:
    async with open_server(echo, 0, host="127.0.0.1") as server:
        async with connect(f"ws://127.0.0.1:{server.port}/") as ws:
            await ws.send("hello")
            await ws.recv()


trio.run(main)
