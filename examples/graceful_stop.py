"""A server that stops in good order on SIGTERM, Ctrl+C or Ctrl+Break.

No new connections; those that are open are closed with 1001 (going away), and
handlers have 5 seconds to end. A second signal cancels them at once.
"""

import trio

from trio_ws import ServerConnection, open_server


async def echo(ws: ServerConnection) -> None:
    try:
        async for message in ws:
            await ws.send(message)
    finally:
        print("a handler has ended")


async def main() -> None:
    async with open_server(echo, 8765) as server:
        print("serving", flush=True)
        await server.aclose_on_signal(timeout=5)
    print("stopped")


trio.run(main)
