"""Messages for the user: whose turn it is to receive, and how a receive call waits."""

from __future__ import annotations

from collections.abc import Awaitable

import trio
from trio.lowlevel import checkpoint, enable_ki_protection

from .._protocol.closing import FINAL, OPEN
from .._protocol.engine import Engine
from .._transports.base import Transport
from .budget import current_budget
from .ending import Ending
from .errors import ConcurrencyError
from .messages import decode_message
from .reader import OFFERED, RECEIVER, RECEIVER_LAST, TASK, Reader
from .writer import DIRECT, FLUSHING, Writer

# A receiver that reads looks again after one turn of the loop, without waiting for the
# socket, which costs more than twice that turn. It does so as long as each look finds
# something, which on a busy server is nearly always. After a look in vain it waits for
# the socket once before it looks again, after further ones 3 times, 7, up to so many.
_MOST_WAITS = 63


class StreamToken:
    """Says whose turn it is to receive, in the middle of a message."""

    __slots__ = ("begun", "task")

    def __init__(self) -> None:
        self.begun = False  # a piece was taken
        # None once the iteration is given up.
        self.task: trio.lowlevel.Task | None = trio.lowlevel.current_task()

    def is_of_another_task(self) -> bool:
        task = self.task
        if task is None or task is trio.lowlevel.current_task():
            return False
        # One that has ended has left the message, whoever holds its iterator.
        nursery = task.parent_nursery
        return nursery is None or task in nursery.child_tasks


