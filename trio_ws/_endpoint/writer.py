"""Writes what waits in an engine's outbox, without anybody waiting for it.

A frame goes out at once where nothing waits; what the socket won't take, and what
is held back to be gathered with what follows, is left to a task, the *flusher*,
which lives only while there is something to do. Everything else here is
synchronous and can be called from any task.
"""

from __future__ import annotations

import enum
from time import perf_counter

import trio
from trio.lowlevel import enable_ki_protection

from .._protocol.closing import OPEN
from .._protocol.engine import Engine
from .._protocol.frames.outbox import Encoded, frame_size
from .._transports.base import STEP_SIZE, WRITE_SIZE, Transport
from .budget import Budget, check_run, current_budget
from .host import CLOSING, NO_HOST, Host
from .options import Options

# Writes that follow each other faster than this are gathered.
_BURST = 20e-6


class WriterState(enum.Enum):
    """What becomes of a frame that is written.

    DIRECT -> GATHERING: frames follow each other quickly.
    DIRECT, GATHERING -> FLUSHING: the transport doesn't take all that waits.
    FLUSHING -> GATHERING: more comes while nothing waits for the transport.
    GATHERING, FLUSHING -> DIRECT: all is written, and the flusher ends.
    any -> BROKEN: the transport failed, or is closed.
    """

    DIRECT = enum.auto()  # it goes out at once: nothing waits, no flusher runs
    GATHERING = enum.auto()  # it waits for others: the flusher is about to write
    FLUSHING = enum.auto()  # it waits behind others for the transport
    BROKEN = enum.auto()  # it never goes out


DIRECT = WriterState.DIRECT
GATHERING = WriterState.GATHERING
FLUSHING = WriterState.FLUSHING
BROKEN = WriterState.BROKEN


