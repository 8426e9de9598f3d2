"""Ask for a user name and a password, by HTTP Basic.

Over ws:// everybody on the way can read them: use it over TLS.
"""

import trio

from trio_ws import InvalidStatus, ServerConnection, basic_auth, connect, open_server


async def greet(ws: ServerConnection) -> None:
    await ws.send(f"hello, {ws.username}")


async def main() -> None:
    ask = basic_auth("greetings", credentials=("alice", "sesame"))
    async with open_server(greet, 0, host="127.0.0.1", process_request=ask) as server:
        where = f"127.0.0.1:{server.port}"
        async with connect(f"ws://alice:sesame@{where}/") as ws:
            print(await ws.recv())
        try:
            async with connect(f"ws://{where}/"):
                pass
        except InvalidStatus as exc:
            print(exc)
            print(exc.response.headers["WWW-Authenticate"])


trio.run(main)
