import re

import trio

from trio_ws import InvalidStatus, ServerConnection, connect, open_server


async def handler(ws: ServerConnection) -> None:
    await ws.send("welcome")


async def main() -> None:
    async with open_server(
        handler,
        0,
        host="127.0.0.1",
        origins=["https://example.com", re.compile(r"https://\w+\.example\.com")],
    ) as server:
        uri = f"ws://127.0.0.1:{server.port}/"
        for origin in "https://chat.example.com", "https://example.org", None:
            try:
                async with connect(uri, origin=origin) as ws:
                    print(origin, "gets", await ws.recv())
            except InvalidStatus as exc:
                print(origin, "gets", exc.response.status_code)


trio.run(main)
