"""Moves bytes between an engine and a transport.

Theory of operation. Two tasks, at most, touch the transport of a connection:

* the *reader* lives as long as the transport. It parses all that it reads,
  wakes whoever waits for it, and never waits for writing. When its loop ends,
  for whatever reason, it closes the transport. It reads on after the closing
  handshake, discarding, until the peer ends its stream or the deadline is over,
  so that no reset destroys a close frame under way. The keepalive takes its steps
  in this task, too: they interrupt its waiting for a socket, which loses nothing.
* the *flusher* lives only while something waits to be written; see ``_writing``.

Everything else is synchronous and can be called from any task: write, flush,
close, fail. Both tasks run shielded: that the user's side is cancelled doesn't
cut the connection, the scope decides what is said to the peer. And both are
protected from KeyboardInterrupt, which is for the main task: in the middle of
the reader's end it would leave the transport open and whoever waits for that.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from math import inf
from time import perf_counter

import trio
from trio.lowlevel import enable_ki_protection

from ._keepalive import Keepalive, Pings
from ._options import Options
from ._protocol._engine import Engine
from ._protocol._state import CLOSE_DONE, FAILED, FINAL, OPEN
from ._transports import READ_SIZE, Transport
from ._writing import Writer

# Receive calls that follow each other faster than this, in seconds, read. For so
# long at a time the reader naps meanwhile, and by so much more it may be late for
# what comes when they stop.
_QUICK = 0.02
_NAP = 0.05

# How long a connection that failed goes on discarding what the peer sends, so
# that its close frame arrives.
_LINGER = 1.0

# What is parsed in one step, however long it takes; READ_SIZE is the most.
_LEAST_READ = 4096

# A stream of the user's may need turns of the loop, though no time, to write.
_GOODBYE_TURNS = 16

# When the peer breaks the protocol, messages that came before in the same read
# can be answered in these turns of the loop: one may come before the receiver's.
_ANSWER_TURNS = 2

# What is read of a peer to which nothing can be written any more: more than any
# receive buffer holds by default, yet not without end, since the peer of a Unix
# socket that has shut down its reading side can go on sending.
_LAST_READS = 256

# What is discarded, without waiting, before a socket is closed in a hurry.
_GOODBYE_DRAIN = 64  # reads

# Who reads a message piece by piece and stops has this much, in bytes, waiting.
_PARTIAL_LIMIT = 2**16


class Reading(enum.Enum):
    """Whose turn it is to read."""

    KEEPER = enum.auto()
    PAUSED = enum.auto()
    STANDBY = enum.auto()
    CALLER = enum.auto()
    LAST_CALLER = enum.auto()


KEEPER = Reading.KEEPER
PAUSED = Reading.PAUSED
STANDBY = Reading.STANDBY
CALLER = Reading.CALLER
LAST_CALLER = Reading.LAST_CALLER


class Pump(Writer):
    """The tasks of a connection, and what they and its callers wait for."""

    __slots__ = (
        "_called",
        "_calls",
        "_client",
        "_closed_event",
        "_cut",
        "_deadline",
        "_delivered",
        "_full",
        "_on_end",
        "_pinger_scope",
        "_pings",
        "_read_size",
        "_reader_scope",
        "_reading",
        "_receiver",
        "_reset",
        "_shut",
        "callers_read",
        "closed",
        "reads",
        "streaming",
    )

    def __init__(
        self,
        engine: Engine,
        transport: Transport,
        options: Options,
        *,
        client: bool,
        pings: Pings,
        on_end: Callable[[], None],
    ) -> None:
        super().__init__(engine, transport, options)
        self._client = client
        self._pings = pings
        self._on_end = on_end
        # Whether receivers may read; the helpers for tests have one order of
        # things, whatever the clock says.
        self.callers_read = transport.callers_read
        self._reader_scope: trio.CancelScope | None = None
        self._deadline = inf  # of closing: then the reader ends
        self._cut = False  # it ends as soon as it can
        self._pinger_scope: trio.CancelScope | None = None
        self._shut = False  # our stream has been ended
        self._reset: ConnectionResetError | None = None  # that a write met with
        self._receiver: trio.lowlevel.Task | None = None
        self._reading = KEEPER
        self._called: trio.Event | None = None  # wakes the keeper that waits for it
        self._delivered = -inf  # when the keeper last brought a receiver something
        self._calls = 0  # how many reads callers have done
        self._read_size = READ_SIZE
        self._full = True  # the last read filled its buffer: there may be more
        self.streaming = False  # somebody reads the current message piecemeal
        self.reads = 0  # how many brought something
        self.closed = False  # the transport is
        self._closed_event: trio.Event | None = None

    def start(self, nursery: trio.Nursery) -> None:
        """Start the reader in the service nursery of the connection's scope."""
        self._nursery = nursery
        keepalive = None
        if self._options.ping_interval is not None:
            keepalive = Keepalive(self._engine, self, self._pings, self._options)
        if keepalive is not None and not self._transport.callers_read:
            nursery.start_soon(self._run_keepalive, keepalive)
            keepalive = None
        # With a name that is there: trio would make one for each task.
        nursery.start_soon(self._run_reader, keepalive, name="trio_ws reader")

    # -- Reading -------------------------------------------------------------
    #
    # Who reads is a state, of which one task at a time is the owner:
    #
    # * KEEPER: the reader waits for the socket; receive calls sleep till it wakes them.
    # * PAUSED: nobody reads, since enough waits for the application (R10).
    # * STANDBY: nobody reads. The application has just been given a message and is
    #   expected back; should it not come, the reader goes on after a nap.
    # * CALLER: a receive call waits for the socket and reads in its own task, which
    #   saves the switch from the reader's. The reader naps.
    # * LAST_CALLER: the same, but then the reader goes on.
    #
    # So the reader is never evicted. It steps aside of its own accord, when it has
    # woken a receiver twice within _QUICK seconds: slow traffic gains nothing by it.
    # Reading itself is one synchronous step, so whoever does it, cancelled or not,
    # nothing is lost between the socket and the queue.

    @property
    def paused(self) -> bool:
        """Whether reading waits for the application (R10)."""
        return self._reading is PAUSED

    @enable_ki_protection
    async def _run_keepalive(self, keepalive: Keepalive) -> None:
        """Run the keepalive in a task of its own, beside a stream of the user's.

        Nobody knows whether its receive_some() can be interrupted without loss.
        """
        with trio.CancelScope(shield=True) as self._pinger_scope:
            while self._engine.phase is OPEN:
                await trio.sleep_until(keepalive.due)
                if self._engine.phase is OPEN:
                    keepalive.step()

    @enable_ki_protection
    async def _run_reader(self, keepalive: Keepalive | None) -> None:
        try:
            # A second task for the keepalive would be a fifth of the memory of an
            # idle connection. While closing, the deadline is that of closing.
            while not self._cut and trio.current_time() < self._deadline:
                due = inf if keepalive is None else keepalive.due
                with trio.CancelScope(shield=True) as self._reader_scope:
                    self._reader_scope.deadline = self._deadline if self._ended else due
                    await self._read()
                    if self._flushing and not self._broken and not self._cut:
                        # A peer that has ended its stream may still read.
                        self._flusher_done = trio.Event()
                        await self._flusher_done.wait()
                    break
                if keepalive is not None and self._engine.phase is OPEN:
                    keepalive.step()
        finally:
            self._settle()
            if self._pinger_scope is not None:
                self._pinger_scope.cancel()
            if self._flusher_scope is not None:
                self._flusher_scope.cancel()
            try:
                await self._transport.aclose()
            finally:  # whatever a stream of the user's raises
                self.closed = True
                if self._closed_event is not None:
                    self._closed_event.set()

    async def wait_closed(self) -> None:
        """Wait until the transport is closed.

        **Cancellation**: changes nothing.
        """
        if self.closed:
            await trio.lowlevel.checkpoint()
            return
        if self._closed_event is None:
            self._closed_event = trio.Event()
        await self._closed_event.wait()

    async def _read(self) -> None:
        """Read until the peer's stream ends or breaks, or nobody wants more."""
        while not self._cut:  # a wait that is cancelled at once costs, too
            if self._reading is PAUSED:
                await self._pause()
            elif self._reading is not KEEPER:
                await self._stand_by()
            if self._engine.violation is not None:
                for _ in range(_ANSWER_TURNS):
                    await trio.lowlevel.checkpoint()
                self._engine.act_on_violation()
                self.changed()
            if self._full:
                await self._pacer.rest()
            else:
                # After a short read, reading again would find nothing.
                await self._transport.wait_readable()
            if self._should_pause():
                await self._pause()
            receiver = self._receiver
            if self._read_some(self._read_size) == 0:
                return
            if receiver is not None and self._receiver is None:
                self._hand_over()

    def _hand_over(self) -> None:
        """Let receivers read for themselves if they come quickly, one by one."""
        now = trio.current_time()
        quick = now - self._delivered < _QUICK
        self._delivered = now
        if (
            quick
            and self.callers_read
            and self._engine.phase is OPEN
            and self._engine.violation is None
            and not self._pings.waiting
            and self._room is None  # else the peer might wait for a nap's end
        ):
            self._reading = STANDBY

    async def _stand_by(self) -> None:
        """Sleep while receivers read, until they don't any more, or not quickly."""
        self._called = trio.Event()
        wait = _NAP
        while self._reading is not KEEPER:
            calls = self._calls
            with trio.move_on_after(wait):
                await self._called.wait()
                break
            if self._calls != calls:
                continue
            if self._reading is STANDBY:
                break
            # Who waits for so long goes on waiting, but then it is our turn: in
            # slow traffic these naps would cost more than they save.
            self._reading = LAST_CALLER
            wait = inf
        self._reading = KEEPER
        self._called = None

    async def _pause(self) -> None:
        self._reading = PAUSED
        self._called = trio.Event()
        await self._called.wait()
        self._called = None

    @enable_ki_protection
    def keep_reading(self) -> None:
        """Have the reader read on, from any task that waits for what may come."""
        if self._reading is CALLER or self._reading is LAST_CALLER:
            self._reading = LAST_CALLER
        elif self._reading is STANDBY:
            self._wake_reader()

    def _wake_reader(self) -> None:
        self._reading = KEEPER
        if self._called is not None:
            self._called.set()

    def _should_pause(self) -> bool:
        engine = self._engine
        if engine.phase is not OPEN:
            return False
        options = self._options
        return (
            (options.max_queue is not None and len(engine.messages) > options.max_queue)
            or (options.max_size is not None and engine.queued > options.max_size)
            or (self.streaming and engine.decoder.partial_size > _PARTIAL_LIMIT)
        )

    def taken(self) -> None:
        """Let the reader go on once what waits has been taken down far enough."""
        if self._reading is not PAUSED:
            return
        engine = self._engine
        # Not at the very limit: each pause costs two switches of tasks.
        if len(engine.messages) <= (self._options.max_queue or 0) // 4 and (
            self._options.max_size is None
            or engine.queued <= self._options.max_size // 4
        ):
            self._wake_reader()

    def read_now(self) -> int | None:
        """Read, parse and act on what is there, from any task.

        Return its size, 0 at the end of the stream, None if nothing was there.
        """
        count = self._read_some()
        if self._engine.violation is not None:
            self._engine.act_on_violation()
            self.changed()
        if self._full or (
            self._reading in (CALLER, LAST_CALLER) and self._has_incoming
        ):
            # After a full read what is left may be in TLS: waiting for the socket
            # would be waiting for nothing.
            self._transport.wake()
        return count

    @enable_ki_protection
    def _read_some(self, size: int = READ_SIZE) -> int | None:
        try:
            data = self._transport.read(size)
        except OSError as exc:
            self._lost(exc)
            return 0
        if data:
            self.reads += 1
            engine = self._engine
            if len(data) < _LEAST_READ:
                engine.receive(data)
            else:
                self._receive_much(data)
            # What follows from a message alone, when the receiver itself reads,
            # is nothing.
            if (
                self._receiver is not None
                or engine.outbox.size
                or engine.phase is not OPEN
            ):
                self.changed()
        elif data is not None:
            if self._reset is not None:
                # The kernel tells of a reset once; then it says end of stream.
                self._lost(self._reset)
                return 0
            self._engine.receive_eof()
            self.changed()
        if self._transport.unsent:
            self.flush()  # TLS has an answer of its own
        if data is None:
            self._full = False
            return None
        count = len(data)
        self._full = count >= size
        return count

    def _receive_much(self, data: bytes) -> None:
        """Take in a large read, and let the next be as large as is fair.

        A read full of tiny frames can take a hundred times as long as one of a
        large message. What is not read waits in the kernel.
        """
        start = perf_counter()
        self._engine.receive(data)
        taken = perf_counter() - start
        fair = self._pacer.seconds
        self._read_size = READ_SIZE
        if taken * READ_SIZE > fair * len(data):
            self._read_size = max(_LEAST_READ, int(len(data) * fair / taken))

    @enable_ki_protection
    async def wait_incoming(self) -> None:
        """Wait for a message, a piece of one, or the end of the connection.

        One task at a time. **Cancellation**: nothing is lost.
        """
        if self._flushing:
            # What was held back goes out at the latest when the task waits.
            self._write_some()
        engine = self._engine
        if engine.messages or engine.phase is not OPEN:
            await self._pacer.step()
            return
        if self._reading is not STANDBY:
            self._receiver = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._stop_waiting)
            self._pacer.waited()
            return
        # This task is here, so it reads, rather than be woken by another.
        self._reading = CALLER
        try:
            while True:
                if self._full:
                    await self._pacer.step()
                else:
                    await self._transport.wait_readable()
                    self._pacer.waited()
                if self._reading is KEEPER:  # it was woken for the connection's end
                    return
                self._calls += 1
                count = self._read_some(self._read_size)
                if count == 0 or engine.violation is not None:
                    self._reading = LAST_CALLER  # what follows is the reader's
                if engine.messages or self._reading is not CALLER or self._has_incoming:
                    return
        finally:
            if self._reading is CALLER:
                self._reading = STANDBY
            elif self._reading is LAST_CALLER:
                self._wake_reader()

    def _stop_waiting(self, _: object) -> trio.lowlevel.Abort:
        self._receiver = None
        return trio.lowlevel.Abort.SUCCEEDED

    @property
    def _has_incoming(self) -> bool:
        engine = self._engine
        return bool(
            engine.messages
            or engine.phase is not OPEN
            or (self.streaming and engine.decoder.partial_size)
        )

    # -- The end -------------------------------------------------------------

    @enable_ki_protection
    def changed(self) -> None:
        """Act on what a step of the engine brought: wake, write, end."""
        engine = self._engine
        if self._receiver is not None and self._has_incoming:
            receiver, self._receiver = self._receiver, None
            trio.lowlevel.reschedule(receiver)
        if engine.phase is not OPEN and not self._ended:
            self._ended = True
            if self._reading in (CALLER, LAST_CALLER):
                self._transport.wake()
            self._wake_reader()  # also where it has paused
            self._wake_room()
            self._set_deadline(self._options.close_timeout)
            self._on_end()
        if engine.phase is FAILED and not isinstance(engine.cause, EOFError):
            self._set_deadline(_LINGER)
        if engine.outbox.size or self._ended:
            # Also where the outbox is empty: what the transport took may not be
            # on the wire yet, and our stream must not end before.
            self.flush()

    def _set_deadline(self, seconds: float | None) -> None:
        if seconds is not None:
            self._deadline = min(self._deadline, trio.current_time() + seconds)
        if self._reader_scope is not None:
            self._reader_scope.deadline = self._deadline

    def _end_reading(self) -> None:
        self._cut = True
        if self._reader_scope is not None:
            self._reader_scope.cancel()

    def _lost(self, exc: OSError) -> None:
        """Take note that the transport is broken."""
        self._broken = True
        if self._engine.phase is CLOSE_DONE:
            # Both close frames went their way: how TCP ends is of no interest.
            self._engine.receive_eof()
        else:
            self._engine.lose(exc)
        self.changed()
        self._end_reading()

    def _settle(self) -> None:
        """Settle the state when the reader ends, which closes the transport."""
        engine = self._engine
        self._broken = True
        if engine.phase is CLOSE_DONE:
            engine.receive_eof()
        elif engine.phase not in FINAL:
            engine.lose(self._unanswered())
        engine.abandon(flushed=not (self._transport.unsent and self._holds_data))
        self.changed()

    def _unanswered(self) -> OSError:
        if trio.current_time() < self._deadline:
            return ConnectionAbortedError("closed without waiting for the peer")
        seconds = self._options.close_timeout
        return TimeoutError(f"closing took longer than {seconds} s")

    @enable_ki_protection
    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake: a close frame behind the data."""
        self._engine.close(code, reason)
        self.changed()

    @enable_ki_protection
    def fail(self, code: int, reason: str, cause: BaseException | None) -> None:
        """Give the connection up: a close frame, then nothing more."""
        self._engine.fail(code, reason, cause)
        self.changed()

    async def goodbye(self, code: int, reason: str) -> None:
        """Say and close what can be said and closed without waiting (R11).

        **Cancellation**: none; takes turns of the loop but no time.
        """
        if self._engine.phase is OPEN:
            self.close(code, reason)
        self._write_some()
        for _ in range(_GOODBYE_TURNS):
            if self._flushed or self._broken:
                break
            await trio.lowlevel.cancel_shielded_checkpoint()
        if self._flushed:
            self._transport.shutdown()
        for _ in range(_GOODBYE_DRAIN):
            if self._broken or not self.read_now():
                break
        self._end_reading()
        with trio.CancelScope(shield=True):
            await self.wait_closed()

    async def abort(self) -> None:
        """Close the transport of a connection that never got its scope."""
        await self._transport.aclose()

    def discard(self) -> None:
        """Do so in a finaliser, perhaps after the end of the trio run."""
        self._transport.discard()

    # -- What writing leads to -----------------------------------------------

    def _write_failed(self, exc: OSError) -> None:
        # What the peer said before it went, its close frame perhaps, is read
        # first: it says more than the failure to write does.
        if not self._broken:
            self._broken = True
            if isinstance(exc, ConnectionResetError):
                self._reset = exc
            for _ in range(_LAST_READS):
                if self._engine.phase in FINAL or not self.read_now():
                    break
            self._lost(exc)

    def _after_flush(self) -> None:
        """End our stream when nothing more will be written on it."""
        phase = self._engine.phase
        # RFC 6455, section 7.1.1: the server is the one that closes first.
        if not self._shut and (
            phase is FAILED or (phase is CLOSE_DONE and not self._client)
        ):
            self._shut = True
            shut = not self._broken and self._transport.shutdown()
            # Section 5.5.1: "The server MUST close the underlying TCP connection
            # immediately". Only a peer that broke the protocol may still send,
            # and is listened to for a while; not one given up for its silence.
            if (
                not shut
                or phase is CLOSE_DONE
                or isinstance(self._engine.cause, TimeoutError)
            ):
                self._end_reading()