class Writer:
    """The outgoing side of a transport."""

    __slots__ = (
        "_batch_limit",
        "_budget",
        "_engine",
        "_flusher_done",
        "_flusher_scope",
        "_last_write",
        "_nursery",
        "_options",
        "_outbox",
        "_room",
        "_transport",
        "_write_limit",
        "holds_data",
        "host",
        "last_progress",
        "skipped",
        "state",
        "turn",
        "watched",
    )

    def __init__(
        self,
        engine: Engine,
        transport: Transport,
        options: Options,
    ) -> None:
        self._engine = engine
        self._outbox = engine.outbox
        self._transport = transport
        self._options = options
        self.host: Host = NO_HOST
        self.state = DIRECT
        self._write_limit = options.write_limit
        self._batch_limit = min(WRITE_SIZE, options.write_limit)
        self._budget = current_budget()
        # Whose turn it is to send; there only while somebody holds or wants it.
        self.turn: trio.StrictFIFOLock | None = None
        self.skipped = 0  # messages to many that there was no room for
        self._nursery: trio.Nursery | None = None
        self._flusher_scope: trio.CancelScope | None = None
        self._flusher_done: trio.Event | None = None
        self.holds_data = False  # what the transport took last may be data
        self._last_write = 0.0
        self._room: trio.Event | None = None
        # For the keepalive: a ping while it waits in our hands, and when the
        # socket last took something meanwhile.
        self.watched: bytes | None = None
        self.last_progress = 0.0

    def start(self, nursery: trio.Nursery | None) -> None:
        """Have a nursery for the flusher; None if it is closed to new tasks."""
        self._nursery = nursery

    @property
    def flushed(self) -> bool:
        """Whether all that was accepted is in the hands of the kernel."""
        return not self._outbox.size and not self._transport.unsent

    @enable_ki_protection
    def write(self, frame: Encoded) -> None:
        """Take over a data frame: at once if nothing waits, else soon."""
        outbox = self._outbox
        try:
            if self.state is not DIRECT:
                waited = outbox.size
                outbox.push(frame)
                # Where as much waited before, the socket had taken nothing more.
                if waited < WRITE_SIZE <= outbox.size:
                    self.write_some()
                elif not self._transport.unsent:
                    self.state = GATHERING
                    outbox.batch_limit = self._batch_limit
                return
            now = perf_counter()
            burst = now - self._last_write < _BURST
            self._last_write = now
            if not burst or frame_size(frame) >= WRITE_SIZE:
                self.write_now(frame)
                return
            # First, since it may raise, and a message that isn't sent must not wait.
            self._start_flusher()
            outbox.push(frame)
            if self.state is FLUSHING:
                self.state = GATHERING
                outbox.batch_limit = self._batch_limit
        except BaseException:
            self._engine.forget_context()  # for it isn't sent
            raise

    @enable_ki_protection
    def write_now(self, frame: Encoded) -> None:
        """Take over a data frame, of which the socket gets now what it takes."""
        outbox = self._outbox
        if type(frame) is not bytes or outbox.size:
            outbox.push(frame)
            self.flush()
            return
        # Nothing waits, so it goes past the outbox.
        transport = self._transport
        self.holds_data = True
        try:
            count = transport.write_one(frame)
            if count == len(frame) and not transport.unsent:
                outbox.bytes_written += count
                self.holds_data = False
                return
            outbox.push(frame)
            outbox.consume(count)
            self._start_flusher()
        except OSError as exc:
            outbox.push(frame)
            self.host.write_failed(exc)
        except Exception as exc:  # noqa: BLE001 - the connection ends by it
            self._give_up(exc)

    @enable_ki_protection
    def share(
        self, opcode: int, payload: bytes, cache: dict[int, Encoded], budget: Budget
    ) -> bool:
        """Take over a message to many connections; return False if there is no room.

        Where the connection isn't open, nothing is to be done. ``budget`` is that of
        the current trio run.
        """
        # Of thousands of connections none is in the processor's caches: each object
        # looked at costs more than what is done with it. So they are few.
        engine = self._engine
        if engine.phase is not OPEN:
            return True
        if budget is not self._budget:
            check_run(self._budget, "broadcast")
        # Where a flusher would run and none does, nothing waits.
        direct = self.state is DIRECT and self._nursery is not None
        if self.turn is None and (direct or self.has_room):
            frame = engine.shared_frame(opcode, payload, cache)
            try:
                self.write_now(frame)
            except BaseException:
                engine.forget_context()  # for it isn't sent
                raise
            return True
        self.skipped += 1
        return False

    @enable_ki_protection
    def flush(self) -> None:
        """Write what the transport takes now; leave the rest to the flusher."""
        if self.state is BROKEN:
            return
        self.write_some()
        if self.flushed:
            if self.host.state >= CLOSING:
                self.host.after_flush()
            return
        try:
            self._start_flusher()
        except Exception as exc:  # noqa: BLE001 - the connection ends by it
            self._give_up(exc)

    def _give_up(self, exc: Exception) -> None:
        """End the connection: nobody knows what is out already, nor what may follow.

        What was taken over counts as accepted, so this is a loss and raises nothing.
        """
        self.state = BROKEN
        self.host.died(exc)

    def write_some(self) -> None:
        """Write what the transport takes now."""
        outbox = self._outbox
        outbox.batch_limit = 0
        if self.state is GATHERING:
            self.state = FLUSHING
        left = STEP_SIZE  # a peer as fast as we are could keep us for ever
        try:
            while left > 0 and self.state is not BROKEN:
                if self._transport.unsent:
                    self._transport.write(())
                    if self._transport.unsent:
                        break
                self.holds_data = self._engine.data_waits
                if not outbox.size:
                    break
                count = self._transport.write(outbox.next_buffers(WRITE_SIZE))
                if not count:
                    break
                outbox.consume(count)
                left -= count
        except OSError as exc:
            self.host.write_failed(exc)
        except Exception as exc:  # noqa: BLE001 - the connection ends by it
            self._give_up(exc)
        if STEP_SIZE - left > WRITE_SIZE:
            self._budget.wrote_much()
        if self._room is not None and self.has_room:
            self.wake_room()

    def _start_flusher(self) -> None:
        if self.state is DIRECT and self._nursery is not None:
            self._nursery.start_soon(self._run_flusher, name="trio_ws flusher")
            self.state = FLUSHING

    @enable_ki_protection
    async def _run_flusher(self) -> None:
        try:
            with trio.CancelScope(shield=True) as self._flusher_scope:
                await self._flush_all()
        except Exception as exc:  # noqa: BLE001 - whatever it is, the peer is told
            self.host.died(exc)
        finally:
            self._flusher_scope = None
            if self.state is not BROKEN:
                self.state = DIRECT
            if self._flusher_done is not None:
                self._flusher_done.set()
        if self.host.state >= CLOSING and self.flushed:
            self.host.after_flush()

    async def _flush_all(self) -> None:
        outbox = self._outbox
        while True:
            self.write_some()
            if self.watched is not None and not self._holds(self.watched):
                self.watched = None
            if self.flushed or self.state is BROKEN:
                break
            before = outbox.bytes_written
            # A deadline for each wait: any byte taken starts it anew (R8).
            with trio.move_on_after(self._options.stall_timeout) as wait:
                try:
                    await self._transport.wait_writable()
                except OSError as exc:
                    self.host.write_failed(exc)
            if not wait.cancelled_caught:
                if self.watched is not None:
                    self.last_progress = trio.current_time()
            elif outbox.bytes_written == before:
                self.host.fail(1011, "write timeout", self._stalled())

    async def wait_flushed(self) -> None:
        """Wait until the flusher is done, if one runs."""
        if self.state is GATHERING or self.state is FLUSHING:
            self._flusher_done = trio.Event()
            await self._flusher_done.wait()

    def stop(self) -> None:
        """End the flusher."""
        if self._flusher_scope is not None:
            self._flusher_scope.cancel()

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
    def sender_waits(self) -> bool:
        """Whether somebody waits for room."""
        return self._room is not None

    @property
    def progress(self) -> int:
        """A number that changes whenever the socket takes something."""
        return self._outbox.bytes_written - self._transport.unsent

    def watch(self, ping: bytes) -> bool:
        """Note until when a ping waits in our hands; return whether it does."""
        self.watched = ping if self._holds(ping) else None
        return self.watched is not None

    def _holds(self, ping: bytes) -> bool:
        return self._outbox.waits(ping) or self._transport.unsent > 0

    async def next_room(self) -> None:
        """Wait until there may be room. One task at a time."""
        self._room = trio.Event()
        await self._room.wait()
        self._budget.renew()

    def wake_room(self) -> None:
        """Wake who waits for room."""
        if self._room is not None:
            self._room.set()
            self._room = None
