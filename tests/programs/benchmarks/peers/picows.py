"""picows: its async API, which is that of websockets, and its core, of callbacks."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import picows

from . import (
    HOST,
    AsyncioPeer,
    Drive,
    End,
    Handler,
    Message,
    Options,
    Unsupported,
    WrongData,
)
from ._certificates import client_context, server_context
from .websockets import WebsocketsAsyncio

BINARY = picows.WSMsgType.BINARY
CLOSE = picows.WSMsgType.CLOSE


class PicowsAsync(WebsocketsAsyncio):
    package = "picows.websockets.asyncio"

    def __init__(self, *, uvloop: bool = False) -> None:
        super().__init__(uvloop=uvloop)
        exceptions: Any = importlib.import_module("picows.websockets.exceptions")
        self.closed = exceptions.ConnectionClosed


class Listener(picows.WSListener):
    """Answers a close; calls for each other frame what is in ``on_message``."""

    def __init__(self) -> None:
        self.on_message: Callable[[Any], None] = lambda frame: None
        self.room = asyncio.Event()
        self.room.set()

    def on_ws_connected(self, transport: Any) -> None:
        self.transport = transport

    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        if frame.msg_type == CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()
        else:
            self.on_message(frame)

    def pause_writing(self) -> None:
        self.room.clear()

    def resume_writing(self) -> None:
        self.room.set()


class Echo(Listener):
    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        if frame.msg_type == CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()
        else:
            transport.send(BINARY, frame.get_payload_as_memoryview())


class Receiver:
    """Checks messages, and sends the next one of a round trip."""

    def __init__(self, listener: Listener) -> None:
        self.listener = listener

    async def receive(
        self, messages: Sequence[Message], count: int, *, answering: bool
    ) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        number = 0
        size = len(messages)
        transport = self.listener.transport
        message = messages[0]

        def on_message(frame: Any) -> None:
            nonlocal number, message
            if frame.get_payload_as_bytes() != message:
                done.set_exception(WrongData(f"{len(message)} bytes differ"))
                return
            number += 1
            if number == count:
                done.set_result(None)
                return
            message = messages[number % size]
            if answering:
                transport.send(BINARY, message)

        self.listener.on_message = on_message
        if answering:
            transport.send(BINARY, message)
        await done


class PicowsCore(AsyncioPeer):
    can_deflate = False

    def server(
        self, handler: Handler, options: Options
    ) -> AbstractAsyncContextManager[int]:
        raise Unsupported  # there is no recv()

    def client(self, port: int, options: Options) -> AbstractAsyncContextManager[End]:
        raise Unsupported

    @asynccontextmanager
    async def _serve(
        self, listener: Callable[[], Listener], options: Options
    ) -> AsyncIterator[int]:
        server = await picows.ws_create_server(
            lambda request: listener(), HOST, 0, ssl=server_context(options.tls)
        )
        yield server.sockets[0].getsockname()[1]
        server.close()

    @asynccontextmanager
    async def _connect(self, port: int, options: Options) -> AsyncIterator[Listener]:
        scheme = "wss" if options.tls else "ws"
        listener = Listener()
        transport, _ = await picows.ws_connect(
            lambda: listener,
            f"{scheme}://{HOST}:{port}/",
            ssl_context=client_context(options.tls),
        )
        yield listener
        transport.send_close(picows.WSCloseCode.OK)
        await transport.wait_disconnected()

    def echo_server(self, options: Options) -> AbstractAsyncContextManager[int]:
        return self._serve(Echo, options)

    @asynccontextmanager
    async def round_trips(
        self, options: Options, messages: Sequence[Message]
    ) -> AsyncIterator[Drive]:
        async with (
            self.echo_server(options) as port,
            self._connect(port, options) as listener,
        ):
            receiver = Receiver(listener)

            async def drive(count: int) -> None:
                await receiver.receive(messages, count, answering=True)

            yield drive

    @asynccontextmanager
    async def one_way(
        self, options: Options, message: Message, *, from_client: bool
    ) -> AsyncIterator[Drive]:
        listeners: list[Listener] = []

        def listen() -> Listener:
            listeners.append(Listener())
            return listeners[-1]

        async def drive(count: int) -> None:
            async def send_all() -> None:
                send, room = sender.transport.send, sender.room
                for _ in range(count):
                    send(BINARY, message)
                    if not room.is_set():
                        await room.wait()

            await self.both(
                lambda: receiver.receive([message], count, answering=False), send_all
            )

        async with self._serve(listen, options) as port:
            async with self._connect(port, options) as client:
                sender, receiving = client, listeners[0]
                if not from_client:
                    sender, receiving = receiving, sender
                receiver = Receiver(receiving)
                yield drive

    @asynccontextmanager
    async def connects(self, options: Options) -> AsyncIterator[Drive]:
        ended = 0

        class Counting(Listener):
            def on_ws_disconnected(self, transport: Any) -> None:
                nonlocal ended
                ended += 1

        async def drive(count: int) -> None:
            nonlocal ended
            ended = 0
            for _ in range(count):
                async with self._connect(port, options):
                    pass
            while ended < count:
                await self.sleep(0)

        async with self._serve(Counting, options) as port:
            yield drive
