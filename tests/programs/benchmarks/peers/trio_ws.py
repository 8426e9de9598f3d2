"""The library of this project."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio_ws

from . import HOST, End, Handler, Options, TrioPeer
from ._certificates import client_context, server_context


def keywords(options: Options) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if not options.deflate:
        found["compression"] = None
    if not options.keepalive:
        found["ping_interval"] = None
    if options.max_size is not None:
        found["max_size"] = options.max_size
    return found


class TrioWs(TrioPeer):
    @asynccontextmanager
    async def server(self, handler: Handler, options: Options) -> AsyncIterator[int]:
        async with self._open(handler, options) as server:
            yield server.port

    def _open(self, handler: Handler, options: Options) -> trio_ws.open_server:
        async def serve(ws: trio_ws.ServerConnection) -> None:
            try:
                await handler(End(ws.send, ws.recv))
            except trio_ws.ConnectionClosed:
                pass

        return trio_ws.open_server(
            serve,
            0,
            host=HOST,
            ssl=server_context(options.tls),
            **keywords(options),
        )

    @asynccontextmanager
    async def client(self, port: int, options: Options) -> AsyncIterator[End]:
        scheme = "wss" if options.tls else "ws"
        async with trio_ws.connect(
            f"{scheme}://{HOST}:{port}/",
            ssl=client_context(options.tls),
            **keywords(options),
        ) as ws:
            assert ws.response is not None
            agreed = "Sec-WebSocket-Extensions" in ws.response.headers
            assert agreed == options.deflate
            yield End(ws.send, ws.recv)

    @asynccontextmanager
    async def broadcasting(
        self, options: Options
    ) -> AsyncIterator[tuple[int, Callable[[bytes], Awaitable[None]]]]:
        async def handler(end: End) -> None:
            await end.recv()

        async def send(message: bytes) -> None:
            assert not trio_ws.broadcast(server.connections, message)

        async with self._open(handler, options) as server:
            yield server.port, send
