import trio

from trio_ws import ServerConnection, connect, open_server


async def echo(ws: ServerConnection) -> None:
    async for message in ws:
        await ws.send(message)


async def main() -> None:
    async with open_server(echo, 0, host="127.0.0.1") as server:
        async with connect(f"ws://127.0.0.1:{server.port}/") as ws:
            await ws.send("Hello!")
            print(await ws.recv())


trio.run(main)
