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

from ._client.dialer import Dialer
from ._client.options import ClientOptions, ClientOptionsDict
from ._connection.groups import (
    aexit,
    collapse,
    finish_aexit,
    leave_nursery,
    raise_as_is,
    wrong_task,
)
from ._connection.scope import ConnectionScope
from ._connection.sides import ClientConnection, ServerConnection
from ._endpoint.budget import set_limit
from ._endpoint.endpoint import Endpoint
from ._endpoint.options import make_options
from ._names import publish
from ._server.accept import open_on_stream
from ._server.options import ServerOptionsDict, accept_options
from ._testing.leaving import LastTasks
from ._testing.link import MemoryLink
from ._testing.network import MemoryNetwork

__all__ = ["MemoryLink", "MemoryNetwork", "full_checkpoints", "open_pair"]


class open_pair:  # noqa: N801 - reads as the function that it is to its users
    """Both ends of a connection: ``async with open_pair() as (client, server): ...``.

    ``client_options`` and ``server_options`` are those of connect() and
    accept(). ``streams`` are two connected trio.abc.Streams, the client's first;
    by default a memory_stream_pair().

    The block is the body of both connections: leaving it closes the server's
    side first, and what either has to raise is raised here. Tasks in ``nursery``, of
    either, are waited for. While some of the server's are left and none of the
    client's, the client closes first. What still runs 90 seconds after the block's end
    is cancelled, and a RuntimeError names it.

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
        _check_streams(streams)
        self._dialer = Dialer(
            "ws://testing/",
            make_options(ClientOptions, "connect", client_options or {}),
            stream=streams[0],
        )
        self._server_stream = streams[1]
        self._server_options = accept_options(server_options or {})
        self._endpoints: list[Endpoint] = []
        self._server_ended = trio.Event()
        # The client's and the server's, which is the inner one.
        self._scopes: tuple[ConnectionScope, ...] = ()

    @enable_ki_protection
    async def __aenter__(self) -> tuple[ClientConnection, ServerConnection]:
        if self._endpoints:
            raise RuntimeError("open_pair() can be entered once; call it again")
        # The two handshakes wait for each other; the scopes then nest.
        manager = trio.open_nursery(strict_exception_groups=True)
        nursery = await manager.__aenter__()
        nursery.start_soon(self._open_client)
        nursery.start_soon(self._open_server)
        error = await aexit(manager, None)
        if error is not None:
            for endpoint in self._endpoints:
                await endpoint.abort()
            try:
                if isinstance(error, ExceptionGroup):
                    # If both failed, the second did over what the first answered.
                    raise_as_is(error.exceptions[0])
                raise_as_is(collapse(error, None))
            finally:
                del error  # no cycle with the traceback
        for endpoint in self._endpoints:
            # The order of things must not depend on how quickly they follow.
            endpoint.reader.callers_read = False
        await self._enter_scopes()
        return self._client[0], self._server[0]

    async def _enter_scopes(self) -> None:
        client_scope = ConnectionScope(*self._client)
        server_scope = ConnectionScope(*self._server)
        self._last_tasks = LastTasks(self._client[0], self._server[0])
        self._manager = trio.open_nursery(strict_exception_groups=True)
        self._nursery = await self._manager.__aenter__()
        try:
            await client_scope.__aenter__()
            try:
                await server_scope.__aenter__()
            except BaseException as exc:
                await aexit(client_scope, exc)
                raise
        except BaseException as exc:  # for want of memory, perhaps
            await self._server[1].abort()
            await leave_nursery(self._manager, self._nursery, exc)
            raise
        self._scopes = client_scope, server_scope

    async def _open_client(self) -> None:
        try:
            self._client = await self._dialer.open()
        except Exception:
            # If the server has failed, it did so first, and its error says more.
            await self._server_ended.wait()
            raise
        self._endpoints.append(self._client[1])

    async def _open_server(self) -> None:
        try:
            self._server = await open_on_stream(
                self._server_stream, None, self._server_options
            )
        finally:
            self._server_ended.set()
        self._endpoints.append(self._server[1])

    @enable_ki_protection
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        outcome = None
        try:
            if not self._scopes:
                raise wrong_task("open_pair()", None) from exc
            if self._scopes[0].is_of_this_task():
                outcome = await self._leave(exc)
            else:
                outcome = await self._leave_scopes(exc)
            return finish_aexit(outcome, exc)
        finally:
            del outcome, exc, traceback  # no cycle with the traceback

    async def _leave(self, exc: BaseException | None) -> BaseException | None:
        outcome = error = None
        nursery, last_tasks = self._nursery, self._last_tasks
        try:
            nursery.start_soon(last_tasks.watch, nursery.cancel_scope)
            outcome = await self._leave_scopes(exc)
            last_tasks.stop()
            error = await leave_nursery(self._manager, nursery, outcome)
            if error is None:
                return last_tasks.error()
            return collapse(error, outcome)
        finally:
            del outcome, error, exc  # as above

    async def _leave_scopes(self, exc: BaseException | None) -> BaseException | None:
        outcome = None
        try:
            client_scope, server_scope = self._scopes
            outcome = await aexit(server_scope, exc)
            if exc is None and isinstance(outcome, trio.Cancelled):
                if self._client[0].nursery.cancel_scope.cancel_called:
                    outcome = None  # it is a task of the client's that ends this
            return await aexit(client_scope, outcome)
        finally:
            del outcome, exc  # as above


def _check_streams(streams: object) -> None:
    if (
        not isinstance(streams, tuple)
        or len(streams) != 2
        or not all(isinstance(one, trio.abc.Stream) for one in streams)
    ):
        raise TypeError(
            f"streams: expected a tuple of two trio.abc.Streams; got {streams!r}"
        )


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


publish(__name__, __all__)
