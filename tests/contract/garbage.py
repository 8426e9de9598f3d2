"""What is left of connections where the garbage collector doesn't run."""

from __future__ import annotations

import gc
import logging
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio

from tests.peers.certificates import contexts
from tests.peers.raw_stream import RawStream
from trio_ws import Server, ServerConnection, accept, connect, serve
from trio_ws._protocol import uri as _uri
from trio_ws.testing import open_pair

COUNT = 20

TLS = pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
SIDES = pytest.mark.parametrize("client", [True, False], ids=["client", "server"])


def quiet_logger(level: int) -> logging.Logger:
    """Make a logger that pytest, which keeps tracebacks, can't find."""
    logger = logging.Logger("quiet", level)  # noqa: LOG001 - for that very reason
    logger.addHandler(logging.NullHandler())
    return logger


QUIET = quiet_logger(logging.INFO)
DEBUG = quiet_logger(logging.DEBUG)


class UserError(Exception):
    """An error of the user's own."""


def alive() -> Counter[str]:
    """Count the objects of the package, and sockets and TLS sessions, by type."""
    kinds = Counter(map(type, gc.get_objects()))
    return Counter(
        {
            f"{kind.__module__}.{kind.__qualname__}": count
            for kind, count in kinds.items()
            if str(kind.__module__).partition(".")[0] in ("trio_ws", "ssl", "_ssl")
            or issubclass(kind, socket.socket)
        }
    )


async def check(scenario: Callable[[], Awaitable[None]]) -> None:
    """Run a scenario some times; see that nothing is left of it."""
    contexts()
    async with open_pair():
        pass  # what is made once in a run of trio is there now
    gc.collect()
    gc.disable()
    try:
        _uri._parse_known.cache_clear()  # of others' ports
        before = alive()
        for _ in range(COUNT):
            await scenario()
        await trio.lowlevel.checkpoint()  # trio's loop keeps what it sent last
        _uri._parse_known.cache_clear()
        left = alive() - before
    finally:
        gc.enable()
    assert not left, sorted(left.items())


@asynccontextmanager
async def serving(
    handler: Callable[[ServerConnection], Awaitable[object]],
    *,
    tls: bool,
    **options: Any,
) -> AsyncIterator[Server]:
    """Serve in a block that is left once all sessions are over."""
    call = partial(
        serve,
        handler,
        0,
        host="127.0.0.1",
        ssl=contexts()[1] if tls else None,
        **{"logger": QUIET, **options},
    )
    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as sessions:
            server = await nursery.start(partial(call, handler_nursery=sessions))
            yield server
        await server.aclose()


def uri(server: Server, *, tls: bool) -> str:
    return f"{'wss' if tls else 'ws'}://localhost:{server.port}/"


def of_client(*, tls: bool, **options: Any) -> dict[str, Any]:
    """Return the keywords of a client of such a server."""
    return {
        "host": "127.0.0.1",  # without a thread for the name
        "ssl": contexts()[0] if tls else None,
        "logger": QUIET,
        **options,
    }


def dial(server: Server, *, tls: bool, **options: Any) -> connect:
    return connect(uri(server, tls=tls), **of_client(tls=tls, **options))


# One end of ours, and one of the test's


def open_near(
    stream: trio.abc.Stream, *, client: bool, tls: bool, **options: Any
) -> connect | accept:
    """Make the block of our end of a stream; ``client`` is what we are."""
    # So that a clock that jumps has nothing to jump to but what a test says.
    options = {"logger": QUIET, "open_timeout": None, "ping_interval": None} | options
    if not client:
        return accept(stream, ssl=contexts()[1] if tls else None, **options)
    return connect(
        f"{'wss' if tls else 'ws'}://localhost/",
        stream=stream,
        ssl=contexts()[0] if tls else None,
        **options,
    )


async def raw_stream(sock: socket.socket, *, client: bool, tls: bool) -> RawStream:
    """Make a stream of the test's end; ``client`` is what it is itself."""
    if not tls:
        return RawStream(sock)
    context, name = contexts()[0 if client else 1], "localhost" if client else None
    return await RawStream.over_tls(sock, context, name)
