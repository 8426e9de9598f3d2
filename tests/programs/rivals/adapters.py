"""One small class a library, so that a scenario is written once.

Each library runs as its documentation says to run it, with its own defaults;
compression alone is off, as it proves nothing here and costs time.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Protocol

import trio

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Options:
    """Seconds.

    What a library lacks is ignored: trio-websocket has no keepalive, and only
    trio_ws has loss_grace.
    """

    ping_interval: float | None = None
    ping_timeout: float | None = None
    close_timeout: float = 1.0
    loss_grace: float = 0.3


class Connection(Protocol):
    async def recv(self) -> str | bytes: ...
    async def send(self, message: bytes) -> None: ...

    async def ping(self) -> object:
        """Return once the pong came."""


Handler = Callable[[Connection], Awaitable[None]]


class Library(ABC):
    name: str
    #: As installed.
    package: str
    #: What a reader of the table should know; "" if nothing.
    note = ""
    #: What its calls raise once the connection is gone.
    closed: tuple[type[Exception], ...]

    @property
    def version(self) -> str:
        return version(self.package)

    @abstractmethod
    def connect(
        self, port: int, options: Options
    ) -> AbstractAsyncContextManager[Connection]: ...

    @abstractmethod
    async def run_server(
        self, handler: Handler, listeners: list[trio.SocketListener], options: Options
    ) -> None: ...

    async def serve(
        self,
        handler: Handler,
        options: Options,
        task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until cancelled; nursery.start() returns the port."""
        listeners = await trio.open_tcp_listeners(0, host=HOST)
        task_status.started(listeners[0].socket.getsockname()[1])
        await self.run_server(handler, list(listeners), options)


class TrioWs(Library):
    name = package = "trio_ws"

    def __init__(self) -> None:
        # Any: these adapters also run where a library isn't installed.
        self.library: Any = importlib.import_module("trio_ws")
        self.closed = (self.library.ConnectionClosed,)

    @property
    def version(self) -> str:
        return str(self.library.__version__)  # also in a checkout

    def connect(
        self, port: int, options: Options
    ) -> AbstractAsyncContextManager[Connection]:
        scope: AbstractAsyncContextManager[Connection] = self.library.connect(
            f"ws://{HOST}:{port}/", compression=None, **vars(options)
        )
        return scope

    async def run_server(
        self, handler: Handler, listeners: list[trio.SocketListener], options: Options
    ) -> None:
        await self.library.serve(
            handler, listeners=listeners, compression=None, **vars(options)
        )


class Websockets(Library):
    name = "websockets.trio"
    package = "websockets"
    note = "wakes ping waiters at the close only if ack_on_close=True is given (j)"

    class Wrapped:
        def __init__(self, connection: Any) -> None:
            self.recv = connection.recv
            self.send = connection.send
            self.send_ping = connection.ping

        async def ping(self) -> None:
            pong = await self.send_ping()
            await pong.wait()

    def __init__(self) -> None:
        self.client: Any = importlib.import_module("websockets.trio.client")
        self.server: Any = importlib.import_module("websockets.trio.server")
        exceptions: Any = importlib.import_module("websockets.exceptions")
        self.closed = (exceptions.ConnectionClosed,)

    def options(self, options: Options) -> dict[str, object]:
        return {
            "ping_interval": options.ping_interval,
            "ping_timeout": options.ping_timeout,
            "close_timeout": options.close_timeout,
            "compression": None,
        }

    @asynccontextmanager
    async def connect(self, port: int, options: Options) -> AsyncIterator[Connection]:
        async with self.client.connect(
            f"ws://{HOST}:{port}/", proxy=None, **self.options(options)
        ) as connection:
            yield self.Wrapped(connection)

    async def run_server(
        self, handler: Handler, listeners: list[trio.SocketListener], options: Options
    ) -> None:
        async def on_connection(connection: Any) -> None:
            await handler(self.Wrapped(connection))

        await self.server.serve(
            on_connection, listeners=listeners, **self.options(options)
        )


class TrioWebsocket(Library):
    name = package = "trio-websocket"
    note = "has no keepalive of its own (d1, d2, e2)"

    class Wrapped:
        def __init__(self, connection: Any) -> None:
            self.recv = connection.get_message
            self.send = connection.send_message
            self.ping = connection.ping

    def __init__(self) -> None:
        self.library: Any = importlib.import_module("trio_websocket")
        self.closed = (
            self.library.ConnectionClosed,
            self.library.DisconnectionTimeout,
        )

    @asynccontextmanager
    async def connect(self, port: int, options: Options) -> AsyncIterator[Connection]:
        async with self.library.open_websocket_url(
            f"ws://{HOST}:{port}/", disconnect_timeout=options.close_timeout
        ) as connection:
            yield self.Wrapped(connection)

    async def run_server(
        self, handler: Handler, listeners: list[trio.SocketListener], options: Options
    ) -> None:
        async def on_request(request: Any) -> None:
            await handler(self.Wrapped(await request.accept()))

        server = self.library.WebSocketServer(
            on_request, listeners, disconnect_timeout=options.close_timeout
        )
        await server.run()


LIBRARIES: dict[str, type[Library]] = {
    library.name: library for library in (TrioWs, Websockets, TrioWebsocket)
}
