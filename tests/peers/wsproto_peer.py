"""The other end of a connection, by wsproto: does what a test says, shows what came.

Nothing of trio_ws is in it, so that what it saw is what was on the wire.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
import trio.testing
import wsproto
from wsproto.connection import ConnectionState
from wsproto.events import AcceptConnection, CloseConnection, Event, Ping, Request
from wsproto.frame_protocol import CloseReason

import trio_ws

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from trio_ws._endpoint.options import OptionsDict

# A frame with a reserved opcode, for a client and for a server to send.
_VIOLATION = {True: b"\x83\x80\x00\x00\x00\x00", False: b"\x83\x00"}


class BreakableStream(trio.abc.Stream):
    """A stream that can be reset: whoever uses it, or waits on it, learns it."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._receiving: trio.CancelScope | None = None
        self._reset = False
        self.closed = False

    def reset(self) -> None:
        self._reset = True
        if self._receiving is not None:
            self._receiving.cancel()

    def _raise_if_reset(self) -> None:
        if self._reset:
            error = ConnectionResetError(104, "Connection reset by peer")
            raise trio.BrokenResourceError from error

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self._raise_if_reset()
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        self._raise_if_reset()
        with trio.CancelScope() as self._receiving:
            return await self._stream.receive_some(max_bytes)
        self._raise_if_reset()
        raise AssertionError("cancelled by nobody")

    async def aclose(self) -> None:
        self.closed = True
        await self._stream.aclose()


class WsprotoPeer:
    """The peer of the side under test. ``client`` is what the peer itself is."""

    def __init__(self, stream: trio.abc.HalfCloseableStream, *, client: bool) -> None:
        self._stream = stream
        self._client = client
        self._wsproto = wsproto.WSConnection(
            wsproto.ConnectionType.CLIENT if client else wsproto.ConnectionType.SERVER
        )
        self.answers_pings = True
        self.answers_close = True
        self.events: list[Event] = []
        self.close_code: int | None = None  # of the close frame that came
        self.close_reason: str | None = None
        self.close_came_at: float | None = None
        self.eof_came_at: float | None = None
        self._open = trio.Event()
        self._reading = trio.Event()
        self._reading.set()

    async def run(self) -> None:
        """Do the opening handshake, then take note of what comes, until its end."""
        if self._client:
            await self.send(Request(host="testing", target="/"))
        while True:
            await self._reading.wait()
            try:
                data = await self._stream.receive_some()
            except trio.ClosedResourceError:
                return
            if not data:
                self.eof_came_at = trio.current_time()
                await self._stream.aclose()
                return
            if self.close_code is not None:
                raise AssertionError(f"{bytes(data)!r} came behind a close frame")
            self._wsproto.receive_data(bytes(data))
            for event in self._wsproto.events():
                self.events.append(event)
                await self._act_on(event)

    async def _act_on(self, event: Event) -> None:
        if isinstance(event, Request):
            await self.send(AcceptConnection())
            self._open.set()
        elif isinstance(event, AcceptConnection):
            self._open.set()
        elif isinstance(event, Ping):
            # wsproto sends nothing more behind its close frame.
            if self.answers_pings and self._wsproto.state is ConnectionState.OPEN:
                await self.send(event.response())
        elif isinstance(event, CloseConnection):
            self.close_code = int(event.code)
            self.close_reason = event.reason
            self.close_came_at = trio.current_time()
            if self._wsproto.state is ConnectionState.REMOTE_CLOSING:
                if not self.answers_close:
                    return
                await self.send(event.response())
            if not self._client:
                await self._stream.aclose()  # RFC 6455, section 7.1.1

    async def wait_open(self) -> None:
        await self._open.wait()

    async def send(self, event: Event) -> None:
        await self.send_raw(self._wsproto.send(event))

    async def send_raw(self, data: bytes) -> None:
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async def close(self, code: int, reason: str = "") -> None:
        """Begin the closing handshake; code 1005 means a frame without one."""
        await self.wait_open()
        if code == CloseReason.NO_STATUS_RCVD:
            code = CloseReason.NO_STATUS_RCVD  # wsproto compares identity
        await self.send(CloseConnection(code=code, reason=reason or None))

    async def send_eof(self) -> None:
        """End our stream, and still read the other."""
        await self._stream.send_eof()

    async def violate(self) -> None:
        await self.send_raw(_VIOLATION[self._client])

    def stop_reading(self) -> None:
        """Read nothing more but what a read that waits already will get."""
        self._reading = trio.Event()

    async def aclose(self) -> None:
        self._reading.set()
        await self._stream.aclose()


def open_against_peer(
    *, client: bool, options: OptionsDict | None = None
) -> tuple[
    AbstractAsyncContextManager[trio_ws.ClientConnection | trio_ws.ServerConnection],
    BreakableStream,
    WsprotoPeer,
]:
    """Return the side under test, ``client`` or not, its stream, and its peer."""
    ours, theirs = trio.testing.memory_stream_pair()
    return over(BreakableStream(ours), theirs, client=client, options=options)


def over(
    stream: BreakableStream,
    theirs: trio.abc.HalfCloseableStream,
    *,
    client: bool,
    options: OptionsDict | None = None,
) -> tuple[
    AbstractAsyncContextManager[trio_ws.ClientConnection | trio_ws.ServerConnection],
    BreakableStream,
    WsprotoPeer,
]:
    """As open_against_peer(), over streams of the test's."""
    peer = WsprotoPeer(theirs, client=not client)
    keywords = options or {}
    scope: AbstractAsyncContextManager[
        trio_ws.ClientConnection | trio_ws.ServerConnection
    ]
    if client:
        scope = trio_ws.connect("ws://testing/", stream=stream, **keywords)
    else:
        scope = trio_ws.accept(stream, **keywords)
    return scope, stream, peer
