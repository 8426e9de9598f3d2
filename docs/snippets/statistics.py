import trio

from trio_ws import ServerConnection, connect, open_server


async def echo(ws: ServerConnection) -> None:
    async for message in ws:
        await ws.send(message)


async def main() -> None:
    async with open_server(echo, 0, host="127.0.0.1") as server:
        uri = f"ws://127.0.0.1:{server.port}/"
        async with connect(uri, compression=None) as ws:
            await ws.send("Hello")
            await ws.recv()
            now = server.statistics()
            print(f"{now.connections} open, {now.opened} opened")
            size = now.bytes_received - 6 * now.messages_received  # without headers
            print(f"{now.messages_received} message of {size} bytes came")
    print("closed:", server.statistics().closed)


trio.run(main)
