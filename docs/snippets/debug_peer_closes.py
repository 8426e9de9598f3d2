import logging

import trio

from trio_ws import connect

logging.basicConfig(format="%(name)s %(message)s", level=logging.DEBUG)


async def main() -> None:
    async with connect("ws://127.0.0.1:8765/restart") as ws:
        async for message in ws:
            print(message)


trio.run(main)
