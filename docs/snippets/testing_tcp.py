# shown:
import trio

from trio_ws import ServerConnection, connect, open_server


async def shout(ws: ServerConnection) -> None:  # what is tested
    async for message in ws:
        await ws.send(str(message).upper())


async def test_shout_over_tcp() -> None:
    async with open_server(shout, 0, host="127.0.0.1") as server:
        async with connect(f"ws://127.0.0.1:{server.port}/") as ws:
            await ws.send("hello")
            assert await ws.recv() == "HELLO"


# end

if __name__ == "__main__":
    trio.run(test_shout_over_tcp)
