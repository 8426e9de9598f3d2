"""A connection of trio_ws and its peer, whichever of them is the client."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal, NamedTuple, Unpack

import trio

import trio_ws
from tests.interop.peer import HOST, LIMIT, NEVER, TLS, Library, Peer
from trio_ws._endpoint.options import OptionsDict

Role = Literal["client", "server"]

#: Stands between the two, and returns the port to connect to instead.
Between = Callable[[int], Awaitable[int]]


class Options(OptionsDict, total=False):
    extensions: Sequence[Any]  # factories of the role


class Handler:
    """The body of a connection: hands it to the test, and waits."""

    def __init__(self) -> None:
        self._sender, self._connections = trio.open_memory_channel[trio_ws.Connection](
            64
        )
        self.leave = trio.Event()  # the body ends

    async def __call__(self, ws: trio_ws.Connection) -> None:
        self._sender.send_nowait(ws)
        await self.leave.wait()

    async def connection(self) -> trio_ws.Connection:
        return await self._connections.receive()


class Pair(NamedTuple):
    ours: trio_ws.Connection
    theirs: Peer
    #: Set it to leave the block in which ``ours`` lives.
    leave: trio.Event


def agreed_extensions(ours: trio_ws.Connection) -> str:
    assert ours.response is not None
    return ours.response.headers.get("Sec-WebSocket-Extensions", "")


async def _directly(port: int) -> int:
    return port


@asynccontextmanager
async def _ours_serves(
    library: Library,
    between: Between,
    subprotocols: Sequence[str],
    tls: TLS | None,
    options: Options,
) -> AsyncGenerator[Pair, None]:
    handler = Handler()
    context = tls.server if tls else None
    async with (
        trio_ws.open_server(handler, 0, host=HOST, ssl=context, **options) as server,
        library.connect(
            await between(server.port), subprotocols=subprotocols, tls=tls
        ) as theirs,
    ):
        yield Pair(await handler.connection(), theirs, handler.leave)
        handler.leave.set()


@asynccontextmanager
async def _ours_connects(
    library: Library,
    between: Between,
    subprotocols: Sequence[str],
    tls: TLS | None,
    options: Options,
) -> AsyncGenerator[Pair, None]:
    handler = Handler()
    async with library.serve(subprotocols=subprotocols, tls=tls) as service:
        uri = f"{'wss' if tls else 'ws'}://{HOST}:{await between(service.port)}/"

        async def run() -> None:
            context = tls.client if tls else None
            async with trio_ws.connect(uri, ssl=context, **options) as ours:
                await handler(ours)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            yield Pair(
                await handler.connection(), await service.accept(), handler.leave
            )
            handler.leave.set()


@asynccontextmanager
async def pair(
    library: Library,
    role: Role,
    *,
    between: Between = _directly,
    their_subprotocols: Sequence[str] = (),
    tls: TLS | None = None,
    **options: Unpack[Options],
) -> AsyncGenerator[Pair, None]:
    """Open a connection; ``role`` is that of trio_ws. Leaving closes it with 1000.

    The block fails after LIMIT seconds; no timeout of either side comes to its
    help before that.
    """
    opened = _ours_serves if role == "server" else _ours_connects
    options = {"close_timeout": NEVER, **options}
    with trio.fail_after(LIMIT):
        async with opened(library, between, their_subprotocols, tls, options) as made:
            yield made
