"""Reads what the peer sends: in the reader's task, or in that of a receive call.

Who reads is a state, of which one task at a time is the owner:

* KEEPER: the reader waits for the socket; receive calls sleep till it wakes them.
* PAUSED: nobody reads, since enough waits for the application (R10).
* STANDBY: nobody reads. The application has just been given a message and is
  expected back; should it not come, the reader goes on after a nap.
* CALLER: a receive call waits for the socket and reads in its own task, which
  saves the switch from the reader's; where messages come one after the other, it
  looks for the next before it waits. The reader naps.
* LAST_CALLER: the same, but then the reader goes on.

So the reader is never evicted. It steps aside of its own accord, when it has
woken a receiver twice within _QUICK seconds: slow traffic gains nothing by it.
Reading itself is one synchronous step, so whoever does it, cancelled or not,
nothing is lost between the socket and the queue.
"""

from __future__ import annotations

import abc
import enum
from math import inf
from time import perf_counter

import trio
from trio.lowlevel import checkpoint, enable_ki_protection

from ._keepalive import Pings
from ._options import Options
from ._protocol._engine import Engine
from ._protocol._state import OPEN
from ._transports import READ_SIZE, Transport
from ._writing import Writer

# Receive calls that follow each other faster than this, in seconds, read. Meanwhile
# the reader naps for _NAP at a time: when they stop, it may notice what comes next
# that much later.
_QUICK = 0.02
_NAP = 0.05

# A receiver that reads looks again after one turn of the loop, without waiting for the
# socket, which costs more than twice that turn. It does so as long as each look finds
# something, which on a busy server is nearly always. After a look in vain it waits for
# the socket once before it looks again, after further ones 3 times, 7, up to so many.
_MOST_WAITS = 63

# What is parsed in one step, however long it takes; READ_SIZE is the most.
_LEAST_READ = 4096

# When the peer breaks the protocol, messages that came before in the same read
# can be answered in these turns of the loop: one may come before the receiver's.
_ANSWER_TURNS = 2

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


