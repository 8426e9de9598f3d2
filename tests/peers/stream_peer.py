"""A peer that is a script: it answers the opening handshake and then misbehaves.

It is the stream itself, so there is no task at its end and nothing of it depends
on the order in which tasks run. MockClock can make its silences pass at once.
"""

from __future__ import annotations

import contextlib
import errno
import re
from math import inf
from typing import TYPE_CHECKING

import trio

from tests.peers.wire import CLOSE, parse_stream
from trio_ws._protocol.handshake.common import accept_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from websockets.frames import Frame


REQUEST = (
    b"GET /chat HTTP/1.1\r\n"
    b"Host: testing\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
    b"\r\n"
)

URI = "ws://testing/chat"

DEFLATE = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"


def response_to(request: bytes, *, deflate: bool = False) -> bytes:
    """Make the answer that opens a connection; ``deflate`` accepts compression."""
    found = re.search(rb"(?i)\r\nSec-WebSocket-Key: (\S+)\r\n", request)
    assert found is not None, request
    return (
        b"HTTP/1.1 101 Switching Protocols\r\n"
        b"Upgrade: websocket\r\n"
        b"Connection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: "
        + accept_key(found[1].decode()).encode()
        + b"\r\n"
        + DEFLATE * deflate
        + b"\r\n"
    )


def reset_error() -> trio.BrokenResourceError:
    """What trio's streams raise for a reset."""
    error = trio.BrokenResourceError("socket connection broken")
    error.__cause__ = ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
    return error


class StreamPeer(trio.abc.Stream):
    """The stream that a connection gets, and what the peer does with it."""

    def __init__(self, *, answer_cut: int | None = None, deflate: bool = False) -> None:
        self.sent = bytearray()  # what the connection wrote, the handshake included
        self.handshake_size = 0  # how much of it is the handshake
        self.takes: float = inf  # bytes that the peer reads before it stops
        self.send_error: BaseException | None = None
        self.close_error: BaseException | None = None
        self.closed = False
        self.reads = 0
        self._answer_cut = answer_cut
        self._deflate = deflate
        self._after_answer: str | None = None
        self.after_handshake = b""  # comes in one read with the answer
        # Called when our close frame came.
        self.on_close: Callable[[], None] | None = None
        self._incoming = bytearray()
        self._receive_error: BaseException | None = None
        self._ended = False
        self._wake = trio.Event()

    # -- What the peer does ----------------------------------------------------

    def feed(self, data: bytes) -> None:
        self._incoming += data
        self._woken()

    def end(self) -> None:
        self._ended = True
        self._woken()

    def reset(self) -> None:
        """What was fed can still be read; nothing can be written."""
        self._receive_error = reset_error()
        self.send_error = reset_error()
        self._woken()

    def vanish(self, way: str) -> None:
        if way == "end":
            self.end()
        elif way == "reset":
            self.reset()
        else:
            assert way == "silence"

    def after_answer(self, way: str) -> None:
        """Vanish right behind the answer to the opening handshake."""
        self._after_answer = way

    def take(self, count: float) -> None:
        """Read so many bytes more."""
        self.takes += count
        self._woken()

    @property
    def frames(self) -> list[Frame]:
        """The whole frames that the connection wrote."""
        wrote = bytes(self.sent[self.handshake_size :])
        return parse_stream(wrote, masked=not self._serves)

    def _woken(self) -> None:
        self._wake.set()
        self._wake = trio.Event()

    # -- The stream ------------------------------------------------------------

    _serves = False  # whether the connection under test is a server

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        rest = bytes(data)
        while rest:
            if self.closed:
                raise trio.ClosedResourceError
            if self.send_error is not None:
                raise self.send_error
            count = int(min(len(rest), self.takes))
            self.sent += rest[:count]
            self.takes -= count
            rest = rest[count:]
            self._react()
            if rest:
                await self._wake.wait()

    def _react(self) -> None:
        if self.handshake_size and self.on_close is not None:
            with contextlib.suppress(EOFError):  # a frame that isn't complete
                if self.frames and self.frames[-1].opcode == CLOSE:
                    on_close, self.on_close = self.on_close, None
                    on_close()
        if self.handshake_size or not self.sent.endswith(b"\r\n\r\n"):
            return
        self.handshake_size = len(self.sent)
        if self.sent.startswith(b"HTTP/"):
            self._serves = True
            return
        answer = response_to(bytes(self.sent), deflate=self._deflate)
        answer += self.after_handshake
        self.feed(answer[: self._answer_cut])
        if self._after_answer is not None:
            self.vanish(self._after_answer)

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        while True:
            if self.closed:
                raise trio.ClosedResourceError
            if self._incoming:
                self.reads += 1
                data = bytes(self._incoming[:max_bytes])
                del self._incoming[:max_bytes]
                return data
            if self._receive_error is not None:
                raise self._receive_error
            if self._ended:
                return b""
            await self._wake.wait()

    async def aclose(self) -> None:
        self.closed = True
        self._woken()
        if self.close_error is not None:
            raise self.close_error
        await trio.lowlevel.checkpoint()


def server_peer(*, deflate: bool = False) -> StreamPeer:
    """A peer for accept(): a client, whose request is there already."""
    peer = StreamPeer()
    peer.feed(REQUEST.removesuffix(b"\r\n") + DEFLATE * deflate + b"\r\n")
    return peer
