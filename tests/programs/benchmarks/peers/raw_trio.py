"""trio's own streams and channels, with no protocol at all: what trio itself costs."""

from __future__ import annotations

import socket
from abc import abstractmethod
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import trio

from . import HOST, End, Handler, Options, TrioPeer, Unsupported
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


class BareLoop(RawTrio):
    """The system calls of a server's connection, on trio's loop, and nothing else.

    Each message takes a turn of the loop; sending is a cancellation point.
    """

    def end(self, stream: Stream, size: int) -> End:
        assert isinstance(stream, trio.SocketStream)
        sock = socket.socket(fileno=stream.socket.detach())
        sock.setblocking(False)

        async def send(message: bytes) -> None:
            await trio.lowlevel.checkpoint_if_cancelled()
            assert sock.send(message) == len(message)

        async def recv() -> bytes:
            await trio.lowlevel.checkpoint()
            while True:
                try:
                    data = sock.recv(size)
                    break
                except BlockingIOError:
                    await trio.lowlevel.wait_readable(sock)
            if len(data) < size:
                sock.close()
                raise trio.BrokenResourceError("end of stream")
            return data

        return End(send, recv)


class NoNetwork(TrioPeer):
    """Both ends in memory, so that only one way is of interest."""

    @abstractmethod
    def pair(self) -> tuple[End, End]:
        """Make two ends: one that sends, one that receives."""

    @asynccontextmanager
    async def server(self, handler: Handler, options: Options) -> AsyncIterator[int]:
        self._client, self._server = self.pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(handler, self._server)
            yield 0

    @asynccontextmanager
    async def client(self, port: int, options: Options) -> AsyncIterator[End]:
        yield self._client

    def echo_server(self, options: Options) -> AbstractAsyncContextManager[int]:
        raise Unsupported


class MemoryChannel(NoNetwork):
    def pair(self) -> tuple[End, End]:
        send, receive = trio.open_memory_channel[bytes](64)
        return End(send.send, receive.receive), End(send.send, receive.receive)


class CancellationPoints(NoNetwork):
    """Calls that are cancellation points, as each of trio must be, and nothing else."""

    def pair(self) -> tuple[End, End]:
        messages: deque[bytes] = deque()

        async def send(message: bytes) -> None:
            await trio.lowlevel.checkpoint_if_cancelled()
            messages.append(message)

        async def recv() -> bytes:
            await trio.lowlevel.checkpoint_if_cancelled()
            while not messages:
                await trio.lowlevel.checkpoint()
            return messages.popleft()

        return End(send, recv), End(send, recv)
