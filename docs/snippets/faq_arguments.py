import functools

import trio

from trio_ws import ServerConnection, connect, open_server


async def greet(ws: ServerConnection, *, greeting: str) -> None:
    await ws.send(f"{greeting}, {ws.request.headers['User-Agent']}")


async def main() -> None:
    handler = functools.partial(greet, greeting="welcome")
    async with open_server(handler, 0, host="127.0.0.1") as server:
        uri = f"ws://127.0.0.1:{server.port}/"
        async with connect(uri, user_agent_header="teapot") as ws:
            print(await ws.recv())


trio.run(main)