class Reader(Writer):
    """The half of a connection's pump that reads."""

    __slots__ = (
        "_bug",
        "_called",
        "_calls",
        "_cut",
        "_delivered",
        "_full",
        "_pings",
        "_read_size",
        "_reading",
        "_receiver",
        "_reset",
        "_vain_waits",
        "_waits",
        "callers_read",
        "reads",
        "streaming",
    )

    def __init__(
        self, engine: Engine, transport: Transport, options: Options, pings: Pings
    ) -> None:
        super().__init__(engine, transport, options)
        self._pings = pings
        # Whether receivers may read; the helpers for tests have one order of
        # things, whatever the clock says.
        self.callers_read = transport.callers_read
        self._reset: ConnectionResetError | None = None  # that a write met with
        self._bug: Exception | None = None  # that parsing met with
        self._cut = False  # the reader ends as soon as it can
        self._receiver: trio.lowlevel.Task | None = None
        self._reading = KEEPER
        self._called: trio.Event | None = None  # wakes the keeper that waits for it
        self._delivered = -inf  # when the keeper last brought a receiver something
        self._calls = 0  # how many reads of callers found something
        self._read_size = READ_SIZE
        self._waits = 0  # how many, before a receiver looks without waiting
        self._vain_waits = 0  # how many there were to be when one last looked in vain
        self._full = True  # the last read filled its buffer: there may be more
        self.streaming = False  # somebody reads the current message piecemeal
        self.reads = 0  # how many brought something

    # -- What reading leads to -----------------------------------------------

    @abc.abstractmethod
    def changed(self) -> None:
        """Act on what a step of the engine brought."""

    @abc.abstractmethod
    def _lost(self, exc: OSError) -> None:
        """Take note that the transport is broken."""

    # -- The reader's task ---------------------------------------------------

    @property
    def paused(self) -> bool:
        """Whether reading waits for the application (R10)."""
        return self._reading is PAUSED

    async def _read(self) -> None:
        """Read until the peer's stream ends or breaks, or nobody wants more."""
        while not self._cut:  # a wait that is cancelled at once costs, too
            if self._reading is PAUSED:
                await self._pause()
            elif self._reading is not KEEPER:
                await self._stand_by()
            if self._bug is not None:
                raise self._bug
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
        engine, options = self._engine, self._options
        # Not at the very limit: each pause costs two switches of tasks.
        if (
            options.max_queue is None or len(engine.messages) <= options.max_queue // 4
        ) and (options.max_size is None or engine.queued <= options.max_size // 4):
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

    def read_if_nobody_does(self) -> None:
        """Read what is there while a receiver is expected back, who hasn't come."""
        if self._reading is STANDBY:
            self._read_some(self._read_size)
            if self._engine.violation is not None:
                self._wake_reader()  # what follows is the reader's

    @enable_ki_protection
    def _read_some(self, size: int = READ_SIZE) -> int | None:
        engine = self._engine
        space = engine.space()
        data: bytes | None = None
        try:
            if space is None:
                data = self._transport.read(size)
                count = None if data is None else len(data)
            else:
                size = len(space)
                with space:
                    count = self._transport.read_into(space)
        except OSError as exc:
            self._lost(exc)
            return 0
        if count:
            self.reads += 1
            try:
                if data is None:
                    acts = engine.filled(count)
                elif count < _LEAST_READ:
                    acts = engine.receive(data)
                else:
                    acts = self._receive_much(data)
            except Exception as exc:  # noqa: BLE001 - the reader raises it
                # Of a user's extension, perhaps. Whoever read, the reader ends by
                # it, and the connection with the reader.
                self._bug = exc
                self._wake_reader()
                self._transport.wake()
                return None
            # There is nothing to act on if all that came are messages, and the
            # receiver itself reads; what waits to go out has its flusher.
            if acts or self._receiver is not None:
                self.changed()
        elif count is not None:
            if self._reset is not None:
                # The kernel tells of a reset once; then it says end of stream.
                self._lost(self._reset)
                return 0
            engine.receive_eof()
            self.changed()
        if self._transport.unsent:
            self.flush()  # TLS has an answer of its own
        self._full = count is not None and count >= size
        return count

    def _receive_much(self, data: bytes) -> bool:
        """Take in a large read, and let the next be as large as is fair.

        A read full of tiny frames can take a hundred times as long as one of a
        large message. What is not read waits in the kernel.
        """
        start = perf_counter()
        acts = self._engine.receive(data)
        taken = perf_counter() - start
        fair = self._pacer.seconds
        self._read_size = READ_SIZE
        if taken * READ_SIZE > fair * len(data):
            self._read_size = max(_LEAST_READ, int(len(data) * fair / taken))
        return acts

    @enable_ki_protection
    async def wait_incoming(self) -> None:
        """Wait for a message, a piece of one, or the end of the connection.

        None of them is there when this is called. One task at a time.
        **Cancellation**: nothing is lost.
        """
        engine = self._engine
        if self._flushing:
            # What was held back goes out at the latest when the task waits.
            self._write_some()
            if not engine.idle:  # it failed
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
                looks = not (self._full or self._waits)
                if self._full:
                    await self._pacer.step()
                else:
                    if looks:
                        await checkpoint()
                    else:
                        self._waits -= 1
                        await self._transport.wait_readable()
                    self._pacer.waited()
                if self._reading is KEEPER:  # it was woken for the connection's end
                    return
                found = self._read_some(self._read_size) is not None
                self._calls += found
                if looks:
                    more = min(2 * self._vain_waits + 1, _MOST_WAITS)
                    self._waits = self._vain_waits = 0 if found else more
                if engine.violation is not None:
                    self._reading = LAST_CALLER  # what follows is the reader's
                if self._reading is not CALLER or self._has_incoming:
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
        return not engine.idle or (self.streaming and engine.decoder.partial_size > 0)
