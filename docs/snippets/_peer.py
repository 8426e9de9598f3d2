"""The server that the snippets talk to.

It prints its port. What it does with a connection is the path of its URI.
"""

import os
import signal

import trio

from trio_ws import ServerConnection, open_server


async def handler(ws: ServerConnection) -> None:
    match ws.request.path:
        case "/killed":
            await ws.send("hello")
            os.kill(os.getpid(), signal.SIGKILL)
        case "/stopped":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "/restart":
            await ws.aclose(1001, "restart")
        case "/greet":
            await ws.send("hello")
            await ws.wait_closed()
        case _:
            async for message in ws:
                await ws.send(message)


async def main() -> None:
    async with open_server(handler, 0, host="127.0.0.1") as server:
        print(server.port, flush=True)
        await trio.sleep_forever()


trio.run(main)
