"""aiohttp."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import ClientSession, WSMessageTypeError, web

from . import HOST, AsyncioPeer, End, Handler, Options
from ._certificates import client_context, server_context


class Aiohttp(AsyncioPeer):
    @asynccontextmanager
    async def server(self, handler: Handler, options: Options) -> AsyncIterator[int]:
        async def serve(request: web.Request) -> web.WebSocketResponse:
            ws = web.WebSocketResponse(compress=options.deflate)
            await ws.prepare(request)
            try:
                if options.deflate:
                    await handler(End(ws.send_str, ws.receive_str))
                else:
                    await handler(End(ws.send_bytes, ws.receive_bytes))
            except (WSMessageTypeError, ConnectionResetError):
                pass  # closed
            return ws

        application = web.Application()
        application.router.add_get("/", serve)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        await web.TCPSite(
            runner, HOST, 0, ssl_context=server_context(options.tls), shutdown_timeout=1
        ).start()
        yield runner.addresses[0][1]
        await runner.cleanup()

    @asynccontextmanager
    async def client(self, port: int, options: Options) -> AsyncIterator[End]:
        scheme = "https" if options.tls else "http"
        async with (
            ClientSession() as session,
            session.ws_connect(
                f"{scheme}://{HOST}:{port}/",
                ssl=client_context(options.tls) or True,
                compress=15 if options.deflate else 0,
            ) as ws,
        ):
            assert bool(ws.compress) == options.deflate
            if options.deflate:
                yield End(ws.send_str, ws.receive_str)
            else:
                yield End(ws.send_bytes, ws.receive_bytes)
