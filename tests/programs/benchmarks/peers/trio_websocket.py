"""trio-websocket."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from . import HOST, End, Handler, Options, TrioPeer
from ._certificates import client_context, server_context

# Any: it has annotations, but isn't installed everywhere.
library: Any = importlib.import_module("trio_websocket")


class TrioWebsocket(TrioPeer):
    can_deflate = False  # no keyword for it

    @asynccontextmanager
    async def server(self, handler: Handler, options: Options) -> AsyncIterator[int]:
        async def on_request(request: Any) -> None:
            ws = await request.accept()
            try:
                await handler(End(ws.send_message, ws.get_message))
            except library.ConnectionClosed:  # else its server ends with it
                pass

        context = server_context(options.tls)
        listeners: Any
        if context is None:
            listeners = await trio.open_tcp_listeners(0, host=HOST)
            port = listeners[0].socket.getsockname()[1]
        else:
            listeners = await trio.open_ssl_over_tcp_listeners(
                0, context, host=HOST, https_compatible=True
            )
            port = listeners[0].transport_listener.socket.getsockname()[1]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(library.WebSocketServer(on_request, listeners).run)
            yield port
            nursery.cancel_scope.cancel()

    @asynccontextmanager
    async def client(self, port: int, options: Options) -> AsyncIterator[End]:
        scheme = "wss" if options.tls else "ws"
        async with library.open_websocket_url(
            f"{scheme}://{HOST}:{port}/", client_context(options.tls)
        ) as ws:
            yield End(ws.send_message, ws.get_message)
