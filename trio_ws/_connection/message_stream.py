"""A message read piece by piece, without waiting for its end."""

from __future__ import annotations

import codecs
from collections.abc import AsyncIterator
from typing import Any, Self, cast

import trio
from trio.lowlevel import enable_ki_protection

from .._endpoint.budget import current_budget
from .._endpoint.errors import ConcurrencyError, ConnectionClosed
from .._endpoint.messages import decode_message
from .._endpoint.receiver import Receiver, StreamToken


class MessageStream(AsyncIterator[str | bytes]):
    """The pieces of one message; see :meth:`Connection.recv_streaming`."""

    def __init__(self, receiver: Any, decode: bool | None) -> None:
        self._token: StreamToken | None = None  # first, for __del__()
        self._receiver = cast("Receiver", receiver)
        self._budget = current_budget()
        self._decode = decode
        self._done = False
        self._utf8 = codecs.getincrementaldecoder("utf-8")()

    def __aiter__(self) -> Self:
        return self

    @enable_ki_protection
    async def __anext__(self) -> str | bytes:
        """Wait for the next piece. **Cancellation**: nothing is lost."""
        receiver = self._receiver
        if self._done:
            raise StopAsyncIteration
        receiver.begin()
        try:
            await self._budget.checkpoint()
            if self._token is None:
                self._token = receiver.begin_stream()
            elif receiver.stream is not self._token:
                self._done = True
                raise ConcurrencyError(
                    "another call has received, or discarded, the rest of the message"
                )
            return await self._next_piece(self._token)
        finally:
            receiver.receiving = False

    async def _next_piece(self, token: StreamToken) -> str | bytes:
        receiver = self._receiver
        try:
            piece, last = await receiver.next_piece(token)
        except ConnectionClosed:
            self._done = True
            raise
        piece = self._converted(piece, final=last)
        if last:
            self._done = True
            receiver.take_last_piece()
            if token.begun and not piece:
                raise StopAsyncIteration
        return piece

    def _converted(self, piece: str | bytes, *, final: bool) -> str | bytes:
        if self._decode is True and isinstance(piece, bytes):
            return self._utf8.decode(piece, final)  # a character may be cut
        return decode_message(piece, self._decode)

    async def aclose(self) -> None:
        """Discard the rest of the message. **Cancellation**: discards all the same."""
        self._done = True
        if self._token is not None and self._receiver.stream is self._token:
            self._receiver.leave_stream()
        await trio.lowlevel.checkpoint()

    def __del__(self) -> None:
        # Dropped by a break or an exception in the loop over it: whoever
        # receives next, in whatever task, discards the rest.
        if self._token is not None:
            self._token.task = None
