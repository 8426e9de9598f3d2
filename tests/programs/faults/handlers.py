"""What the servers do with a connection, by the path that was asked for."""

from __future__ import annotations

import os
import struct
from collections import Counter
from time import perf_counter
from typing import Any

import trio


class Handling:
    """Handlers of either library, and what they have seen.

    ``seen`` counts: ``open`` (connections now), ``opened``, ``messages``, and how
    handlers have ended, by the name of the exception.
    """

    def __init__(self, seen: Counter[str]) -> None:
        self.seen = seen
        self.connections: set[Any] = set()

    async def handle(self, ws: Any) -> None:
        """Be the handler of a connection."""
        name = ws.request.path.partition("?")[0].strip("/")
        self.seen["open"] += 1
        self.seen["opened"] += 1
        self.connections.add(ws)
        try:
            await getattr(self, name)(ws)
        except BaseException as exc:
            self.seen[type(exc).__name__] += 1
            raise
        finally:
            self.connections.discard(ws)
            self.seen["open"] -= 1

    async def echo(self, ws: Any) -> None:
        async for message in ws:
            await ws.send(message)

    async def read(self, ws: Any) -> None:
        async for _ in ws:
            self.seen["messages"] += 1

    async def hold(self, ws: Any) -> None:
        """Receive nothing."""
        await trio.sleep_forever()

    async def once(self, ws: Any) -> None:
        """Receive one message, after that nothing."""
        await ws.recv()
        await trio.sleep_forever()

    async def audience(self, ws: Any) -> None:
        """Be one that broadcast() is for."""
        async for _ in ws:
            pass

    async def stuck(self, ws: Any) -> None:
        """Be one of them, whose socket takes little."""
        ws.socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_SNDBUF, 4096)
        await self.audience(ws)

    def broadcast(self, size: int) -> dict[str, int]:
        """Send all connections the time, and some bytes."""
        import trio_ws

        message = struct.pack("d", perf_counter()) + os.urandom(size)
        return {"skipped": len(trio_ws.broadcast(self.connections, message))}

    # What handlers shouldn't do

    async def raises(self, ws: Any) -> None:
        raise ZeroDivisionError("on purpose")

    async def leaks(self, ws: Any) -> None:
        """Leave a task behind that uses the connection."""

        async def left() -> None:
            try:
                await ws.recv()
            except Exception as exc:  # noqa: BLE001 - is what the row asks for
                self.seen[f"left: {type(exc).__name__}"] += 1

        trio.lowlevel.spawn_system_task(left)

    async def swallows(self, ws: Any) -> None:
        """Don't be cancelled."""
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            self.seen["swallowed"] += 1

    async def steals(self, ws: Any) -> None:
        """Close the descriptor behind the back of the library."""
        await ws.recv()
        os.close(ws.socket.fileno())
        await ws.recv()
