"""Writes what waits in an engine's outbox, without anybody waiting for it.

A frame goes out at once where nothing waits; what the socket won't take, and what
is held back to be gathered with what follows, is left to a task, the *flusher*,
which lives only while there is something to do. Everything else here is
synchronous and can be called from any task.
"""

from __future__ import annotations

import abc
from time import perf_counter

import trio
from trio.lowlevel import enable_ki_protection

from ._options import Options
from ._pace import current_pacer
from ._protocol._engine import Engine
from ._protocol._outbox import Encoded
from ._protocol._state import OPEN
from ._transports import STEP_SIZE, WRITE_SIZE, Transport

# Writes that follow each other faster than this are gathered.
_BURST = 20e-6


class Writer(abc.ABC):
    """The half of a connection's pump that writes."""

    __slots__ = (
        "_broken",
        "_ended",
        "_engine",
        "_flusher_done",
        "_flusher_scope",
        "_flushing",
        "_gathers",
        "_holds_data",
        "_last_write",
        "_nursery",
        "_options",
        "_outbox",
        "_pacer",
        "_room",
        "_transport",
        "_write_limit",
        "last_progress",
        "watched",
    )

    def __init__(self, engine: Engine, transport: Transport, options: Options) -> None:
        self._engine = engine
        self._outbox = engine.outbox
        self._transport = transport
        self._options = options
        self._write_limit = options.write_limit
        self._gathers = min(WRITE_SIZE, options.write_limit)
        self._pacer = current_pacer()
        self._nursery: trio.Nursery | None = None
        self._ended = False  # the connection is no longer open
        self._broken = False  # nothing can be written any more
        self._flusher_scope: trio.CancelScope | None = None
        self._flushing = False  # the flusher runs, or will on the next turn
        self._flusher_done: trio.Event | None = None
        self._holds_data = False  # what the transport took last may be data
        self._last_write = 0.0
        self._room: trio.Event | None = None
        # For the keepalive: a ping while it waits in our hands, and when the
        # socket last took something meanwhile.
        self.watched: bytes | None = None
        self.last_progress = 0.0

    # -- What the other half does --------------------------------------------

    @abc.abstractmethod
    def keep_reading(self) -> None:
        """Have somebody read: a peer may take nothing before we do."""

    @abc.abstractmethod
    def fail(self, code: int, reason: str, cause: BaseException | None) -> None:
        """Give the connection up."""

    @abc.abstractmethod
    def _write_failed(self, exc: OSError) -> None:
        """Act on an error of the transport."""

    @abc.abstractmethod
    def _after_flush(self) -> None:
        """End our stream, if nothing more will be written on it."""

    # -- From any task -------------------------------------------------------

    @property
    def _flushed(self) -> bool:
        return not self._outbox.size and not self._transport.unsent

    @enable_ki_protection
    def write(self, frame: Encoded) -> None:
        """Take over a data frame: at once if nothing waits, else soon.

        Frames that follow each other quickly are gathered; the flusher writes
        them on the next turn of the loop at the latest.
        """
        outbox = self._outbox
        if self._flushing:
            waited = outbox.size
            outbox.push(frame)
            # Where as much waited before, the socket had taken nothing more.
            if waited < WRITE_SIZE <= outbox.size:
                self._write_some()
            elif not self._transport.unsent:
                outbox.gathers = self._gathers
            return
        now = perf_counter()
        burst = now - self._last_write < _BURST
        self._last_write = now
        if not burst:
            self.write_now(frame)
            return
        outbox.push(frame)
        if outbox.size < WRITE_SIZE:
            self._start_flusher()
            outbox.gathers = self._gathers
        else:
            self.flush()

    @enable_ki_protection
    def write_now(self, frame: Encoded) -> None:
        """Take over a data frame, of which the socket gets now what it takes."""
        outbox = self._outbox
        if type(frame) is not bytes or outbox.size:
            outbox.push(frame)
            self.flush()
            return
        # Nothing waits, so it goes past the outbox.
        self._holds_data = True
        try:
            count = self._transport.write((frame,))
        except OSError as exc:
            outbox.push(frame)
            self._write_failed(exc)
            return
        if count == len(frame) and not self._transport.unsent:
            outbox.taken += count
            self._holds_data = False
            return
        outbox.push(frame)
        outbox.consume(count)
        self._start_flusher()

    @enable_ki_protection
    def flush(self) -> None:
        """Write what the transport takes now; leave the rest to the flusher."""
        if self._broken:
            return
        self._write_some()
        if self._flushed:
            if self._ended:
                self._after_flush()
        elif not self._broken:
            self._start_flusher()

    def _write_some(self) -> None:
        outbox = self._outbox
        outbox.gathers = 0
        left = STEP_SIZE  # a peer as fast as we are could keep us for ever
        try:
            while left > 0 and not self._broken:
                if self._transport.unsent:
                    self._transport.write(())
                    if self._transport.unsent:
                        break
                self._holds_data = self._engine.data_waits
                if not outbox.size:
                    break
                count = self._transport.write(outbox.gather(WRITE_SIZE))
                if not count:
                    break
                outbox.consume(count)
                left -= count
        except OSError as exc:
            self._write_failed(exc)
        if STEP_SIZE - left > WRITE_SIZE:
            self._pacer.wrote_much()
        if self._room is not None and self.has_room:
            self._wake_room()

    def _start_flusher(self) -> None:
        if not self._flushing and self._nursery is not None:
            self._flushing = True
            self._nursery.start_soon(self._run_flusher, name="trio_ws flusher")

    @enable_ki_protection
    async def _run_flusher(self) -> None:
        outbox = self._outbox
        with trio.CancelScope(shield=True) as self._flusher_scope:
            while True:
                self._write_some()
                if self.watched is not None and not self._holds(self.watched):
                    self.watched = None
                if self._flushed or self._broken:
                    break
                before = outbox.taken
                # A deadline for each wait: any byte taken starts it anew (R8).
                with trio.move_on_after(self._options.stall_timeout) as wait:
                    try:
                        await self._transport.wait_writable()
                    except OSError as exc:
                        self._write_failed(exc)
                if not wait.cancelled_caught:
                    if self.watched is not None:
                        self.last_progress = trio.current_time()
                elif outbox.taken == before:
                    self.fail(1011, "write timeout", self._stalled())
        self._flusher_scope = None
        self._flushing = False
        if self._flusher_done is not None:
            self._flusher_done.set()
        if self._ended and self._flushed:
            self._after_flush()

    def _stalled(self) -> TimeoutError:
        seconds = self._options.stall_timeout
        return TimeoutError(
            f"peer took none of {self._outbox.size} waiting bytes in "
            f"{seconds} s (ping_interval + ping_timeout)"
        )

    @property
    def has_room(self) -> bool:
        """Whether a message is accepted (R5)."""
        return self._outbox.size + self._transport.unsent < self._write_limit

    @property
    def progress(self) -> int:
        """A number that changes whenever the socket takes something."""
        return self._outbox.taken - self._transport.unsent

    def watch(self, ping: bytes) -> bool:
        """Note until when a ping waits in our hands; return whether it does."""
        self.watched = ping if self._holds(ping) else None
        return self.watched is not None

    def _holds(self, ping: bytes) -> bool:
        return self._outbox.waits(ping) or self._transport.unsent > 0

    async def wait_room(self) -> None:
        """Wait until a message is accepted or the connection ends.

        One task at a time. **Cancellation**: nothing is lost.
        """
        while self._engine.phase is OPEN and not self.has_room:
            self.keep_reading()  # the peer may read no more before we do
            self._room = trio.Event()
            await self._room.wait()
            self._pacer.waited()

    def _wake_room(self) -> None:
        if self._room is not None:
            self._room.set()
            self._room = None
