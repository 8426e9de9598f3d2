"""The server that users hold, and how it runs and ends."""

from __future__ import annotations

import logging
import ssl as ssl_module
from collections.abc import Iterable, Sequence, Set
from functools import partial
from math import inf

import trio
from trio.lowlevel import enable_ki_protection

from .._connection.connection import ServerConnection
from .._connection.groups import aexit, collapse, raise_as_is
from .._endpoint.options import check_seconds
from .._protocol.closing import close_payload
from .acceptor import Acceptor, AnyListener
from .options import ServerOptions
from .sessions import Handler, Sessions


class Server:
    """A server that runs; made by serve() and open_server()."""

    def __init__(
        self,
        handler: Handler,
        listeners: Sequence[AnyListener],
        context: ssl_module.SSLContext | None,
        options: ServerOptions,
    ) -> None:
        self.logger = options.logger or logging.getLogger("trio_ws.server")
        self._sessions = Sessions(handler, options, self.logger)
        self._acceptor = Acceptor(listeners, context, self.logger)
        self._port = _port_of(self.sockets)  # known also once they are closed
        self._done = trio.Event()

    @property
    def connections(self) -> Set[ServerConnection]:
        """The connections that are open now, the oldest first."""
        return self._sessions.connections

    @property
    def sockets(self) -> tuple[trio.socket.SocketType, ...]:
        """The sockets that the server listens on."""
        return self._acceptor.sockets

    @property
    def port(self) -> int:
        """The port that the server listens on, that of its first TCP socket.

        Raises ValueError if it has none.
        """
        if self._port is not None:
            return self._port
        raise ValueError("port: expected a server with a TCP socket; it has none")

    async def aclose(
        self,
        close_connections: bool = True,
        code: int = 1001,
        reason: str = "",
        *,
        timeout: float | None = 10,
        spread: float = 0,
    ) -> None:
        """Stop serving, in good order; serve() returns.

        The listeners close, opening handshakes are answered with HTTP 503.
        Unless ``close_connections`` is False, each connection gets a close
        frame with ``code`` and ``reason``, one after the other over ``spread``
        seconds, so that clients do not all come back at once. Handlers have
        ``timeout`` seconds to end, from the last close frame on; then they are
        cancelled. Returns when all have ended.

        Raises ValueError or TypeError for wrong arguments, before anything is done.
        A handler that calls it with a ``timeout`` of None waits for itself.

        **Cancellation**: the listeners are closed and the handlers cancelled,
        which makes each connection say 1001 without waiting.
        """
        close_payload(code, reason)  # raises for wrong arguments
        check_seconds("timeout", timeout, zero=True)
        check_seconds("spread", spread, zero=True)
        if spread in (None, inf):
            raise ValueError(f"spread: expected a finite number; got {spread}")
        self._sessions.refuse_new()
        self._acceptor.stop()
        try:
            # One that has just been accepted gets its session and its answer.
            await self._acceptor.stopped.wait()
            idle = self._sessions.end_event()
            async with trio.open_nursery() as nursery:
                if close_connections:
                    await self._sessions.close_connections(
                        nursery, code, reason, spread
                    )
                with trio.CancelScope() as scope:
                    if timeout is not None:
                        scope.deadline = trio.current_time() + timeout
                    await idle.wait()
                self._sessions.cancel_all()
            await idle.wait()
            await self._done.wait()
        except BaseException:
            self._sessions.cancel_all()
            raise


@enable_ki_protection
async def run_server(
    server: Server,
    handler_nursery: trio.Nursery | None,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled or closed; ``handler_nursery`` as of serve()."""
    manager = trio.open_nursery(strict_exception_groups=True)
    nursery = await manager.__aenter__()
    nursery.start_soon(
        server._acceptor.run,
        partial(server._sessions.start, handler_nursery or nursery),
        partial(task_status.started, server),
    )
    error = await aexit(manager, None)
    server._done.set()
    if error is not None:
        try:
            raise_as_is(collapse(error, None))
        finally:
            del error  # no cycle with the traceback


def abandon_server(server: Server) -> None:
    """Close the listeners and cancel the sessions; wait for nothing."""
    server._acceptor.stop()
    server._sessions.cancel_all()


def _port_of(sockets: Iterable[trio.socket.SocketType]) -> int | None:
    for sock in sockets:
        name = sock.getsockname()
        if isinstance(name, tuple):  # not a Unix socket
            return int(name[1])
    return None
