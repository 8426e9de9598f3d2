"""trio-websocket."""

from __future__ import annotations

import functools
import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import trio
from trio_websocket import (
    ConnectionClosed,
    WebSocketConnection,
    WebSocketRequest,
    WebSocketServer,
    serve_websocket,
    wrap_client_stream,
)

from tests.interop.peer import HOST, NEVER, TLS, Ending, Library, Peer, Service

# It answers nothing while its queue is full.
_QUEUE = 64


class TrioWebsocketPeer(Peer):
    can_fragment = False

    def __init__(self, connection: WebSocketConnection) -> None:
        self._connection = connection
        self._sender, self._messages = trio.open_memory_channel[str | bytes](math.inf)
        self._over = trio.Event()
        self._closing = False

    async def run(self) -> None:
        """Receive until the end."""
        while True:
            try:
                self._sender.send_nowait(await self._connection.get_message())
            except ConnectionClosed:
                break
        if not self._closing:
            self._over.set()
        await self._over.wait()

    @property
    def subprotocol(self) -> str | None:
        return self._connection.subprotocol

    async def send(self, message: str | bytes) -> None:
        await self._connection.send_message(message)

    async def recv(self) -> str | bytes:
        return await self._messages.receive()

    async def ping(self) -> None:
        await self._connection.ping()

    async def close(self, code: int, reason: str) -> None:
        self._closing = True
        await self._connection.aclose(code, reason or None)
        self._over.set()

    async def closed(self) -> Ending:
        await self._over.wait()
        ending = self._connection.closed
        assert ending is not None
        return Ending(ending.code, ending.reason or "")


class TrioWebsocketService(Service):
    def __init__(self, subprotocols: Sequence[str]) -> None:
        self._subprotocols = subprotocols
        self._sender, self._accepted = trio.open_memory_channel[Peer](1)

    async def handle(self, request: WebSocketRequest) -> None:
        chosen = [s for s in self._subprotocols if s in request.proposed_subprotocols]
        connection = await request.accept(subprotocol=chosen[0] if chosen else None)
        peer = TrioWebsocketPeer(connection)
        self._sender.send_nowait(peer)
        await peer.run()

    async def accept(self) -> Peer:
        return await self._accepted.receive()


class TrioWebsocketLibrary(Library):
    @asynccontextmanager
    async def connect(
        self, port: int, *, subprotocols: Sequence[str] = (), tls: TLS | None = None
    ) -> AsyncGenerator[Peer, None]:
        stream: trio.SocketStream | trio.SSLStream[trio.SocketStream]
        if tls:
            stream = await trio.open_ssl_over_tcp_stream(
                HOST, port, ssl_context=tls.client, https_compatible=True
            )
        else:
            stream = await trio.open_tcp_stream(HOST, port)
        async with stream, trio.open_nursery() as nursery:
            connection = await wrap_client_stream(
                nursery,
                stream,
                HOST,
                "/",
                subprotocols=subprotocols,
                message_queue_size=_QUEUE,
            )
            peer = TrioWebsocketPeer(connection)

            @nursery.start_soon
            async def run() -> None:
                await peer.run()
                # Where the server closed first, it leaves its end of TCP open
                # until the garbage collector comes by.
                await stream.aclose()

            yield peer
            await connection.aclose()

    @asynccontextmanager
    async def serve(
        self, *, subprotocols: Sequence[str] = (), tls: TLS | None = None
    ) -> AsyncGenerator[Service, None]:
        service = TrioWebsocketService(subprotocols)
        async with trio.open_nursery() as nursery:
            run = functools.partial(
                serve_websocket,
                service.handle,
                HOST,
                0,
                ssl_context=tls.server if tls else None,
                message_queue_size=_QUEUE,
                disconnect_timeout=NEVER,
            )
            server: WebSocketServer = await nursery.start(run)
            service.port = server.port
            yield service
            nursery.cancel_scope.cancel()


LIBRARY = TrioWebsocketLibrary()
