"""Push to clients that may leave, without receiving anything from them.

A handler that only pushes makes no call while it has nothing to say, so nothing
tells it that its client has left. ``close_grace`` does: so many seconds after the
client closed the connection, the handler is cancelled. By default it isn't, since
a handler may have something to finish after a close in good order.
"""

import trio

from trio_ws import ServerConnection, connect, open_server


async def main() -> None:
    news, readers = trio.open_memory_channel[str](0)
    left = trio.Event()

    async def push(ws: ServerConnection) -> None:
        try:
            async for headline in readers:  # may be silent for hours
                await ws.send(headline)
        finally:
            print("the handler ends")
            left.set()

    async with open_server(push, 0, host="127.0.0.1", close_grace=0) as server:
        async with connect(f"ws://127.0.0.1:{server.port}/") as ws:
            await news.send("the only news of the day")
            print(await ws.recv())
        print("the client has left")
        await left.wait()  # without close_grace: for ever


trio.run(main)
