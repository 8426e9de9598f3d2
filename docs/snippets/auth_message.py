import trio

from trio_ws import ConnectionClosedError, ServerConnection, connect, open_server

TOKENS: dict[str | bytes, str] = {"6455": "alice"}


async def handler(ws: ServerConnection) -> None:
    user = None
    with trio.move_on_after(10):
        user = TOKENS.get(await ws.recv())
    if user is None:
        await ws.aclose(4401, "log in first")
        return
    await ws.send(f"hello, {user}")


async def main() -> None:
    async with open_server(handler, 0, host="127.0.0.1") as server:
        for token in "6455", "guessed":
            try:
                async with connect(f"ws://127.0.0.1:{server.port}/") as ws:
                    await ws.send(token)
                    print(await ws.recv())
            except ConnectionClosedError as exc:
                print(exc)


trio.run(main)
