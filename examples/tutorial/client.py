"""A client for the terminal: sends what you type, shows what comes.

python client.py ws://127.0.0.1:8000/rooms/tea
"""

import sys

import trio

from trio_ws import ClientConnection, ConnectionClosed, connect


async def show(ws: ClientConnection) -> None:
    try:
        async for line in ws:
            print(line)
    except ConnectionClosed:
        pass  # refused or lost, as is said below
    await ws.wait_closed()
    print("closed:", ws.close_code, ws.close_reason, "- press Return")


async def main(uri: str) -> None:
    try:
        async with connect(uri) as ws:
            ws.nursery.start_soon(show, ws)
            async for line in trio.wrap_file(sys.stdin):
                await ws.send(line.rstrip("\n"))
            await ws.aclose()
    except ConnectionClosed:
        pass  # show() has said so


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
