"""Connections over sockets whose clock stands still unless a test moves it.

So whatever happens is quick, the reader's naps end when a test says so, and what
happens without a nap's end is seen to need none.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import Any, TypeAlias

import trio
import trio.testing
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.peers.certificates import contexts
from tests.peers.in_memory import CLOSE, TEXT, RawPeer
from tests.peers.sockets import trio_stream
from trio_ws import ClientConnection, Connection, ConnectionClosed, connect
from trio_ws._endpoint.reader import (
    _NAP,
    OFFERED,
    POLLER,
    RECEIVER,
    RECEIVER_LAST,
    TASK,
    Reading,
)


class Wire(trio.abc.Stream):
    """The peer's socket, of which what is written can be held back."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self.held: bytes | None = None

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self.held is None:
            await self._stream.send_all(data)
        else:
            await trio.lowlevel.checkpoint()
            self.held += bytes(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self._stream.aclose()


class Link:
    """A raw server, and a client of ours, over a pair of sockets."""

    def __init__(self, nursery: trio.Nursery, *, tls: bool, tcp: bool) -> None:
        if tcp:
            with socket.create_server(("127.0.0.1", 0)) as listener:
                ours = socket.create_connection(listener.getsockname())
                self.sock, _ = listener.accept()
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        else:
            ours, self.sock = socket.socketpair()
        self.stream = trio_stream(self.sock)
        self._stack = ExitStack()
        self._stack.callback(self.stream.socket.close)
        self._nursery = nursery
        self.closes = True  # when the body ends
        self._ours = trio_stream(ours)
        self._stack.callback(self._ours.socket.close)
        theirs: trio.abc.Stream
        theirs = self._wire = Wire(self.stream)
        self._uri, self._tls = "ws://localhost/", {}
        if tls:
            client, server = contexts()
            theirs = trio.SSLStream(
                theirs, server, server_side=True, https_compatible=True
            )
            self._uri, self._tls = "wss://localhost/", {"ssl": client}
        self.peer = RawPeer(client=False, streams=(self._ours, theirs))

    def free(self) -> None:
        self._stack.close()

    @asynccontextmanager
    async def connected(self, **options: object) -> AsyncIterator[ClientConnection]:
        """Open a connection, which is closed by the peer in the end."""
        self._nursery.start_soon(self.peer.answer)
        async with connect(
            self._uri,
            stream=self._ours,
            **self._tls,  # type: ignore[arg-type]
            **options,  # type: ignore[arg-type]
        ) as ws:
            try:
                yield ws
            except BaseException:
                # No deadline would end the closing handshake of a test that failed.
                self.stream.socket.close()
                raise
            if self.closes:
                self._nursery.start_soon(self.close)

    @asynccontextmanager
    async def standing_by(self, **options: object) -> AsyncIterator[ClientConnection]:
        """Open a connection whose receiver is expected back."""
        async with self.connected(**options) as ws:
            await self.hurry(ws)
            yield ws

    async def close(self) -> None:
        """Send a close frame, end the stream, and read the other to its end."""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            await self.peer.send(CLOSE, b"\x03\xe8")
            self.sock.shutdown(socket.SHUT_WR)
            while await self.peer.read() is not None:
                pass
        await trio.aclose_forcefully(self.peer.stream)

    def reset(self) -> None:
        linger = struct.pack("ii", 1, 0)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.stream.socket.close()

    async def hurry(self, ws: ClientConnection) -> None:
        """Exchange messages until receivers read."""
        for _ in range(3):
            if reading(ws) is OFFERED:
                return
            receiver = await receiving(self._nursery, ws)
            await self.text("quick")
            await wait_all_tasks_blocked()
            assert receiver.got == ["quick"]
        raise AssertionError("the reader doesn't step aside")

    async def encoded(self, data: bytes) -> bytes:
        """Return what goes over the wire for bytes of the peer's."""
        self._wire.held = b""
        await self.peer.put(data)
        encoded, self._wire.held = self._wire.held, None
        return encoded

    async def put_unread(self, data: bytes) -> None:
        """Send bytes, of which nothing has been read when this returns."""
        data = await self.encoded(data)
        assert self.sock.send(data) == len(data)

    async def text(self, *messages: str) -> None:
        for message in messages:
            await self.peer.send(TEXT, message.encode())

    async def reaches(self, receiver: Receiver, message: str) -> None:
        """Send a message, which is the first, and the one, that a task receives."""
        await self.text(message)
        await wait_all_tasks_blocked()
        assert receiver.got == [message]


MakeLink: TypeAlias = "Callable[..., Link]"


def reading(ws: Connection) -> Reading:
    """Who reads; the poller does so for the reader's task."""
    by = ws._endpoint.reader.by
    return TASK if by is POLLER else by


async def passed(clock: MockClock, seconds: float) -> None:
    """Let time pass, and what it brings happen."""
    clock.jump(seconds)
    await wait_all_tasks_blocked()


async def naps_over(clock: MockClock) -> None:
    """Let the reader go on.

    One nap had begun before the last message was read; in another nobody reads.
    """
    for _ in range(2):
        await passed(clock, _NAP)


class Receiver:
    """A task that receives, and what it got."""

    def __init__(self, ws: Connection) -> None:
        self.ws = ws
        self.scope = trio.CancelScope()
        self.got: list[str | bytes] = []
        self.error: ConnectionClosed | None = None
        self.ended = False

    async def receive(self, count: float) -> None:
        try:
            with self.scope:
                while len(self.got) < count:
                    self.got.append(await self.ws.recv())
        except ConnectionClosed as exc:
            self.error = exc
        finally:
            self.ended = True


async def receiving(
    nursery: trio.Nursery, ws: Connection, count: float = 1
) -> Receiver:
    """Start a receiver of so many messages, and see it wait for the first."""
    receiver = Receiver(ws)
    nursery.start_soon(receiver.receive, count)
    await wait_all_tasks_blocked()
    assert not receiver.ended
    return receiver


async def as_caller(
    nursery: trio.Nursery, ws: ClientConnection, count: float = 1
) -> Receiver:
    receiver = await receiving(nursery, ws, count)
    assert reading(ws) is RECEIVER
    return receiver


async def as_last_caller(
    nursery: trio.Nursery, ws: ClientConnection, clock: MockClock, count: float = 1
) -> Receiver:
    receiver = await as_caller(nursery, ws, count)
    await passed(clock, _NAP)
    assert reading(ws) is RECEIVER_LAST
    return receiver


async def receiver_in(
    state: str,
    nursery: trio.Nursery,
    link: Link,
    ws: ClientConnection,
    clock: MockClock,
) -> Receiver:
    """Bring about a state; return what receives in it, or will."""
    await link.hurry(ws)
    if state == "caller":
        return await as_caller(nursery, ws, 100)
    if state == "last_caller":
        return await as_last_caller(nursery, ws, clock, 100)
    if state == "keeper":
        # The next message is the second quick one.
        await naps_over(clock)
        first = await receiving(nursery, ws)
        await link.text("first")
        await wait_all_tasks_blocked()
        assert first.ended
        receiver = await receiving(nursery, ws, 100)
        assert reading(ws) is TASK
        return receiver
    return Receiver(ws)


MakeSockets: TypeAlias = "Callable[..., Sockets]"


class Sockets:
    """A raw peer whose end and ours are sockets of the system."""

    def __init__(self, *, client: bool = False, unix: bool = False) -> None:
        if unix:
            ours, self.sock = socket.socketpair()
        else:
            with socket.create_server(("127.0.0.1", 0)) as listener:
                ours = socket.create_connection(listener.getsockname())
                self.sock, _ = listener.accept()
        streams = [
            trio.SocketStream(trio.socket.from_stdlib_socket(_non_blocking(sock)))
            for sock in (ours, self.sock)
        ]
        self.peer = RawPeer(client=client)
        self.peer.theirs, self.peer.stream = streams

    def reset(self) -> None:
        """Break off as a crashed machine does that has come back."""
        linger = struct.pack("ii", 1, 0)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        stream: Any = self.peer.stream
        stream.socket.close()


def _non_blocking(sock: socket.socket) -> socket.socket:
    sock.setblocking(False)
    return sock
