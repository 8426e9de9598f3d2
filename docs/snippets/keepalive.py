import logging

import trio

from trio_ws import connect

logging.basicConfig(format="%(name)s %(message)s", level=logging.DEBUG)


async def main() -> None:
    uri = "ws://127.0.0.1:8765/stopped"
    async with connect(uri, ping_interval=0.1, ping_timeout=0.1) as ws:
        print(await ws.recv())


trio.run(main)
