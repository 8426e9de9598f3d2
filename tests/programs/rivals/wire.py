"""A peer driven byte by byte: a plain TCP connection that speaks just enough.

It does the opening handshake properly; after that the scenario decides what is
read and written, and when, so that a library's behaviour is judged by the bytes
that really crossed the socket. It shares no code with any library under test.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple

import trio

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
REQUEST = (
    "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
    "Connection: Upgrade\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"
    "Sec-WebSocket-Version: 13\r\n\r\n"
)


class Ended(Exception):
    """The library ended the connection; `partial` is what came of a frame."""

    def __init__(self, how: str, partial: bytes = b"") -> None:
        super().__init__(how)
        self.how = how
        self.partial = partial


class Frame(NamedTuple):
    fin: bool
    opcode: int
    payload: bytes


def frame(opcode: int, payload: bytes = b"", *, client: bool) -> bytes:
    """One whole frame. A client's is masked with zeros, so that it stays legible."""
    mask_bit = 0x80 if client else 0
    if len(payload) < 126:
        header = struct.pack("!BB", 0x80 | opcode, mask_bit | len(payload))
    elif len(payload) < 65536:
        header = struct.pack("!BBH", 0x80 | opcode, mask_bit | 126, len(payload))
    else:
        header = struct.pack("!BBQ", 0x80 | opcode, mask_bit | 127, len(payload))
    return header + (bytes(4) if client else b"") + payload


def unmask(payload: bytes, key: bytes) -> bytes:
    size = len(payload)
    keys = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(payload) ^ int.from_bytes(keys)).to_bytes(size)


class Wire:
    """One end of the connection; `client` says which one."""

    def __init__(self, stream: trio.SocketStream, *, client: bool) -> None:
        self.stream = stream
        self.client = client
        self.buffer = bytearray()
        self.writing = trio.Lock()

    async def shake_hands(self) -> bytes:
        """Return what came: the answer, or a client's request."""
        if self.client:
            await self.stream.send_all(REQUEST.encode())
            head = await self.head()
            assert head.startswith(b"HTTP/1.1 101 "), head
        else:
            head = await self.head()
            found = re.search(rb"(?i)\r\nsec-websocket-key: *(\S+)", head)
            assert found is not None
            accept = base64.b64encode(hashlib.sha1(found[1] + GUID).digest())
            await self.stream.send_all(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                b"Connection: Upgrade\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n"
            )
        return head

    async def head(self) -> bytes:
        """The head of an HTTP message, blank line included."""
        while b"\r\n\r\n" not in self.buffer:
            await self.more()
        return self.take(self.buffer.index(b"\r\n\r\n") + 4)

    async def more(self) -> None:
        try:
            data = await self.stream.receive_some(1 << 20)
        except trio.BrokenResourceError:
            raise Ended("reset", bytes(self.buffer)) from None
        if not data:
            raise Ended("end of stream", bytes(self.buffer))
        self.buffer += data

    def take(self, size: int) -> bytes:
        data = bytes(self.buffer[:size])
        del self.buffer[:size]
        return data

    async def exactly(self, size: int) -> bytes:
        while len(self.buffer) < size:
            await self.more()
        return self.take(size)

    async def read(self) -> Frame:
        """Return the next frame.

        When the stream ends inside its payload, Ended.partial is that payload so
        far, unmasked.
        """
        first, second = await self.exactly(2)
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack("!H", await self.exactly(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", await self.exactly(8))
        key = await self.exactly(4) if second & 0x80 else bytes(4)
        try:
            payload = await self.exactly(size)
        except Ended as end:
            raise Ended(end.how, unmask(end.partial, key)) from None
        return Frame(bool(first & 0x80), first & 0x0F, unmask(payload, key))

    async def send(self, opcode: int, payload: bytes = b"") -> None:
        async with self.writing:
            await self.stream.send_all(frame(opcode, payload, client=self.client))

    async def ending(self) -> str:
        """Read on to the Close frame or the end: "Close 1001", "end of stream"..."""
        while True:
            try:
                _, opcode, payload = await self.read()
            except Ended as end:
                return f"{end.how} without Close"
            if opcode == CLOSE:
                return f"Close {int.from_bytes(payload[:2])}"

    async def answer_close(self, code: int = 1000) -> None:
        """Answer a Close frame; that the library has gone already is its right."""
        with contextlib.suppress(trio.BrokenResourceError):
            await self.send(CLOSE, code.to_bytes(2))
        if not self.client:
            await self.stream.aclose()

    def reset(self) -> None:
        """Close the socket with an RST instead of a FIN."""
        linger = struct.pack("ii", 1, 0)
        self.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.stream.socket.close()


@contextlib.asynccontextmanager
async def raw_server(
    script: Callable[[Wire], Awaitable[None]], *, receive_buffer: int | None = None
) -> AsyncIterator[int]:
    """Run `script` for each connection after the handshake; yields the port."""

    async def handle(stream: trio.SocketStream) -> None:
        wire = Wire(stream, client=False)
        with contextlib.suppress(Ended, trio.BrokenResourceError):
            await wire.shake_hands()
            await script(wire)

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    (listener,) = listeners
    if receive_buffer is not None:  # accepted sockets inherit it
        listener.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, handle, listeners)
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def raw_client(port: int) -> AsyncIterator[Wire]:
    """A connection to a library's server, after the handshake."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        wire = Wire(stream, client=True)
        await wire.shake_hands()
        yield wire
