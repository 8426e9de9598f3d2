"""The websockets library, on asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import cast

import pytest
from websockets import Subprotocol
from websockets.asyncio.client import connect
from websockets.asyncio.connection import Connection
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed, ConnectionClosedOK

from tests.interop.asyncio_thread import AsyncioThread
from tests.interop.peer import HOST, NEVER, TLS, Ending, Library, Peer, Service


class WebsocketsPeer(Peer):
    def __init__(self, thread: AsyncioThread, connection: Connection) -> None:
        self._thread = thread
        self._connection = connection

    @property
    def subprotocol(self) -> str | None:
        return self._connection.subprotocol

    async def send(self, message: str | bytes) -> None:
        await self._thread.run(self._connection.send(message))

    async def send_fragments(self, fragments: Sequence[str | bytes]) -> None:
        async def each() -> AsyncIterator[str | bytes]:
            for fragment in fragments:
                yield fragment
                await self._ping()

        # One type for all, but which one only the caller knows.
        await self._thread.run(self._connection.send(cast(AsyncIterator[str], each())))

    async def recv(self) -> str | bytes:
        return await self._thread.run(self._connection.recv())

    async def _ping(self) -> None:
        await (await self._connection.ping())

    async def ping(self) -> None:
        await self._thread.run(self._ping())

    async def close(self, code: int, reason: str) -> None:
        await self._thread.run(self._connection.close(code, reason))

    async def closed(self) -> Ending:
        await self._thread.run(self._connection.wait_closed())
        code, reason = self._connection.close_code, self._connection.close_reason
        assert code is not None
        # Its own verdict.
        with pytest.raises(ConnectionClosed) as info:
            await self._thread.run(self._connection.recv())
        in_order = code in (1000, 1001)
        assert isinstance(info.value, ConnectionClosedOK) is in_order
        if code != 1006:
            assert info.value.rcvd is not None
            assert info.value.sent is not None
            assert info.value.__cause__ is None
        return Ending(code, reason)


class WebsocketsService(Service):
    def __init__(self, thread: AsyncioThread) -> None:
        self._thread = thread
        self._accepted = asyncio.Queue[ServerConnection]()

    async def handle(self, connection: ServerConnection) -> None:
        self._accepted.put_nowait(connection)
        await connection.wait_closed()

    async def accept(self) -> Peer:
        return WebsocketsPeer(
            self._thread, await self._thread.run(self._accepted.get())
        )


class WebsocketsLibrary(Library):
    @asynccontextmanager
    async def connect(
        self, port: int, *, subprotocols: Sequence[str] = (), tls: TLS | None = None
    ) -> AsyncGenerator[Peer, None]:
        async def opened() -> Connection:
            return await connect(
                f"{'wss' if tls else 'ws'}://{HOST}:{port}/",
                ssl=tls.client if tls else None,
                subprotocols=[Subprotocol(name) for name in subprotocols] or None,
                close_timeout=NEVER,
                proxy=None,
            )

        with AsyncioThread() as thread:
            connection = await thread.run(opened())
            yield WebsocketsPeer(thread, connection)
            await thread.run(connection.close())

    @asynccontextmanager
    async def serve(
        self, *, subprotocols: Sequence[str] = (), tls: TLS | None = None
    ) -> AsyncGenerator[Service, None]:
        async def opened() -> Server:
            return await serve(
                service.handle,
                HOST,
                0,
                ssl=tls.server if tls else None,
                subprotocols=[Subprotocol(name) for name in subprotocols] or None,
                close_timeout=NEVER,
            )

        async def closed() -> None:
            server.close()
            await server.wait_closed()

        with AsyncioThread() as thread:
            service = WebsocketsService(thread)
            server = await thread.run(opened())
            service.port = next(iter(server.sockets)).getsockname()[1]
            yield service
            await thread.run(closed())


LIBRARY = WebsocketsLibrary()
