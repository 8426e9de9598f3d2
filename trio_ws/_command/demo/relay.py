"""The network between a client and its server, which can fail as networks do."""

from __future__ import annotations

import socket
import struct
import sys

import trio

HOST = "127.0.0.1"

# l_onoff, l_linger: close() sends a reset (winsock2.h has both as u_short).
_RESET = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)

# So that one sees within seconds what a peer that stops reading does: a system has
# buffers of megabytes otherwise.
SMALL = 32768


# A reset could destroy what came before it and the other end has yet to read. So many
# seconds later, it is read, or never will be.
_LAST_WORDS = 1.0


class Relay:
    """Carries the bytes of one TCP connection each way."""

    def __init__(self) -> None:
        self.delay = 0.0  # seconds that each piece takes more
        self._ends: list[trio.SocketStream] = []
        self._flowing = trio.Event()
        self._flowing.set()

    async def run(self, port: int, task_status: trio.TaskStatus[int]) -> None:
        """Relay a connection to ``port`` from the port that is the status.

        Raises OSError. **Cancellation**: both ends are closed.
        """
        (listener,) = await trio.open_tcp_listeners(0, host=HOST)
        async with listener:
            make_small(listener.socket)
            task_status.started(listener.socket.getsockname()[1])
            here = await listener.accept()
        async with here, await trio.open_tcp_stream(HOST, port) as there:
            make_small(there.socket)
            self._ends = [here, there]
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._carry, here, there)
                nursery.start_soon(self._carry, there, here)

    async def _carry(self, source: trio.SocketStream, sink: trio.SocketStream) -> None:
        try:
            async for data in source:
                if self.delay:
                    await trio.sleep(self.delay)
                await self._flowing.wait()
                try:
                    await sink.send_all(data)
                except trio.BrokenResourceError:  # by a reset, which goes on to here
                    await trio.sleep(_LAST_WORDS)
                    self.reset()
            await sink.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    @property
    def frozen(self) -> bool:
        """Whether nothing gets through."""
        return not self._flowing.is_set()

    # What buttons call.

    def reset(self) -> None:
        for end in self._ends:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            end.socket.close()

    def freeze(self) -> None:
        self._flowing = trio.Event()

    def thaw(self) -> None:
        self._flowing.set()

    def slow(self) -> None:
        self.delay = 0.1

    def quick(self) -> None:
        self.delay = 0.0


def make_small(sock: trio.socket.SocketType) -> None:
    """Give a socket small buffers."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
