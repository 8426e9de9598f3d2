# shown:
import trio

from trio_ws import ServerConnection, connect, serve
from trio_ws.testing import MemoryNetwork


async def shout(ws: ServerConnection) -> None:  # what is tested
    async for message in ws:
        await ws.send(str(message).upper())


async def test_shout() -> None:
    with MemoryNetwork():
        async with trio.open_nursery() as nursery:
            await nursery.start(serve, shout, 8000)
            async with connect("ws://localhost:8000/") as ws:
                await ws.send("hello")
                assert await ws.recv() == "HELLO"
            nursery.cancel_scope.cancel()


# end

if __name__ == "__main__":
    trio.run(test_shout)
