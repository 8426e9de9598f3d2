import signal

import trio

from trio_ws import ServerConnection, connect, open_server

told: list[int | None] = []


async def handler(ws: ServerConnection) -> None:
    await ws.send("hello")
    await ws.wait_closed()
    told.append(ws.close_code)


async def follow(uri: str) -> None:
    async with connect(uri) as ws:
        async for message in ws:
            print(message)
            signal.raise_signal(signal.SIGINT)  # what Ctrl+C does


async def main() -> None:
    async with open_server(handler, 0, host="127.0.0.1") as server:
        try:
            await follow(f"ws://127.0.0.1:{server.port}/")
        finally:
            await server.aclose()  # lets the handler end


# Python does so itself, unless a shell has started it with &.
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    trio.run(main)
except KeyboardInterrupt:
    print("bye; the server was told", *told)
