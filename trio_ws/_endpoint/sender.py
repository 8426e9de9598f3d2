"""Messages of the user's: whose turn it is to send, and the step that commits one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable
from types import TracebackType

import trio
from trio.lowlevel import enable_ki_protection

from .._protocol.closing import FINISHING, OPEN
from .._protocol.engine import Engine
from .._protocol.opcodes import CONT
from .budget import current_budget
from .ending import Ending
from .host import NO_HOST, Host
from .messages import Data, FragmentedMessage
from .reader import Reader
from .writer import DIRECT, Writer


class _Turn:
    """The turn of one sender, in the order in which they came."""

    __slots__ = ("_lock", "_writer")

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    @enable_ki_protection
    async def __aenter__(self) -> None:
        writer = self._writer
        if writer.turn is None:
            writer.turn = trio.StrictFIFOLock()
        self._lock = writer.turn
        try:
            await self._lock.acquire()
        except BaseException:
            self._leave()
            raise

    @enable_ki_protection
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lock.release()
        self._leave()

    def _leave(self) -> None:
        # A waiter that is cancelled may come here late, when there is another lock.
        if self._writer.turn is self._lock and not self._lock.locked():
            self._writer.turn = None


class Sender:
    """Accepts messages, one sender after the other."""

    __slots__ = (
        "_budget",
        "_ending",
        "_engine",
        "_message_end",
        "_reader",
        "_writer",
        "host",
        "in_message",
    )

    def __init__(
        self,
        engine: Engine,
        reader: Reader,
        writer: Writer,
        ending: Ending,
    ) -> None:
        self._engine = engine
        self._reader = reader
        self._writer = writer
        self._ending = ending
        self.host: Host = NO_HOST
        self._budget = current_budget()
        self.in_message = False  # a fragmented message has begun and not ended
        self._message_end: trio.Event | None = None

    @property
    def waiting(self) -> int:
        """How many senders queue."""
        turn = self._writer.turn
        return 0 if turn is None else turn.statistics().tasks_waiting

    @enable_ki_protection
    def queue_behind(self, message: object, compress: bool) -> bool:
        """Accept a message behind others that are about to go out, if there are any."""
        return self._engine.queue_behind(message, compress)

    @enable_ki_protection
    def accept_nowait(self, opcode: int, payload: bytes, compress: bool) -> bool:
        """Accept a message if nobody else's turn is to send and there is room."""
        engine, writer = self._engine, self._writer
        if engine.phase is not OPEN:
            raise self._ending.closed()
        # Where nobody flushes, nothing waits.
        if writer.turn is None and (writer.state is DIRECT or writer.has_room):
            writer.write(engine.data_frame(opcode, payload, True, compress))
            return True
        return False

    async def accept(self, opcode: int, payload: bytes, compress: bool) -> None:
        """Accept a message once it is its turn and there is room."""
        async with _Turn(self._writer):
            await self._wait_room()
            self._commit(opcode, payload, fin=True, compress=compress)

    @property
    def _accepts(self) -> bool:
        """Whether the next frame, of whoever's turn it is, is accepted."""
        phase = self._engine.phase
        return phase is OPEN or (phase is FINISHING and self.in_message)

    @enable_ki_protection
    def _commit(
        self, opcode: int, payload: bytes, *, fin: bool, compress: bool
    ) -> None:
        """Accept a frame: the one step in which a message is committed (R5)."""
        if not self._accepts:
            raise self._ending.closed()
        self._writer.write(self._engine.data_frame(opcode, payload, fin, compress))

    @enable_ki_protection
    def _commit_fragment(
        self, message: FragmentedMessage, payload: bytes, *, fin: bool, compress: bool
    ) -> None:
        """Accept a fragment, and know at the same time that it was."""
        opcode = CONT if message.begun else message.opcode
        self._commit(opcode, payload, fin=fin, compress=compress)
        message.begun = self.in_message = not fin

    async def accept_fragments(
        self, fragments: AsyncIterable[Data], text: bool | None, compress: bool
    ) -> None:
        """Accept the fragments of one message as they come."""
        iterator = aiter(fragments)
        self._check_open()
        async with _Turn(self._writer):
            await self._budget.checkpoint()
            self._check_open()
            message = FragmentedMessage(text)
            try:
                async for fragment in iterator:
                    payload = message.encode(fragment)
                    await self._wait_room()
                    self._commit_fragment(
                        message, payload, fin=False, compress=compress
                    )
                    await self._budget.checkpoint()
                if message.begun:
                    message.finish()
                    await self._wait_room()
                    self._commit_fragment(message, b"", fin=True, compress=compress)
            except BaseException as exc:
                if message.begun and self._accepts:
                    self.host.fail(1011, "message was not completed", exc)
                raise
            finally:
                self.in_message = False
                self.wake_message_end()
                # A generator that isn't finished is finished here, not by the
                # garbage collector. Anything else remains the caller's.
                if isinstance(iterator, AsyncGenerator):
                    with trio.CancelScope(shield=True) as scope:
                        scope.cancel()
                        await iterator.aclose()

    def _check_open(self) -> None:
        """See that a message may begin, before its iterable does anything."""
        if self._engine.phase is not OPEN:
            raise self._ending.closed()

    async def finish(self, deadline: float) -> Exception | None:
        """Wait for the end of the message under way; return why it has none.

        Also if the connection ends before. **Cancellation**: changes nothing.
        """
        task = trio.lowlevel.current_task()
        turn = self._writer.turn
        if turn is not None and turn.statistics().owner is task:
            return RuntimeError("its own iterable has closed the connection")
        if self._message_end is None:
            self._message_end = trio.Event()
        with trio.move_on_at(deadline):
            await self._message_end.wait()
        if not self.in_message:
            return None
        return TimeoutError("message was not completed in time (close_timeout)")

    def wake_message_end(self) -> None:
        """Wake who waits for the end of a message: it is here, or will never be."""
        if self._message_end is not None:
            self._message_end.set()
            self._message_end = None

    async def _wait_room(self) -> None:
        """Wait until a message is accepted or the connection ends.

        **Cancellation**: nothing is lost.
        """
        while self._accepts and not self._writer.has_room:
            self._reader.keep_reading()  # the peer may read no more before we do
            await self._writer.next_room()
