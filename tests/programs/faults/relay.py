"""A relay between two ends of TCP connections, with the weather of a bad network."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from tests.programs.rivals.adapters import HOST

HALF = 32 * 1024


@dataclass
class Weather:
    """How a link forwards."""

    latency: float = 0.0  # seconds
    piece: int = 0  # bytes to forward at once; 0: as they come
    truncate: int = -1  # bytes that are forwarded still, before the link ends


class Link:
    """A connection that is relayed."""

    def __init__(self, here: trio.SocketStream, there: trio.SocketStream) -> None:
        self.ends = here, there
        self.weather = Weather()
        self._going = trio.Event()
        self._going.set()

    def freeze(self) -> None:
        """Forward nothing, until thaw()."""
        self._going = trio.Event()

    def thaw(self) -> None:
        """Forward again."""
        self._going.set()

    def reset(self) -> None:
        """Let both ends have a reset."""
        for end in self.ends:
            linger = struct.pack("ii", 1, 0)
            with contextlib.suppress(OSError):  # closed already
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            end.socket.close()

    async def half_close(self) -> None:
        """Let both ends have an end of stream; what they send still has a reader."""
        for end in self.ends:
            with contextlib.suppress(OSError):
                end.socket.shutdown(socket.SHUT_WR)
            await trio.lowlevel.checkpoint()

    async def run(self) -> None:
        """Forward until both ends have ended."""
        here, there = self.ends
        async with here, there, trio.open_nursery() as nursery:
            nursery.start_soon(self._copy, here, there)
            nursery.start_soon(self._copy, there, here)

    async def _copy(self, source: trio.SocketStream, sink: trio.SocketStream) -> None:
        broken = (trio.BrokenResourceError, trio.ClosedResourceError)
        with contextlib.suppress(*broken):
            async for data in source:
                await self._going.wait()
                if self.weather.latency:
                    await trio.sleep(random.uniform(0, self.weather.latency))
                try:
                    await self._forward(bytes(data), sink)
                except broken:
                    continue  # half-closed, perhaps: what comes is thrown away
            await self._going.wait()
            await sink.send_eof()

    async def _forward(self, data: bytes, sink: trio.SocketStream) -> None:
        piece = self.weather.piece or len(data)
        for start in range(0, len(data), piece):
            part = data[start : start + piece]
            if self.weather.truncate >= 0:
                part = part[: self.weather.truncate]
                self.weather.truncate -= len(part)
            await sink.send_all(part)
            if self.weather.truncate == 0:
                self.reset()


class Relay:
    """Listens before a port, and keeps the links."""

    def __init__(
        self, port: int, on_link: Callable[[Link], Awaitable[None]] | None = None
    ) -> None:
        self._port = port
        self._on_link = on_link
        self.links: list[Link] = []

    async def run(
        self, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Relay until cancelled; ``nursery.start()`` returns the port to connect to."""
        listeners = await trio.open_tcp_listeners(0, host=HOST)
        task_status.started(listeners[0].socket.getsockname()[1])
        await trio.serve_listeners(self._relay, listeners)

    async def _relay(self, here: trio.SocketStream) -> None:
        try:
            there = await trio.open_tcp_stream(HOST, self._port)
        except OSError:
            await here.aclose()
            return
        # What a link that is frozen takes is little.
        for end in here, there:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, HALF)
        link = Link(here, there)
        self.links.append(link)
        async with trio.open_nursery() as nursery:
            if self._on_link is not None:
                nursery.start_soon(self._on_link, link)
            await link.run()
            nursery.cancel_scope.cancel()
