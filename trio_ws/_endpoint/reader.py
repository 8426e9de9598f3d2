"""Reads what the peer sends: in the reader's task, the poller's, or a receive call's.

Who reads is a state. Reader and Receiver change it, and these are all the changes:

    state          what happens                                     next
    TASK           all there is to do is to read on, by a poller    POLLER
    POLLER         there is something else, or no poller any more   TASK
    TASK, POLLER   it wakes receivers quickly, _IN_A_ROW            OFFERED
    TASK           enough waits for the application (R10)           PAUSED
    PAUSED         the application has taken enough                 TASK
    OFFERED        a receive call comes and waits                   RECEIVER
    OFFERED        fewer than _OFTEN reads came within a nap        TASK
    RECEIVER       the call has its message, or is cancelled        OFFERED
    RECEIVER       fewer than _OFTEN reads came within a nap; or
                   a pong, or room to write, is waited for          RECEIVER_LAST
    RECEIVER_LAST  the call has its message, or is cancelled        TASK
    any            the connection ends; what was read raises        TASK

A call that reads in its own task saves the switch from the reader's; where messages
come one after the other, it looks for the next before it waits. Slow traffic loses by
it, so the reader's task steps aside only for calls that come quickly and often, and
naps meanwhile. A server's poller reads for such tasks, which do all else.

Reading itself is one synchronous step, so whoever does it, cancelled or not,
nothing is lost between the socket and the queue.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable
from math import inf
from time import perf_counter

import trio
from trio.lowlevel import checkpoint, enable_ki_protection

from .._protocol.closing import OPEN
from .._protocol.engine import Engine
from .._transports.base import READ_SIZE, Transport
from .budget import current_budget
from .host import NO_HOST, STOPPED, Host
from .options import Options
from .pings import Pings
from .poller import Poller
from .writer import FLUSHING, Writer

# Receive calls read once _IN_A_ROW of them got a message within _QUICK seconds of the
# one before, which those of 300 a second by chance hardly ever do. They go on while
# _OFTEN reads come in each nap. What comes once they stop may be seen two naps later.
_QUICK = 0.001
_IN_A_ROW = 8
_OFTEN = 10
_NAP = 0.05

# A read of fewer bytes, without extensions, is parsed in one step. Of another, so many
# frames at first, then as many as a fair share of time allows, at most so many.
_MUCH = 4096
_FRAMES = 64
_MOST_FRAMES = 4096

# When the peer breaks the protocol, messages that came before in the same read
# can be answered in these turns of the loop: one may come before the receiver's.
_ANSWER_TURNS = 2

# While pongs can't leave, each read waits so many seconds.
_PONGS_WAIT = 0.02

# Who reads a message piece by piece and stops has this much, in bytes, waiting.
_PARTIAL_LIMIT = 2**16


class Reading(enum.Enum):
    """Who reads."""

    TASK = enum.auto()  # the reader's task; receive calls sleep till it wakes them
    PAUSED = enum.auto()  # nobody, since enough waits for the application
    OFFERED = enum.auto()  # nobody; a receive call is expected soon
    POLLER = enum.auto()  # the poller, for the task
    RECEIVER = enum.auto()  # a receive call, in its own task
    RECEIVER_LAST = enum.auto()  # a receive call, and then the reader's task again


TASK = Reading.TASK
PAUSED = Reading.PAUSED
OFFERED = Reading.OFFERED
POLLER = Reading.POLLER
RECEIVER = Reading.RECEIVER
RECEIVER_LAST = Reading.RECEIVER_LAST


class Reader:
    """The incoming side of a transport."""

    __slots__ = (
        "_budget",
        "_delivered",
        "_engine",
        "_error",
        "_fd",
        "_frame_limit",
        "_max_messages",
        "_pings",
        "_quick_ones",
        "_sleeper",
        "_transport",
        "_writer",
        "by",
        "bytes_received",
        "callers_read",
        "calls_user",
        "full",
        "host",
        "parked",
        "poller",
        "receiver_reads",
        "reset",
        "streaming",
    )

    def __init__(
        self,
        engine: Engine,
        transport: Transport,
        options: Options,
        writer: Writer,
        pings: Pings,
    ) -> None:
        self._engine = engine
        self._transport = transport
        self._max_messages = options.max_messages
        self._writer = writer
        self._pings = pings
        self.host: Host = NO_HOST
        self._budget = current_budget()
        self.callers_read = transport.callers_read  # whether receivers may read
        self.calls_user = False  # an extension or a log is the user's
        self.reset: OSError | None = None  # that a write met with
        self.parked: trio.lowlevel.Task | None = None  # a receiver that sleeps
        self.by = TASK
        self._sleeper: trio.lowlevel.Task | None = None  # the task, until wake()
        self.poller: Poller | None = None
        self._fd = -1  # what the poller knows it by
        self._error: Exception | None = None  # of the poller's reading
        self._delivered = -inf  # when the task last brought a receiver something
        self._quick_ones = 0  # how often in a row it was quick to bring the next
        self.receiver_reads = 0  # how many reads of receive calls found something
        self._frame_limit = _FRAMES
        self.full = False  # the last read filled its buffer: there may be more
        self.streaming = False  # somebody reads the current message piecemeal
        self.bytes_received = 0  # behind the handshake, also with it

    # -- The reader's task ---------------------------------------------------

    async def run(self) -> None:
        """Read until the peer's stream ends or breaks, or nobody wants more."""
        while self.host.state < STOPPED:  # a wait that is cancelled at once costs, too
            if self.by is PAUSED:
                await self._sleep(PAUSED)
            elif self.by is not TASK:
                await self._stand_by()
            if self._engine.violation is not None:
                for _ in range(_ANSWER_TURNS):
                    await checkpoint()
                self._engine.act_on_violation()
                self.host.changed()
            if self.poller is not None and self._goes_to_poller(self.poller):
                await self._sleep(POLLER)
                self._raise_error()
                continue  # what there is to do now, and for whom, may be another
            if not self.full:
                # After a short read, reading again would find nothing.
                try:
                    await self._transport.wait_readable()
                except trio.ClosedResourceError:
                    pass  # it was woken
                except OSError as exc:
                    self.host.lost(exc)
                    return
            if self.full or self._budget.long_step:
                await self._budget.yield_()
            if self._writer.state is FLUSHING and self._engine.outbox.pongs_full:
                await self.slow_down()
            if self._should_pause():
                await self._sleep(PAUSED)
            receiver = self.parked
            if self.read_some() == 0:
                return
            if receiver is not None and self.parked is None:
                self._offer()

    async def slow_down(self) -> None:
        """Read less quickly of a peer that sends pings and takes no pongs.

        Not "not at all": two peers of that kind would wait for each other (R7).
        """
        await trio.sleep(_PONGS_WAIT)

    def _offer(self) -> None:
        """Let receivers read for themselves if they come quickly, one by one."""
        now = trio.current_time()
        quick = now - self._delivered < _QUICK
        self._quick_ones = self._quick_ones + 1 if quick else 0
        self._delivered = now
        if (
            self._quick_ones >= _IN_A_ROW
            and self.callers_read
            and self._engine.phase is OPEN
            and self._engine.violation is None
            and not self._pings.waiting
            # Else the peer might wait for the end of a nap.
            and not self._writer.sender_waits
        ):
            self.wake()
            self.by = OFFERED

    async def _stand_by(self) -> None:
        """Sleep while receivers read, until they don't any more, or not quickly."""
        poller, wait = self.poller, _NAP
        if poller is not None:
            poller.standing_by += 1
        try:
            while self.by is not TASK:
                before = self.receiver_reads
                with trio.move_on_after(wait):
                    await self._sleep(self.by)
                    break
                if self.receiver_reads >= before + _OFTEN:
                    continue
                if self.by is OFFERED:
                    break
                # Who waits for so long goes on waiting, but then it is our turn: in
                # slow traffic these naps would cost more than they save.
                if self.by is RECEIVER:
                    self.by = RECEIVER_LAST
                wait = inf
        finally:
            if poller is not None:
                poller.standing_by -= 1
        self.by = TASK

    def _sleep(self, by: Reading) -> Awaitable[object]:
        """Wait until wake(); whoever it is reads meanwhile."""
        self.by = by
        self._sleeper = trio.lowlevel.current_task()
        return trio.lowlevel.wait_task_rescheduled(self._abort)  # noqa: ASYNC105

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        """Give up waiting, as trio's abort function."""
        self._sleeper = None
        if self.by is POLLER:
            self._leave_poller()
        return trio.lowlevel.Abort.SUCCEEDED

    # -- By the poller -------------------------------------------------------

    def _goes_to_poller(self, poller: Poller) -> bool:
        """Have the poller read, if that is all there is to do, and if it can."""
        if not (self.bytes_received and self._reads_plainly()):
            return False  # many open and close, no more
        self._fd = self._transport.fileno()
        if not poller.add(self._fd, self):
            self.poller = None
        return self.poller is not None

    def _reads_plainly(self) -> bool:
        """Whether all there is to do is to read when something comes."""
        engine = self._engine
        return (
            engine.phase is OPEN
            and engine.violation is None
            and not engine.backlog
            and not (self._writer.state is FLUSHING and engine.outbox.pongs_full)
            and not (self._transport.holds or self._should_pause())
        )

    def read_on(self, few: bool) -> None:
        """Read once, in the poller's task; ``few``: so few are read for."""
        receiver = self.parked
        try:
            count = self.read_some()
            if self.by is not POLLER:
                return  # it has been woken, as for the connection's end
            if count == 0 or not self._reads_plainly():
                self.wake()
            elif receiver is not None and self.parked is None and few:
                self._offer()
        except Exception as exc:  # noqa: BLE001 - raised in the reader's task
            self._error = exc
            self.wake()

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        try:
            if error is not None:
                raise error
        finally:
            del error  # no cycle with its traceback

    def _leave_poller(self) -> None:
        assert self.poller is not None
        self.poller.remove(self._fd)
        self.by = TASK

    @enable_ki_protection
    def keep_reading(self) -> None:
        """Have the reader read on, from any task that waits for what may come."""
        if self.by is RECEIVER or self.by is RECEIVER_LAST:
            self.by = RECEIVER_LAST
        elif self.by is OFFERED:
            self.wake()

    def wake(self) -> None:
        """Have the reader's task read on."""
        if self.by is POLLER:
            self._leave_poller()
        self.by = TASK
        if self._sleeper is not None:
            task, self._sleeper = self._sleeper, None
            trio.lowlevel.reschedule(task)

    def _should_pause(self) -> bool:
        engine = self._engine
        return engine.phase is OPEN and (
            len(engine.messages) > self._max_messages
            or engine.queued > engine.max_waiting
            or (self.streaming and engine.decoder.partial_size > _PARTIAL_LIMIT)
        )

    def resume_if_low(self) -> None:
        """Let the reader go on once what waits has been taken down far enough."""
        if self.by is not PAUSED:
            return
        engine = self._engine
        # Not at the very limit: each pause costs two switches of tasks.
        if (
            len(engine.messages) <= self._max_messages // 4
            and engine.queued <= engine.max_waiting // 4
        ):
            self.wake()

    def read_now(self) -> int | None:
        """Read, parse and act on what is there, from any task.

        Return its size, 0 at the end of the stream, None if nothing was there.
        """
        count = self.read_some()
        if self._engine.violation is not None:
            self._engine.act_on_violation()
            self.host.changed()
        if self.by is POLLER:
            self.wake()  # it may have to pause
        elif self.full or (self.by in (RECEIVER, RECEIVER_LAST) and self.has_input):
            # After a full read what is left may be in TLS: waiting for the socket
            # would be waiting for nothing.
            self._transport.wake()
        return count

    @enable_ki_protection
    def read_some(self) -> int | None:
        """Read once and parse, in one step: no more than is fair, nor than has room.

        Return the size, 0 at the end of the stream, None if nothing was there.
        """
        engine = self._engine
        data: bytes | None = None
        size = READ_SIZE
        backlog = self.full and engine.backlog  # what was read before comes first
        try:
            if backlog:
                count: int | None = size  # more may be there, in TLS even
            elif (space := engine.space()) is None:
                data = self._transport.read()
                count = None if data is None else len(data)
            else:
                size = len(space)
                with space:
                    count = self._transport.read_into(space)
        except OSError as exc:
            self.host.lost(exc)
            return 0
        except Exception as exc:  # noqa: BLE001 - what it had read is lost, perhaps
            self.host.died(exc)
            return None
        if count:
            self.bytes_received += 0 if backlog else count
            try:
                if backlog or (data and (count >= _MUCH or engine.extensions)):
                    acts = self._parse_much(data)
                elif data is None:
                    acts = engine.filled(count)
                else:
                    acts = engine.receive(data)
            except Exception as exc:  # noqa: BLE001 - of a user's extension, perhaps
                self.host.died(exc)
                return None
            # Messages alone are for who waits; what waits to go out has its flusher.
            if acts:
                self.host.changed()
            elif self.parked is not None:
                self.wake_parked()
        elif count is not None:
            self._end_of_stream()
        if self._transport.unsent:
            self._writer.flush()  # TLS has an answer of its own
        self.full = engine.backlog or (count is not None and count >= size)
        return count

    def _end_of_stream(self) -> None:
        if self.reset is not None:
            # The kernel tells of a reset once; then it says end of stream.
            self.host.lost(self.reset)
        else:
            self._engine.receive_eof()
            self.host.changed()

    def _parse_much(self, data: bytes | None) -> bool:
        """Parse a large read, or more of one, and learn how many frames are fair.

        A frame can take a tenth of a microsecond, or, compressed, milliseconds.
        """
        engine, decoder = self._engine, self._engine.decoder
        decoder.frame_limit = limit = self._frame_limit
        start = perf_counter()
        acts = engine.go_on() if data is None else engine.receive(data)
        taken = perf_counter() - start
        long_step = taken > self._budget.seconds
        self._budget.long_step |= long_step
        if decoder.stopped and (long_step or decoder.room >= 0):
            fair = int(limit * self._budget.seconds / max(taken, 1e-6))
            self._frame_limit = min(max(fair, 1), _MOST_FRAMES)
        return acts

    def wake_parked(self) -> None:
        """Wake the receiver that sleeps, if there is something for it."""
        if self.parked is not None and self.has_input:
            receiver, self.parked = self.parked, None
            trio.lowlevel.reschedule(receiver)

    def unpark(self, _: object) -> trio.lowlevel.Abort:
        """Give up waiting, as trio's abort function."""
        self.parked = None
        return trio.lowlevel.Abort.SUCCEEDED

    @property
    def has_input(self) -> bool:
        """Whether there is something for a receiver."""
        engine = self._engine
        return not engine.idle or (self.streaming and engine.decoder.partial_size > 0)
