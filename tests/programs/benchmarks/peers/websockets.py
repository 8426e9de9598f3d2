"""websockets, for trio and for asyncio."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from . import HOST, AsyncioPeer, End, Handler, Options, TrioPeer
from ._certificates import client_context, server_context

# Any: these modules also serve picows, which imitates them.
exceptions: Any = importlib.import_module("websockets.exceptions")


def keywords(options: Options) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if not options.deflate:
        found["compression"] = None
    if not options.keepalive:
        found["ping_interval"] = None
    return found


def scheme(options: Options) -> str:
    return "wss" if options.tls else "ws"


class Connects:
    """The client's end, which is the same for trio and for asyncio."""

    for_client: Any

    @asynccontextmanager
    async def client(self, port: int, options: Options) -> AsyncIterator[End]:
        async with self.for_client.connect(
            f"{scheme(options)}://{HOST}:{port}/",
            ssl=client_context(options.tls),
            proxy=None,
            **keywords(options),
        ) as ws:
            yield End(ws.send, ws.recv)


class WebsocketsTrio(Connects, TrioPeer):
    def __init__(self) -> None:
        self.for_server: Any = importlib.import_module("websockets.trio.server")
        self.for_client = importlib.import_module("websockets.trio.client")

    @asynccontextmanager
    async def server(self, handler: Handler, options: Options) -> AsyncIterator[int]:
        async def serve(ws: Any) -> None:
            try:
                await handler(End(ws.send, ws.recv))
            except exceptions.ConnectionClosed:
                pass

        async def run() -> None:
            await self.for_server.serve(
                serve,
                listeners=listeners,
                ssl=server_context(options.tls),
                **keywords(options),
            )

        listeners = await trio.open_tcp_listeners(0, host=HOST)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            yield listeners[0].socket.getsockname()[1]
            nursery.cancel_scope.cancel()


class WebsocketsAsyncio(Connects, AsyncioPeer):
    package = "websockets.asyncio"
    closed: type[Exception] = exceptions.ConnectionClosed

    def __init__(self, *, uvloop: bool = False) -> None:
        super().__init__(uvloop=uvloop)
        self.for_server: Any = importlib.import_module(f"{self.package}.server")
        self.for_client = importlib.import_module(f"{self.package}.client")

    @asynccontextmanager
    async def server(self, handler: Handler, options: Options) -> AsyncIterator[int]:
        async with self._serve(handler, options) as server:
            yield server.sockets[0].getsockname()[1]

    def _serve(self, handler: Handler, options: Options) -> Any:
        async def serve(ws: Any) -> None:
            try:
                await handler(End(ws.send, ws.recv))
            except self.closed:
                pass

        return self.for_server.serve(
            serve, HOST, 0, ssl=server_context(options.tls), **keywords(options)
        )

    @asynccontextmanager
    async def broadcasting(
        self, options: Options
    ) -> AsyncIterator[tuple[int, Callable[[bytes], Awaitable[None]]]]:
        async def handler(end: End) -> None:
            await end.recv()

        async def send(message: bytes) -> None:
            self.for_server.broadcast(server.connections, message)

        async with self._serve(handler, options) as server:
            yield server.sockets[0].getsockname()[1], send
