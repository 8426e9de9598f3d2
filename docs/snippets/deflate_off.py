import os

import trio

from trio_ws import ServerConnection, connect, open_server


async def echo(ws: ServerConnection) -> None:
    async for message in ws:
        # Compressed already, like most images: not worth the time.
        await ws.send(message, compress=False)


async def main() -> None:
    async with open_server(echo, 0, host="127.0.0.1") as server:
        uri = f"ws://127.0.0.1:{server.port}/"
        async with connect(uri, compression=None) as ws:
            image = os.urandom(1000)
            await ws.send(image)
            assert await ws.recv() == image
            assert ws.response is not None
            print("agreed on:", ws.response.headers.get("Sec-WebSocket-Extensions"))


trio.run(main)
