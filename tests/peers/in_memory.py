"""Peers and listeners in memory, for tests on trio's MockClock.

Memory streams know no time, so a clock that jumps passes over nothing that is
under way, as it would with the kernel's.
"""

from __future__ import annotations

import base64
import hashlib
import math
from typing import Any

import trio
import trio.testing

from trio_ws import connect

# RFC 6455, section 1.2
REQUEST = (
    b"GET /chat HTTP/1.1\r\n"
    b"Host: server.example.com\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Version: 13\r\n\r\n"
)

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, masked: bool = False
) -> bytes:
    """Build a frame; its mask is of zeros."""
    size = len(payload)
    header = bytearray([opcode | (0x80 if fin else 0)])
    mask = 0x80 if masked else 0
    if size < 126:
        header.append(mask | size)
    elif size < 2**16:
        header.append(mask | 126)
        header += size.to_bytes(2, "big")
    else:
        header.append(mask | 127)
        header += size.to_bytes(8, "big")
    return bytes(header) + (bytes(4) if masked else b"") + payload


class RawPeer:
    """The other end of a connection, which says what a test makes it say."""

    def __init__(
        self,
        *,
        client: bool,
        streams: tuple[trio.abc.Stream, trio.abc.Stream] | None = None,
    ) -> None:
        self._client = client
        self.theirs: trio.abc.Stream
        self.stream: trio.abc.Stream
        self.theirs, self.stream = streams or trio.testing.memory_stream_pair()
        self._buffer = b""
        self._sending = trio.StrictFIFOLock()

    async def put(self, *data: bytes) -> None:
        """Send bytes; one task after the other."""
        async with self._sending:
            await self.stream.send_all(b"".join(data))

    async def _head(self) -> bytes:
        while b"\r\n\r\n" not in self._buffer:
            data = await self.stream.receive_some()
            assert data, self._buffer
            self._buffer += bytes(data)
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        return head

    async def answer(self, *extra: bytes) -> None:
        """Accept the request of a client; ``extra`` goes out with the answer."""
        head = await self._head()
        key = next(
            line.split(b": ")[1]
            for line in head.split(b"\r\n")
            if line.startswith(b"Sec-WebSocket-Key")
        )
        guid = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        digest = hashlib.sha1(key + guid).digest()
        await self.put(
            b"HTTP/1.1 101 Switching Protocols\r\n"
            b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n",
            *extra,
        )

    async def ask(self, *extra: bytes) -> None:
        """Send the request of a client, and ``extra`` behind it."""
        await self.put(REQUEST, *extra)

    async def skip_response(self) -> bytes:
        """Read the answer of a server."""
        return await self._head()

    async def send(
        self, opcode: int, payload: bytes = b"", *, fin: bool = True
    ) -> None:
        await self.put(frame(opcode, payload, fin=fin, masked=self._client))

    async def read(self) -> tuple[int, bytes] | None:
        """Read a frame: its first byte and its payload; None at the end."""
        start = await self._take(2)
        if start is None:
            return None
        size = start[1] & 0x7F
        if size > 125:
            size = int.from_bytes(await self._must(2 if size == 126 else 8), "big")
        key = await self._must(4) if start[1] & 0x80 else bytes(4)
        payload = await self._must(size)
        return start[0], bytes(b ^ key[i % 4] for i, b in enumerate(payload))

    async def _must(self, size: int) -> bytes:
        data = await self._take(size)
        assert data is not None
        return data

    async def _take(self, size: int) -> bytes | None:
        while len(self._buffer) < size:
            data = await self.stream.receive_some()
            if not data:
                assert not self._buffer, "end of stream in a frame"
                return None
            self._buffer += bytes(data)
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    async def close(self, code: int = 1000, reason: bytes = b"") -> None:
        """Send a close frame; a server's is the last that it sends."""
        await self.send(CLOSE, code.to_bytes(2, "big") + reason)
        if not self._client:
            await self.end()

    async def end(self) -> None:
        """End the stream, in this direction alone."""
        assert isinstance(self.stream, trio.abc.HalfCloseableStream)
        async with self._sending:
            await self.stream.send_eof()


def close_frame(code: int, reason: str = "") -> tuple[int, bytes]:
    """What RawPeer.read() returns for a close frame."""
    return 0x80 | CLOSE, code.to_bytes(2, "big") + reason.encode()


class MemoryListener(trio.abc.Listener[trio.abc.Stream]):
    """A listener whose clients are tasks of the same test."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[
            trio.abc.Stream | Exception
        ](math.inf)
        self.closed = False

    def connect(self) -> trio.abc.Stream:
        """Return the client's end of a new connection."""
        client, server = trio.testing.memory_stream_pair()
        self.add(server)
        return client

    def add(self, stream: trio.abc.Stream) -> None:
        """Let accept() return the server's end of a connection."""
        self._send.send_nowait(stream)

    def fail(self, exc: Exception) -> None:
        """Make accept() raise, once."""
        self._send.send_nowait(exc)

    async def accept(self) -> trio.abc.Stream:
        item = await self._receive.receive()
        if isinstance(item, Exception):
            raise item
        return item

    async def aclose(self) -> None:
        self.closed = True
        await self._receive.aclose()


def connected(nursery: trio.Nursery, peer: RawPeer, **options: Any) -> connect:
    nursery.start_soon(peer.answer)
    return connect("ws://testing/", stream=peer.theirs, **options)
