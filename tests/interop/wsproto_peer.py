"""wsproto: a protocol without I/O, and the least I/O that makes a peer of it.

This one is strict about the end: the server ends TCP first, in order, and
nothing comes between the close frame and that (RFC 6455, sections 5.5.1, 7.1.1).
"""

from __future__ import annotations

import functools
import math
import select
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import trio
import trio.testing
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Message,
    Ping,
    Pong,
    Request,
    TextMessage,
)
from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import CloseReason

from tests.interop.peer import HOST, TLS, Ending, Library, Peer, Service


class WsprotoPeer(Peer):
    def __init__(self, stream: trio.SocketStream, *, client: bool) -> None:
        self._stream = stream
        self._client = client
        self._protocol = WSConnection(
            ConnectionType.CLIENT if client else ConnectionType.SERVER
        )
        self._sending = trio.Lock()  # the reader sends, too
        self._subprotocol: str | None = None
        self._pieces: list[str | bytes] = []
        self._sender, self._messages = trio.open_memory_channel[str | bytes](math.inf)
        self._pong_sender, self._pongs = trio.open_memory_channel[bytes](math.inf)
        self._close: CloseConnection | None = None
        self._wrong: list[str] = []
        self._over = trio.Event()

    @property
    def subprotocol(self) -> str | None:
        return self._subprotocol

    # -- Opening ---------------------------------------------------------------

    async def open(self, subprotocols: Sequence[str]) -> None:
        if self._client:
            await self._send(
                Request(
                    host=HOST,
                    target="/",
                    subprotocols=list(subprotocols),
                    extensions=[PerMessageDeflate()],
                )
            )
        event = await self._first_event()
        if self._client:
            assert isinstance(event, AcceptConnection)
            self._subprotocol = event.subprotocol
        else:
            assert isinstance(event, Request)
            chosen = [name for name in subprotocols if name in event.subprotocols]
            self._subprotocol = chosen[0] if chosen else None
            await self._send(
                AcceptConnection(
                    subprotocol=self._subprotocol, extensions=[PerMessageDeflate()]
                )
            )

    async def _first_event(self) -> Event:
        while True:
            for event in self._protocol.events():
                return event
            self._protocol.receive_data(await self._stream.receive_some())

    # -- Reading ---------------------------------------------------------------

    async def run(self) -> None:
        """Read until the end of the stream."""
        try:
            while True:
                for event in self._protocol.events():
                    await self._take(event)
                data = await self._stream.receive_some()
                if not data:
                    break
                if self._protocol.state is ConnectionState.CLOSED:
                    self._wrong.append(f"behind the close frame came {data!r}")
                else:
                    self._protocol.receive_data(data)
        except trio.BrokenResourceError as exc:
            self._wrong.append(f"instead of the end came {exc.__cause__!r}")
        if self._protocol.state is not ConnectionState.CLOSED:
            self._wrong.append("the stream ended before the closing handshake did")
        await self._stream.aclose()
        self._over.set()

    async def _take(self, event: Event) -> None:
        if isinstance(event, Ping):
            await self._send(event.response())
        elif isinstance(event, Pong):
            self._pong_sender.send_nowait(bytes(event.payload))
        elif isinstance(event, CloseConnection):
            self._close = event
            async with self._sending:
                if self._protocol.state is ConnectionState.REMOTE_CLOSING:
                    await self._stream.send_all(self._protocol.send(event.response()))
            if not self._client:
                await trio.testing.wait_all_tasks_blocked()
                ended = select.select([self._stream.socket], [], [], 0)[0]
                # Who fails the connection may end it (section 7.1.7).
                if ended and event.code != CloseReason.MESSAGE_TOO_BIG:
                    self._wrong.append("the client ended TCP before the server did")
                await self._stream.send_eof()
        else:
            assert isinstance(event, Message)
            self._pieces.append(_as_plain(event.data))
            if event.message_finished:
                self._sender.send_nowait(_joined(self._pieces))
                self._pieces = []

    # -- What the tests do -----------------------------------------------------

    async def _send(self, event: Event) -> None:
        async with self._sending:
            await self._stream.send_all(self._protocol.send(event))

    async def send(self, message: str | bytes) -> None:
        await self._send(_event(message, last=True))

    async def send_fragments(self, fragments: Sequence[str | bytes]) -> None:
        for index, fragment in enumerate(fragments):
            last = index == len(fragments) - 1
            await self._send(_event(fragment, last=last))
            if not last:
                await self.ping()

    async def recv(self) -> str | bytes:
        return await self._messages.receive()

    async def ping(self) -> None:
        await self._send(Ping(payload=b"wsproto's"))
        while await self._pongs.receive() != b"wsproto's":
            pass

    async def close(self, code: int, reason: str) -> None:
        await self._send(CloseConnection(code=code, reason=reason))
        await self._over.wait()

    async def closed(self) -> Ending:
        await self._over.wait()
        if self._close is None:
            return Ending(1006, "")
        assert self._wrong == []
        return Ending(self._close.code, self._close.reason or "")


def _as_plain(data: str | bytes | bytearray) -> str | bytes:
    return data if isinstance(data, str) else bytes(data)


def _joined(pieces: list[str | bytes]) -> str | bytes:
    if isinstance(pieces[0], str):
        return "".join(piece for piece in pieces if isinstance(piece, str))
    return b"".join(piece for piece in pieces if isinstance(piece, bytes))


def _event(data: str | bytes, *, last: bool) -> Event:
    if isinstance(data, str):
        return TextMessage(data=data, message_finished=last)
    return BytesMessage(data=data, message_finished=last)


class WsprotoService(Service):
    def __init__(self, subprotocols: Sequence[str]) -> None:
        self._subprotocols = subprotocols
        self._sender, self._accepted = trio.open_memory_channel[Peer](1)

    async def handle(self, stream: trio.SocketStream) -> None:
        peer = WsprotoPeer(stream, client=False)
        await peer.open(self._subprotocols)
        self._sender.send_nowait(peer)
        await peer.run()

    async def accept(self) -> Peer:
        return await self._accepted.receive()


class WsprotoLibrary(Library):
    @asynccontextmanager
    async def connect(
        self, port: int, *, subprotocols: Sequence[str] = (), tls: TLS | None = None
    ) -> AsyncGenerator[Peer, None]:
        assert tls is None
        peer = WsprotoPeer(await trio.open_tcp_stream(HOST, port), client=True)
        await peer.open(subprotocols)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.run)
            yield peer

    @asynccontextmanager
    async def serve(
        self, *, subprotocols: Sequence[str] = (), tls: TLS | None = None
    ) -> AsyncGenerator[Service, None]:
        assert tls is None
        service = WsprotoService(subprotocols)
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(
                functools.partial(trio.serve_tcp, service.handle, 0, host=HOST)
            )
            service.port = listeners[0].socket.getsockname()[1]
            yield service
            nursery.cancel_scope.cancel()


LIBRARY = WsprotoLibrary()