class Receiver:
    """The messages that have come, for one task at a time."""

    __slots__ = (
        "_budget",
        "_ending",
        "_engine",
        "_reader",
        "_transport",
        "_vain_waits",
        "_waits",
        "_writer",
        "receiving",
        "stream",
    )

    def __init__(
        self,
        engine: Engine,
        transport: Transport,
        reader: Reader,
        writer: Writer,
        ending: Ending,
    ) -> None:
        self._engine = engine
        self._transport = transport
        self._reader = reader
        self._writer = writer
        self._ending = ending
        self._budget = current_budget()
        self._waits = 0  # how many, before a receiver looks without waiting
        self._vain_waits = 0  # how many there were to be when one last looked in vain
        self.receiving = False  # a task is in a receive call
        self.stream: StreamToken | None = None  # the message that is read piecemeal

    def begin(self) -> None:
        """Begin to receive; who does clears ``receiving`` in the end."""
        self._budget.check_thread()
        if self.receiving:
            raise ConcurrencyError("another task is already receiving")
        if self.stream is not None and self.stream.is_of_another_task():
            raise ConcurrencyError(
                "another task is in the middle of a message, by recv_streaming()"
            )
        self.receiving = True

    def look(self) -> None:
        """See that a message is there, or raise WouldBlock or ConnectionClosed."""
        self.leave_stream()
        if not self._engine.messages and (
            self._reader.by is OFFERED or self._engine.backlog
        ):
            # A receiver is expected back, who hasn't come; or more is here.
            self._reader.read_some()
            if self._engine.violation is not None:
                self._reader.wake()  # what follows is the reader's
        if not self._engine.messages:
            if self._engine.phase is OPEN:
                raise trio.WouldBlock("no message is there")
            if not self.look_after_end():
                raise self._ending.closed()

    @enable_ki_protection
    def look_after_end(self) -> bool:
        """Tell whether a message is there, after the end of the connection.

        What one read brought isn't all parsed at once (R10), and what came before a
        loss isn't lost (R2).
        """
        engine = self._engine
        while engine.phase in FINAL and not engine.messages and engine.decoder.stopped:
            engine.go_on()
        return bool(engine.messages)

    @enable_ki_protection
    def take(self, decode: bool | None) -> str | bytes:
        """Take the message that is there."""
        # Converted before it is taken: what can't be decoded isn't lost.
        message = decode_message(self._engine.peek(), decode)
        self._engine.pop()
        self._reader.resume_if_low()
        return message

    # -- Piece by piece ------------------------------------------------------

    def begin_stream(self) -> StreamToken:
        """Begin to read the next message piecemeal."""
        self.leave_stream()
        self.stream = StreamToken()
        self._reader.streaming = True
        return self.stream

    def end_stream(self) -> None:
        """End it: the message is complete, or will never be."""
        self.stream = None
        self._reader.streaming = False

    async def next_piece(self, token: StreamToken) -> tuple[str | bytes, bool]:
        """Return a piece, and whether it is the last."""
        engine = self._engine
        while True:
            if engine.messages:
                return engine.peek(), True
            # After a loss only what belongs to a message that was begun before.
            if engine.decoder.in_message and (token.begun or engine.phase is OPEN):
                taken = engine.decoder.take_partial()
                self._reader.resume_if_low()
                if taken:
                    token.begun = True
                    return taken, False
            if engine.phase is OPEN:
                await self.wait()
            elif engine.phase in FINAL and engine.decoder.stopped:
                engine.go_on()
            else:
                self.end_stream()
                raise self._ending.closed()

    def take_last_piece(self) -> None:
        """Take the piece that next_piece() said is the last."""
        self.end_stream()
        self._engine.pop()
        self._reader.resume_if_low()

    @enable_ki_protection
    def leave_stream(self) -> None:
        """Discard the rest of a message that recv_streaming() was left in."""
        if self.stream is None:
            return
        begun = self.stream.begun
        self.end_stream()
        if not begun:
            pass  # cancelled before the first piece, so nothing is lost (R4)
        elif self._engine.messages:
            self._engine.pop()
        else:
            self._engine.decoder.discard_partial()
        self._reader.resume_if_low()

    # -- Waiting -------------------------------------------------------------

    @enable_ki_protection
    def sleep(self) -> Awaitable[object]:
        """Wait while another task reads; to be awaited at once.

        The caller renews the budget then. Not a coroutine of its own, which would be
        one more to run for each message, and cost an idle connection 200 bytes.
        """
        if self._writer.state is not DIRECT and self._ends_by_writing():
            return self._budget.checkpoint()
        self._reader.parked = trio.lowlevel.current_task()
        return trio.lowlevel.wait_task_rescheduled(self._reader.unpark)  # noqa: ASYNC105

    def _ends_by_writing(self) -> bool:
        """Write what is held back, now at the latest; return whether it failed."""
        self._writer.write_some()
        return not self._engine.idle

    @enable_ki_protection
    async def wait(self) -> None:
        """Wait for a message, a piece, or the end. **Cancellation**: loses nothing."""
        engine, reader, writer = self._engine, self._reader, self._writer
        if reader.by is not OFFERED:
            await self.sleep()
            self._budget.renew()
            return
        if writer.state is not DIRECT and self._ends_by_writing():
            await self._budget.checkpoint()
            return
        # This task is here, so it reads, rather than be woken by another.
        reader.by = RECEIVER
        try:
            while True:
                looks = not (reader.full or self._waits)
                if looks:
                    await checkpoint()
                elif not reader.full:
                    self._waits -= 1
                    await self._transport.wait_readable()
                if reader.full or self._budget.long_step:
                    await self._budget.checkpoint()
                else:
                    self._budget.renew()
                if writer.state is FLUSHING and engine.outbox.pongs_full:
                    await reader.slow_down()
                if reader.by is TASK:  # it was woken for the connection's end
                    return
                found = reader.read_some() is not None
                reader.receiver_reads += found
                if looks:
                    more = min(2 * self._vain_waits + 1, _MOST_WAITS)
                    self._waits = self._vain_waits = 0 if found else more
                if engine.violation is not None:
                    reader.by = RECEIVER_LAST  # what follows is the reader's
                if reader.by is not RECEIVER or reader.has_input:
                    return
        except trio.ClosedResourceError:
            pass  # it was woken
        except OSError as exc:
            reader.host.lost(exc)
        finally:
            if reader.by is RECEIVER:
                reader.by = OFFERED
            elif reader.by is RECEIVER_LAST:
                reader.wake()
