"""Sockets and no loop: what the kernel costs."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import trio

from . import (
    HOST,
    Drive,
    End,
    Handler,
    Message,
    Options,
    TrioPeer,
    Unsupported,
    WrongData,
)


class RawSockets(TrioPeer):
    upgrades = False

    def server(
        self, handler: Handler, options: Options
    ) -> AbstractAsyncContextManager[int]:
        raise Unsupported

    def client(self, port: int, options: Options) -> AbstractAsyncContextManager[End]:
        raise Unsupported

    @asynccontextmanager
    async def one_way(
        self, options: Options, message: Message, *, from_client: bool
    ) -> AsyncIterator[Drive]:
        assert isinstance(message, bytes)
        sending = memoryview(message)
        size = len(message)

        async def drive(count: int) -> None:
            sent = came = number = 0
            received = bytearray(size)
            while number < count:
                try:
                    while sent < size * count:
                        sent += sender.send(sending[sent % size :])
                except BlockingIOError:
                    pass
                try:
                    while number < count:
                        came += receiver.recv_into(memoryview(received)[came:])
                        if came == size:
                            if received != message:
                                raise WrongData(f"{size} bytes differ")
                            # Whoever hands over messages makes each anew.
                            received = bytearray(size)
                            came = 0
                            number += 1
                except BlockingIOError:
                    pass

        with socket.create_server((HOST, 0)) as listener:
            receiver = socket.create_connection(listener.getsockname())
            sender, _ = listener.accept()
        with receiver, sender:
            sender.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
            receiver.setblocking(False)
            sender.setblocking(False)
            yield drive

    @asynccontextmanager
    async def broadcasting(
        self, options: Options
    ) -> AsyncIterator[tuple[int, Callable[[bytes], Awaitable[None]]]]:
        """Send the same frame with one call of send() a connection."""
        connections: list[socket.socket] = []

        async def accept() -> None:
            while True:
                connection, _ = await listener.accept()
                connections.append(socket.socket(fileno=connection.detach()))
                connections[-1].setblocking(False)

        async def send(message: bytes) -> None:
            for connection in connections:
                connection.send(message)

        listener = trio.socket.socket()
        await listener.bind((HOST, 0))
        listener.listen(socket.SOMAXCONN)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept)
            yield listener.getsockname()[1], send
            nursery.cancel_scope.cancel()
