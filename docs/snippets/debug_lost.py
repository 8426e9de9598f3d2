import logging

import trio

from trio_ws import ConnectionClosed, connect

logging.basicConfig(format="%(name)s %(message)s", level=logging.DEBUG)


async def main() -> None:
    try:
        async with connect("ws://127.0.0.1:8765/killed") as ws:
            async for message in ws:
                print(message)
    except ConnectionClosed as exc:
        print(exc)


trio.run(main)
