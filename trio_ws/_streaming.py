"""A message read piece by piece, without waiting for its end."""

from __future__ import annotations

import codecs
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Self

import trio
from trio.lowlevel import enable_ki_protection

from ._protocol._state import OPEN
from .exceptions import ConcurrencyError

if TYPE_CHECKING:
    from ._connection import Connection


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


class MessageStream(AsyncIterator[str | bytes]):
    """The pieces of one message; see :meth:`Connection.recv_streaming`."""

    def __init__(self, connection: Connection, decode: bool | None) -> None:
        self._connection = connection
        self._decode = decode
        self._token: StreamToken | None = None
        self._done = False
        self._utf8 = codecs.getincrementaldecoder("utf-8")()

    def __aiter__(self) -> Self:
        return self

    @enable_ki_protection
    async def __anext__(self) -> str | bytes:
        """Wait for the next piece. **Cancellation**: nothing is lost."""
        connection = self._connection
        if self._done:
            raise StopAsyncIteration
        connection._begin_receiving()
        try:
            await connection._pacer.step()
            if self._token is None:
                connection._leave_stream()
                self._token = connection._stream = StreamToken()
                connection._pump.streaming = True
            elif connection._stream is not self._token:
                self._done = True
                raise ConcurrencyError(
                    "another call has received, or discarded, the rest of the message"
                )
            return await self._next_piece(self._token)
        finally:
            connection._receiving = False

    async def _next_piece(self, token: StreamToken) -> str | bytes:
        connection = self._connection
        engine = connection._engine
        while True:
            if engine.messages:
                piece = self._converted(engine.messages[0], final=True)
                self._end()
                engine.pop()
                connection._pump.taken()
                if token.begun and not piece:
                    raise StopAsyncIteration
                return piece
            # After a loss only what belongs to a message that was begun before.
            if engine.decoder.in_message and (token.begun or engine.phase is OPEN):
                taken = engine.decoder.take_partial()
                connection._pump.taken()
                if taken:
                    token.begun = True
                    return self._converted(taken, final=False)
            if engine.phase is not OPEN:
                self._end()
                raise connection._closed()
            await connection._pump.wait_incoming()

    def _converted(self, piece: str | bytes, *, final: bool) -> str | bytes:
        if self._decode is True and isinstance(piece, bytes):
            return self._utf8.decode(piece, final)  # a character may be cut
        return converted(piece, self._decode)

    def _end(self) -> None:
        self._done = True
        self._connection._stream = None
        self._connection._pump.streaming = False

    async def aclose(self) -> None:
        """Discard the rest of the message. **Cancellation**: discards all the same."""
        self._done = True
        if self._token is not None and self._connection._stream is self._token:
            self._connection._leave_stream()
        await trio.lowlevel.checkpoint()

    def __del__(self) -> None:
        # Dropped by a break or an exception in the loop over it: whoever
        # receives next, in whatever task, discards the rest.
        if self._token is not None:
            self._token.task = None


def converted(message: str | bytes, decode: bool | None) -> str | bytes:
    """Return a message, or a piece of one, as str or bytes, whichever is wanted."""
    if decode is False and isinstance(message, str):
        return message.encode()
    if decode is True and isinstance(message, bytes):
        return message.decode()
    return message
