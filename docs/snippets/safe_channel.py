from collections.abc import AsyncGenerator

import trio

from trio_ws import connect


@trio.as_safe_channel
async def prices() -> AsyncGenerator[str | bytes, None]:
    async with connect("ws://127.0.0.1:8765/") as ws:
        for price in ("10", "11", "12"):
            await ws.send(price)
            yield await ws.recv()


async def main() -> None:
    async with prices() as feed:
        async for price in feed:
            print(price)
            if price == "11":
                break


trio.run(main)
