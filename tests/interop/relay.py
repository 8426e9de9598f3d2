"""A TCP relay that cuts the connection: neither end can say goodbye."""

from __future__ import annotations

import socket
import struct

import trio

from tests.interop.peer import HOST


class Relay:
    """Relays one connection, in tasks of a nursery of the test's."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._ends: list[trio.SocketStream] = []

    async def between(self, port: int) -> int:
        """Listen; return the port that leads to ``port``."""
        (listener,) = await trio.open_tcp_listeners(0, host=HOST)
        self._nursery.start_soon(self._relay, listener, port)
        port = listener.socket.getsockname()[1]
        assert isinstance(port, int)
        return port

    async def _relay(self, listener: trio.SocketListener, port: int) -> None:
        async with listener:
            here = await listener.accept()
        there = await trio.open_tcp_stream(HOST, port)
        self._ends = [here, there]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_copy, here, there)
            nursery.start_soon(_copy, there, here)

    async def cut(self, *, reset: bool) -> None:
        """End both halves: by a reset, or by an end of stream."""
        for end in self._ends:
            if reset:
                # l_onoff, l_linger: close() sends RST
                end.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
            await end.aclose()


async def _copy(source: trio.SocketStream, sink: trio.SocketStream) -> None:
    try:
        async for data in source:
            await sink.send_all(data)
        await sink.send_eof()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # cut, or ended by either side
