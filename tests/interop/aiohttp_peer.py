"""aiohttp."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

from tests.interop.asyncio_thread import AsyncioThread
from tests.interop.peer import HOST, NEVER, TLS, Ending, Library, Peer, Service

_ENDS = {
    aiohttp.WSMsgType.CLOSE,
    aiohttp.WSMsgType.CLOSING,
    aiohttp.WSMsgType.CLOSED,
    aiohttp.WSMsgType.ERROR,
}


class AiohttpPeer(Peer):
    """The API of aiohttp has no fragments; and a pong is seen by receive() alone."""

    can_fragment = False
    echoes_the_code = False

    def __init__(
        self,
        thread: AsyncioThread,
        connection: aiohttp.ClientWebSocketResponse | web.WebSocketResponse,
    ) -> None:
        self._thread = thread
        self._connection = connection
        # The server's close() doesn't wait for it while receive() is under way.
        self.sees_the_answer = isinstance(connection, aiohttp.ClientWebSocketResponse)
        self._messages = asyncio.Queue[str | bytes]()
        self._pongs = asyncio.Queue[bytes]()
        self._ended = asyncio.Event()
        self._reason: str | None = None

    async def read(self) -> None:
        """Receive until the end: aiohttp answers pings only under receive()."""
        while True:
            message = await self._connection.receive()
            if message.type in _ENDS:
                break
            if message.type is aiohttp.WSMsgType.PING:
                await self._connection.pong(message.data)
            elif message.type is aiohttp.WSMsgType.PONG:
                self._pongs.put_nowait(bytes(message.data))
            else:
                self._messages.put_nowait(message.data)
        if message.type is aiohttp.WSMsgType.CLOSE:
            self._reason = message.extra
        self._ended.set()

    @property
    def subprotocol(self) -> str | None:
        if isinstance(self._connection, web.WebSocketResponse):
            return self._connection.ws_protocol
        return self._connection.protocol

    async def send(self, message: str | bytes) -> None:
        if isinstance(message, str):
            await self._thread.run(self._connection.send_str(message))
        else:
            await self._thread.run(self._connection.send_bytes(message))

    async def recv(self) -> str | bytes:
        return await self._thread.run(self._messages.get())

    async def ping(self) -> None:
        await self._thread.run(self._connection.ping(b"aiohttp's"))
        while await self._thread.run(self._pongs.get()) != b"aiohttp's":
            pass

    async def close(self, code: int, reason: str) -> None:
        await self._thread.run(
            self._connection.close(code=code, message=reason.encode())
        )

    async def closed(self) -> Ending:
        await self._thread.run(self._ended.wait())
        code = self._connection.close_code
        assert code is not None
        if code != 1006:
            assert self._connection.exception() is None
        return Ending(int(code), self._reason)


class AiohttpService(Service):
    def __init__(self, thread: AsyncioThread, subprotocols: Sequence[str]) -> None:
        self._thread = thread
        self._subprotocols = subprotocols
        self._accepted = asyncio.Queue[AiohttpPeer]()

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        connection = web.WebSocketResponse(
            protocols=self._subprotocols, autoping=False, timeout=NEVER
        )
        await connection.prepare(request)
        peer = AiohttpPeer(self._thread, connection)
        self._accepted.put_nowait(peer)
        await peer.read()
        return connection

    async def accept(self) -> Peer:
        return await self._thread.run(self._accepted.get())


class AiohttpLibrary(Library):
    @asynccontextmanager
    async def connect(
        self, port: int, *, subprotocols: Sequence[str] = (), tls: TLS | None = None
    ) -> AsyncGenerator[Peer, None]:
        async def opened() -> tuple[AiohttpPeer, asyncio.Task[None]]:
            session = aiohttp.ClientSession()
            thread.resources.append(session.close)
            peer = AiohttpPeer(
                thread,
                await session.ws_connect(
                    f"{'wss' if tls else 'ws'}://{HOST}:{port}/",
                    ssl=tls.client if tls else True,
                    protocols=subprotocols,
                    autoping=False,
                    compress=15,  # offered, as its server accepts it
                    timeout=aiohttp.ClientWSTimeout(ws_close=NEVER),
                ),
            )
            return peer, asyncio.create_task(peer.read())

        async def closed() -> None:
            await peer._connection.close()
            await reader

        with AsyncioThread() as thread:
            peer, reader = await thread.run(opened())
            yield peer
            await thread.run(closed())

    @asynccontextmanager
    async def serve(
        self, *, subprotocols: Sequence[str] = (), tls: TLS | None = None
    ) -> AsyncGenerator[Service, None]:
        async def opened() -> web.AppRunner:
            application = web.Application()
            application.router.add_get("/", service.handle)
            runner = web.AppRunner(application, shutdown_timeout=1)
            thread.resources.append(runner.cleanup)
            await runner.setup()
            context = tls.server if tls else None
            await web.TCPSite(runner, HOST, 0, ssl_context=context).start()
            return runner

        with AsyncioThread() as thread:
            service = AiohttpService(thread, subprotocols)
            runner = await thread.run(opened())
            service.port = runner.addresses[0][1]
            yield service


LIBRARY = AiohttpLibrary()
