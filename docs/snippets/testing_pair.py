# shown:
import trio

from trio_ws import Connection
from trio_ws.testing import open_pair


async def shout(ws: Connection) -> None:  # what is tested
    async for message in ws:
        await ws.send(str(message).upper())


async def test_shout() -> None:
    async with open_pair() as (client, server):
        server.nursery.start_soon(shout, server)
        await client.send("hello")
        assert await client.recv() == "HELLO"
        await client.aclose()


# end

if __name__ == "__main__":
    trio.run(test_shout)
