"""A connection in memory: two pipes, and a transport at either end.

It is to a transport what a socket is: read() and write() are attempts, the buffers are
bounded, an end that is closed with bytes unread sends a reset. Nothing in it waits by
another clock than trio's.
"""

from __future__ import annotations

import enum
import errno
import os
from collections import deque
from collections.abc import Callable, Sequence
from math import inf

import trio

from .._transports.base import READ_SIZE, Buffer, Transport, bounded

Address = tuple[str, int]


class Mark(enum.Enum):
    """What a pipe carries besides bytes."""

    END = enum.auto()  # TCP's FIN
    RESET = enum.auto()  # TCP's RST, but behind the bytes that were sent before


def system_error(number: int) -> OSError:
    """Return the error that the system would raise."""
    return OSError(number, os.strerror(number))


class Pipe:
    """One way of a link: what is under way, and what has come and isn't read.

    ``size`` counts both, and is no more than ``capacity``: what a sender's and a
    receiver's buffers hold.
    """

    __slots__ = (
        "_came",
        "_latency",
        "_limit",
        "_lose",
        "_under_way",
        "abandoned",
        "capacity",
        "cut_off",
        "frozen",
        "mark",
        "size",
    )

    def __init__(
        self, capacity: int, latency: float, lose: Callable[[Mark], None]
    ) -> None:
        self.capacity = capacity
        self.size = 0
        self.frozen = False
        self.abandoned = False  # nobody will read it
        self.cut_off = False  # nothing more will pass
        self.mark: Mark | None = None  # what has come behind the last byte
        self._latency = latency
        self._lose = lose
        self._limit: tuple[int, Mark] | None = None  # so much still passes, then that
        self._under_way: deque[tuple[float, bytes | Mark]] = deque()
        self._came = bytearray()

    @property
    def room(self) -> int:
        """How many bytes it takes now."""
        return self.capacity - self.size

    @property
    def next_arrival(self) -> float:
        """When, by trio's clock, something comes that hasn't yet."""
        if self.frozen or not self._under_way:
            return inf
        return self._under_way[0][0]

    def limit(self, size: int, mark: Mark) -> None:
        """Let ``size`` bytes pass yet, and lose the link then."""
        self._limit = size, mark

    def put(self, what: bytes | Mark, trips: int = 1) -> None:
        """Send something; it comes after so many trips of ``latency``."""
        if self.cut_off or self.abandoned:
            return
        if isinstance(what, bytes):
            self.size += len(what)
        due = trio.current_time() + trips * self._latency
        if self._under_way:
            due = max(due, self._under_way[-1][0])  # nothing overtakes
        self._under_way.append((due, what))
        self.advance()

    def advance(self) -> None:
        """Let come what is due."""
        while self._under_way and self.next_arrival <= trio.current_time():
            _, what = self._under_way.popleft()
            if isinstance(what, Mark):
                self.mark = what
            elif self._limit is None:
                self._came += what
            else:
                left, mark = self._limit
                self._limit = left - len(what), mark
                self._came += what[:left]
                if left <= len(what):
                    self._lose(mark)

    def take(self, size: int) -> bytes:
        """Take up to ``size`` bytes of what has come."""
        data = bytes(self._came[:size])
        del self._came[:size]
        self.size -= len(data)
        return data

    @property
    def is_readable(self) -> bool:
        """Whether something has come: bytes, or what is behind them."""
        return bool(self._came) or self.mark is not None

    def cut(self, mark: Mark) -> None:
        """Lose what is under way; what has come is followed by ``mark``."""
        self.cut_off = True
        self._under_way.clear()
        self.size = len(self._came)
        self.mark = mark

    def abandon(self) -> None:
        """Forget what is in it: its reader is gone."""
        self.abandoned = True
        self._under_way.clear()
        self._came.clear()
        self.size = 0


class MemoryTransport(Transport):
    """One end of a link."""

    __slots__ = (
        "_changed",
        "_in",
        "_on_close",
        "_out",
        "_shut",
        "_wakes",
        "is_closed",
        "local_address",
        "remote_address",
        "unsent",
    )

    callers_read = True

    def __init__(
        self,
        pipes: tuple[Pipe, Pipe],
        addresses: tuple[Address, Address],
        changed: trio.lowlevel.ParkingLot,
        on_close: Callable[[], None],
    ) -> None:
        self._in, self._out = pipes
        self.local_address, self.remote_address = addresses
        self._changed = changed  # of either end: there are four who wait, at most
        self._on_close = on_close
        self._wakes = 0
        self._shut = False
        self.is_closed = False
        self.unsent = 0

    # -- Reading -------------------------------------------------------------

    def read(self, size: int = READ_SIZE) -> bytes | None:
        self._check_open()
        incoming = self._in
        incoming.advance()
        data = incoming.take(size)
        if data:
            self._changed.unpark_all()  # the peer has room to write
            return data
        if incoming.mark is Mark.RESET:
            raise system_error(errno.ECONNRESET)
        return None if incoming.mark is None else b""

    async def wait_readable(self) -> None:
        wakes = self._wakes

        def is_ready() -> bool:
            return self._wakes != wakes or self.is_closed or self._in.is_readable

        await self._wait(is_ready)
        if self._wakes != wakes or self.is_closed:
            raise trio.ClosedResourceError("woken, or closed")

    def wake(self) -> None:
        self._wakes += 1
        self._changed.unpark_all()

    # -- Writing -------------------------------------------------------------

    def write(self, buffers: Sequence[Buffer]) -> int:
        self._check_open()
        self._in.advance()
        if self._in.mark is Mark.RESET:
            raise system_error(errno.ECONNRESET)
        if self._shut or self._out.cut_off:
            raise system_error(errno.EPIPE)
        data = b"".join(bounded(buffers, self._out.room))
        if data:
            if self._out.abandoned:
                self._in.put(Mark.RESET, trips=2)  # what a system answers
            self._out.put(data)
        self._changed.unpark_all()
        return len(data)

    async def wait_writable(self) -> None:
        await self._wait(self._is_writable)

    def _is_writable(self) -> bool:
        """Whether write() would take something, or raise."""
        return (
            self.is_closed
            or self._out.room > 0
            or self._out.cut_off
            or self._in.mark is Mark.RESET
        )

    # -- The end -------------------------------------------------------------

    def shutdown(self) -> bool:
        if not (self._shut or self.is_closed):
            self._shut = True
            self._out.put(Mark.END)
            self._changed.unpark_all()
        return True

    def discard(self) -> None:
        if self.is_closed:
            return
        unread = self._in.size > 0
        self.shutdown()
        self.is_closed = True
        self._in.abandon()
        if unread:
            self._out.put(Mark.RESET)
        self._changed.unpark_all()
        self._on_close()

    async def aclose(self) -> None:
        self.discard()

    def _check_open(self) -> None:
        if self.is_closed:
            raise system_error(errno.EBADF)

    async def _wait(self, is_ready: Callable[[], bool]) -> None:
        """Wait until something is so, which an arrival may bring about."""
        self._in.advance()
        if is_ready():
            await trio.lowlevel.checkpoint()
        while not is_ready():
            with trio.CancelScope(deadline=self._in.next_arrival):
                await self._changed.park()
            self._in.advance()
