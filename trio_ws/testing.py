"""For the tests of applications: connections without a network, exact checkpoints.

``async with open_pair() as (client, server)`` gives both ends of a connection
over memory streams. Nothing in it depends on real time, so that trio's MockClock
can run timeouts and keepalives in no time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

import trio
import trio.testing
from trio.lowlevel import enable_ki_protection

from ._accept import accept
from ._client import connect
from ._connection import ClientConnection, ServerConnection
from ._groups import ends_with, exit_of, raise_as_is, reduced
from ._options import ClientOptionsDict, ServerOptionsDict
from ._pace import set_limit
from ._scope import ConnectionScope

__all__ = ["full_checkpoints", "open_pair"]


class open_pair:  # noqa: N801 - reads as the function that it is to its users
    """Both ends of a connection: ``async with open_pair() as (client, server): ...``.

    ``client_options`` and ``server_options`` are those of connect() and
    accept(). ``streams`` are two connected trio.abc.Streams, the client's first;
    by default a memory_stream_pair().

    The block is the body of both connections: leaving it closes the server's
    side first, and what either has to raise is raised here.

    **Cancellation** as with connect().
    """

    def __init__(
        self,
        client_options: ClientOptionsDict | None = None,
        server_options: ServerOptionsDict | None = None,
        streams: tuple[trio.abc.Stream, trio.abc.Stream] | None = None,
    ) -> None:
        if streams is None:
            streams = trio.testing.memory_stream_pair()
        self._client = connect(
            "ws://testing/", stream=streams[0], **(client_options or {})
        )
        self._server = accept(streams[1], **(server_options or {}))
        self._opened: list[ClientConnection | ServerConnection] = []

    @enable_ki_protection
    async def __aenter__(self) -> tuple[ClientConnection, ServerConnection]:
        if self._opened:
            raise RuntimeError("open_pair() can be entered once; call it again")
        # The two handshakes wait for each other; the scopes then nest.
        manager = trio.open_nursery(strict_exception_groups=True)
        nursery = await manager.__aenter__()
        nursery.start_soon(self._open_client)
        nursery.start_soon(self._open_server)
        error = await exit_of(manager, None)
        if error is not None:
            for connection in self._opened:
                await connection._endpoint.abort()
            if isinstance(error, ExceptionGroup):
                # If both sides failed, the second did over what the first answered.
                raise_as_is(error.exceptions[0])
            raise_as_is(reduced(error, None))
        for connection in self._opened:
            # The order of things must not depend on how quickly they follow.
            connection._endpoint.reader.callers_read = False
        self._client_scope = ConnectionScope(self._client_connection)
        self._server_scope = ConnectionScope(self._server_connection)
        await self._client_scope.__aenter__()
        await self._server_scope.__aenter__()
        return self._client_connection, self._server_connection

    async def _open_client(self) -> None:
        self._client_connection = await self._client._open()
        self._opened.append(self._client_connection)

    async def _open_server(self) -> None:
        self._server_connection = await self._server._open()
        self._opened.append(self._server_connection)

    @enable_ki_protection
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        outcome = await exit_of(self._server_scope, exc)
        outcome = await exit_of(self._client_scope, outcome)
        return ends_with(outcome, exc)


@contextmanager
def full_checkpoints() -> Iterator[None]:
    """Make every call of a public coroutine a full checkpoint, in this trio run.

    Normally each call is a cancellation point, but only some are schedule
    points. With this, trio.testing.assert_checkpoints() holds for all of them.
    """
    before = set_limit(1)
    try:
        yield
    finally:
        set_limit(before)
