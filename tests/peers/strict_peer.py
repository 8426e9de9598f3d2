"""The other end of a connection, which believes nothing.

Frames are parsed by websockets' parser, and held against the rules that are
above frames: fragments in order, nothing after a close frame, a stream that ends
between two frames. It answers, reads and closes only as told.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Generator
from contextlib import suppress

import trio
from websockets.exceptions import ProtocolError
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Close, Frame, Opcode
from websockets.streams import StreamReader

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY = base64.b64encode(bytes(16))


class StrictPeer:
    """A peer over a stream; ``client`` says which side the peer plays.

    ``deflate`` lets it offer, or accept, compression; it compresses all it sends.
    """

    def __init__(
        self, stream: trio.abc.Stream, *, client: bool, deflate: bool = False
    ) -> None:
        self.stream = stream
        self.client = client
        self.opened = False  # the opening handshake is done
        self.answers = True  # pings, and the close frame
        self.sent: list[str | bytes] = []  # messages, once whole
        self.messages: list[str | bytes] = []  # that came, whole
        self.pings: list[bytes] = []
        self.pongs: list[bytes] = []
        self.close: Close | None = None
        self.faults: list[str] = []
        self.in_message = False  # a message has begun and isn't whole
        self.cut = False  # the stream ended inside a frame
        self.ended = trio.Event()
        self._extensions = [PerMessageDeflate(False, False, 15, 15)] if deflate else []
        self._opcode = Opcode.TEXT
        self._parts: list[bytes] = []
        self._answers: list[Frame] = []
        self._outgoing: list[str | bytes] = []
        self._sending = trio.Lock()
        self._reader = StreamReader()
        self._parser = self._parse()
        self._reading = trio.Event()
        self._reading.set()
        self._news = trio.Event()

    # -- The opening handshake -----------------------------------------------

    async def open(self, piece: int | None = None) -> None:
        """Do the opening handshake, writing ``piece`` bytes at a time."""
        async with self._sending:
            await self._shake_hands(piece)

    async def _shake_hands(self, piece: int | None) -> None:
        if self.client:
            await self.write(self.request(), piece)
            head = await self._read_head()
            self.opened = head.startswith(b"HTTP/1.1 101 ")
            if self.opened and self._extensions:
                assert _field(head, b"sec-websocket-extensions")
        else:
            head = await self._read_head()
            key = _field(head, b"sec-websocket-key")
            accept = base64.b64encode(hashlib.sha1(key + _GUID).digest())
            await self.write(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                b"Connection: Upgrade\r\nSec-WebSocket-Accept: "
                + accept
                + b"\r\n"
                + self._extension_header()
                + b"\r\n",
                piece,
            )
            self.opened = True

    def request(self) -> bytes:
        return (
            b"GET / HTTP/1.1\r\nHost: peer\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: " + _KEY + b"\r\n" + self._extension_header() + b"\r\n"
        )

    def _extension_header(self) -> bytes:
        if not self._extensions:
            return b""
        return b"Sec-WebSocket-Extensions: permessage-deflate\r\n"

    async def write(self, data: bytes, piece: int | None = None) -> None:
        """Write; that the other side is gone is no error."""
        size = piece or len(data)
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            for start in range(0, len(data), size):
                await self.stream.send_all(data[start : start + size])

    async def _read_head(self) -> bytes:
        head = b""
        while b"\r\n\r\n" not in head:
            data = await self._receive()
            if not data:
                return head
            head += data
        head, _, rest = head.partition(b"\r\n\r\n")
        self._reader.feed_data(rest)
        return head

    # -- Receiving -----------------------------------------------------------

    def hold(self) -> None:
        """Read no more."""
        self._reading = trio.Event()

    def release(self) -> None:
        """Read on."""
        self._reading.set()

    async def receive_rest(self) -> None:
        """Read until the stream ends, where no frames are expected."""
        while await self._receive():
            pass
        await trio.aclose_forcefully(self.stream)
        self.ended.set()

    async def run(self) -> None:
        """Read until the stream ends."""
        if not self.opened:
            await self.receive_rest()
            return
        try:
            answers = self._advance()  # what came behind the handshake
            while not self.ended.is_set():
                if self.answers:
                    await self.write_frames(answers)
                    if self.close is not None and not self.client:
                        await self._end_stream()
                await self._reading.wait()
                data = await self._receive()
                if data:
                    self._reader.feed_data(data)
                else:
                    self._reader.feed_eof()
                answers = self._advance()
        finally:
            await trio.aclose_forcefully(self.stream)

    async def _end_stream(self) -> None:
        # RFC 6455, section 7.1.1: the server is the one that closes first. It
        # reads on where the stream can be closed by halves, to see the end.
        async with self._sending:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                if isinstance(self.stream, trio.abc.HalfCloseableStream):
                    await self.stream.send_eof()
                else:
                    await self.stream.aclose()

    async def _receive(self) -> bytes:
        try:
            return bytes(await self.stream.receive_some(65536))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return b""

    def _advance(self) -> list[Frame]:
        self._answers = []
        try:
            next(self._parser)
        except StopIteration:
            self.ended.set()
        except EOFError:
            self.cut = True
            self.ended.set()
        except ProtocolError as exc:
            self.faults.append(f"{type(exc).__name__}: {exc}")
            self.ended.set()
        self._news.set()
        self._news = trio.Event()
        return self._answers

    def _parse(self) -> Generator[None]:
        reader = self._reader
        while not (yield from reader.at_eof()):
            frame = yield from Frame.parse(
                reader.read_exact, mask=not self.client, extensions=self._extensions
            )
            if self.close is not None:
                self.faults.append(f"{frame} after a close frame")
            self._take(frame)

    def _take(self, frame: Frame) -> None:
        data = bytes(frame.data)
        if frame.opcode is Opcode.PING:
            self.pings.append(data)
            self._answers.append(Frame(Opcode.PONG, data))
        elif frame.opcode is Opcode.PONG:
            self.pongs.append(data)
        elif frame.opcode is Opcode.CLOSE:
            self.close = Close.parse(data)
            self._answers.append(frame)
        else:
            if (frame.opcode is Opcode.CONT) != self.in_message:
                self.faults.append(f"{frame} out of order")
            if frame.opcode is not Opcode.CONT:
                self._opcode = frame.opcode
            self._parts.append(data)
            self.in_message = not frame.fin
            if frame.fin:
                whole = b"".join(self._parts)
                self._parts.clear()
                text = self._opcode is Opcode.TEXT
                self.messages.append(whole.decode() if text else whole)

    async def wait_message(self, message: str | bytes) -> None:
        """Wait for a message, or the end."""
        while message not in self.messages and not self.ended.is_set():
            await self._news.wait()

    # -- Sending -------------------------------------------------------------

    async def send(self, part: str | bytes, *, fin: bool = True) -> None:
        """Send a message, or with ``fin=False`` the next fragment of one."""
        opcode = Opcode.TEXT if isinstance(part, str) else Opcode.BINARY
        data = part.encode() if isinstance(part, str) else part
        frame = Frame(Opcode.CONT if self._outgoing else opcode, data, fin)
        self._outgoing.append(part)
        if fin:
            empty: str | bytes = "" if isinstance(part, str) else b""
            self.sent.append(empty.join(self._outgoing))  # type: ignore[arg-type]
            self._outgoing.clear()
        await self.write_frames([frame])

    async def send_close(self, code: int = 1000) -> None:
        """Send a close frame."""
        await self.write_frames([Frame(Opcode.CLOSE, Close(code, "").serialize())])

    async def send_pong(self, data: bytes) -> None:
        await self.write_frames([Frame(Opcode.PONG, data)])

    async def write_frames(self, frames: list[Frame]) -> None:
        async with self._sending:
            for frame in frames:
                await self.write(
                    frame.serialize(mask=self.client, extensions=self._extensions)
                )


def _field(head: bytes, name: bytes) -> bytes:
    for line in head.split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.strip().lower() == name:
            return value.strip()
    return b""
