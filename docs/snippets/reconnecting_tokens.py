import itertools

import trio

from trio_ws import ServerConnection, open_server, reconnect

numbers = itertools.count(1)


async def fresh_token() -> dict[str, str]:
    # A client would ask a server for one here.
    return {"Authorization": f"token {next(numbers)}"}


async def greet(ws: ServerConnection) -> None:
    await ws.send(ws.request.headers["Authorization"])


async def main() -> None:
    async with open_server(greet, 0, host="127.0.0.1") as server:
        async for attempt in reconnect(
            f"ws://127.0.0.1:{server.port}/",
            additional_headers=fresh_token,
            reconnect_delays=lambda: itertools.repeat(0),
        ):
            async with attempt as ws:
                said = await ws.recv()
                print(said)
                if said == "token 2":
                    break


trio.run(main)
