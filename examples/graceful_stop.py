"""A server that stops in good order on SIGTERM, Ctrl+C or Ctrl+Break.

No new connections; those that are open are closed with 1001 (going away), and
handlers have 5 seconds to end.
"""

import signal
import sys

import trio

from trio_ws import Server, ServerConnection, serve

if sys.platform == "win32":  # which has no SIGTERM that a program can catch
    SIGNALS = signal.SIGINT, signal.SIGBREAK
else:
    SIGNALS = signal.SIGINT, signal.SIGTERM


async def echo(ws: ServerConnection) -> None:
    try:
        async for message in ws:
            await ws.send(message)
    finally:
        print("a handler has ended")


async def main() -> None:
    with trio.open_signal_receiver(*SIGNALS) as signals:
        async with trio.open_nursery() as nursery:
            server: Server = await nursery.start(serve, echo, 8765)
            print("serving", flush=True)
            async for number in signals:
                print("stopping on", signal.Signals(number).name)
                break
            await server.aclose(timeout=5)
    print("stopped")


trio.run(main)
