"""trio's own streams with no protocol at all: what the loop itself costs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from . import HOST, End, Handler, Options, TrioPeer
from ._certificates import contexts

Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]


class RawTrio(TrioPeer):
    can_deflate = False
    upgrades = False

    def end(self, stream: Stream, size: int) -> End:
        async def recv() -> bytes:
            data = await stream.receive_some(size)
            if len(data) == size:
                return bytes(data)
            parts = bytearray(data)
            while data and len(parts) < size:
                data = await stream.receive_some(size - len(parts))
                parts += data
            if not data:
                raise trio.BrokenResourceError("end of stream")
            return bytes(parts)

        return End(stream.send_all, recv)

    @asynccontextmanager
    async def server(self, handler: Handler, options: Options) -> AsyncIterator[int]:
        async def serve(stream: trio.SocketStream) -> None:
            secured: Stream = stream
            if options.tls:
                secured = trio.SSLStream(stream, contexts()[0], server_side=True)
            try:
                await handler(self.end(secured, options.size))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            await stream.aclose()

        listeners = await trio.open_tcp_listeners(0, host=HOST)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, serve, listeners)
            yield listeners[0].socket.getsockname()[1]
            nursery.cancel_scope.cancel()

    @asynccontextmanager
    async def client(self, port: int, options: Options) -> AsyncIterator[End]:
        async with await trio.open_tcp_stream(HOST, port) as stream:
            secured: Stream = stream
            if options.tls:
                secured = trio.SSLStream(stream, contexts()[1], server_hostname=HOST)
            yield self.end(secured, options.size)
