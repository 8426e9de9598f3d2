"""The server that users hold, and how it runs and ends."""

from __future__ import annotations

import logging
import ssl as ssl_module
from collections.abc import Awaitable, Callable, Iterable, Set
from functools import partial
from types import NoneType
from typing import Any, Generic, cast

import trio
from trio.lowlevel import enable_ki_protection

from .._connection.groups import run_in_nursery
from .._connection.sides import ServerT
from .._endpoint.budget import check_run, current_budget
from .._endpoint.elsewhere import SERVER, Hinting
from .._endpoint.identity import PlainLogger
from .._endpoint.options import check_finite, check_function, check_seconds
from .._endpoint.poller import Poller
from .._protocol.closing import close_payload
from .._transports.make import check_context
from .acceptor import Acceptor, close_listeners
from .listening import ListenSpec
from .options import Handler, ServerOptions
from .sessions import Sessions
from .signals import STOP_SIGNALS, stop_on_signal
from .statistics import ServerStatistics

# A code, a reason, and over how many seconds connections get them.
Goodbye = tuple[int, str, float]


class Server(Hinting, Generic[ServerT], elsewhere=SERVER):
    """A server that runs; made by serve() and open_server().

    ``logger`` is what it logs to.
    """

    def __init__(
        self,
        acceptor: Any,
        sessions: Any,
        done: trio.Event,
        logger: logging.LoggerAdapter[Any],
    ) -> None:
        self.logger: logging.LoggerAdapter[Any] = logger
        self._acceptor: Acceptor = acceptor
        self._sessions: Sessions = sessions
        self._done = done
        self._port = _port_of(acceptor.addresses)  # known also once they are closed
        self._budget = current_budget()

    @property
    def connections(self) -> Set[ServerT]:
        """The connections that are open now, the oldest first."""
        return cast("Set[ServerT]", self._sessions.connections)

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

    def statistics(self) -> ServerStatistics:
        """Say what the server has done since it started, and what it does now.

        Those of a server that has ended are the last. It looks at each connection: of
        10,000 that takes some tens of milliseconds. Raises RuntimeError in another
        thread before that end.
        """
        if self._sessions or not self._done.is_set():
            check_run(self._budget, "statistics", "server")
        return self._sessions.statistics()

    async def aclose(
        self,
        close_connections: bool = True,
        code: int = 1001,
        reason: str = "",
        *,
        timeout: float | None = 10,
        spread: float = 0,
        open_grace: float = 0,
    ) -> None:
        """Stop serving, in good order; serve() returns.

        The listeners close. Opening handshakes under way have ``open_grace`` seconds to
        end, before anything else; then they are answered with HTTP 503.
        Unless ``close_connections`` is False, each connection gets a close
        frame with ``code`` and ``reason``, one after the other over ``spread``
        seconds, so that clients do not all come back at once; messages that its
        handler hasn't received are discarded then. Handlers have
        ``timeout`` seconds to end, from the last close frame on; then they are
        cancelled. Returns when all have ended.

        Raises ValueError or TypeError for wrong arguments, RuntimeError in another
        thread, before anything is done. A handler that calls it with a ``timeout`` of
        None waits for itself.

        **Cancellation**: the listeners are closed and the handlers cancelled,
        which makes each connection say 1001 without waiting.
        """
        goodbye = _goodbye(close_connections, code, reason, spread)
        await self._stop("aclose", goodbye, timeout, open_grace)()

    async def aclose_on_signal(
        self,
        *signals: int,
        close_connections: bool = True,
        code: int = 1001,
        reason: str = "",
        timeout: float | None = 10,
        spread: float = 0,
        open_grace: float = 0,
    ) -> None:
        """Wait for a signal, then stop serving in good order; serve() returns.

        ``signals`` are SIGINT and SIGTERM unless you give others, on Windows SIGINT and
        SIGBREAK. A second one stops at once, as cancelling aclose() does. Also the
        first process of a container, for which the system does nothing on SIGTERM by
        itself, stops so. The arguments are those of aclose(). Returns when all handlers
        have ended, whatever has closed the server.

        Raises, before anything is done, ValueError or TypeError for wrong arguments;
        RuntimeError in another thread than Python's main one, and while another call,
        of this server or another, waits for one of the signals.

        **Cancellation**: before a signal, the server goes on; then, as of
        Server.aclose().
        """
        goodbye = _goodbye(close_connections, code, reason, spread)
        stop = self._stop("aclose_on_signal", goodbye, timeout, open_grace)
        await stop_on_signal(signals or STOP_SIGNALS, stop, self._done, self.logger)

    def _stop(
        self,
        call: str,
        goodbye: Goodbye | None,
        timeout: float | None,
        open_grace: float,
    ) -> Callable[[], Awaitable[None]]:
        """Check the rest of what a call was given; return what stops the server."""
        check_seconds("timeout", timeout, zero=True)
        check_finite("open_grace", open_grace)
        check_run(self._budget, call, "server")
        return partial(self._aclose, goodbye, timeout, open_grace)

    async def _aclose(
        self,
        goodbye: Goodbye | None,
        timeout: float | None,
        open_grace: float,
    ) -> None:
        if not open_grace:
            self._sessions.refuse_new()
        self._acceptor.stop()
        try:
            # One that has just been accepted gets its session and its answer.
            await self._acceptor.stopped.wait()
            if open_grace:
                with trio.move_on_after(open_grace):
                    await self._sessions.admission.wait_for_none()
                self._sessions.refuse_new()
            await run_in_nursery(partial(self._end_sessions, goodbye, timeout))
            await self._done.wait()
        except BaseException:
            self._sessions.cancel_all()
            raise

    async def _end_sessions(
        self,
        goodbye: Goodbye | None,
        timeout: float | None,
        nursery: trio.Nursery,
    ) -> None:
        """Close the connections, if so wished; in the end, cancel what there is."""
        idle = self._sessions.end_event()
        if goodbye is not None:
            await self._sessions.close_connections(nursery, *goodbye)
        with trio.CancelScope() as scope:
            if timeout is not None:
                scope.deadline = trio.current_time() + timeout
            await idle.wait()
        self._sessions.cancel_all()
        await idle.wait()


def _goodbye(
    close_connections: object, code: int, reason: str, spread: float
) -> Goodbye | None:
    """Return the arguments of aclose() about close frames, if they are right."""
    if not isinstance(close_connections, bool):
        raise TypeError(
            f"close_connections: expected a bool; got {close_connections!r}; "
            f"a code is a keyword: code={close_connections!r}"
        )
    close_payload(code, reason)  # raises for wrong arguments
    check_finite("spread", spread)
    return (code, reason, spread) if close_connections else None


def check_server(
    handler: object, context: object, handler_nursery: object = None
) -> None:
    """Check what is served; raise TypeError or ValueError."""
    check_function("handler", handler, "an async function")
    check_context(context, server_side=True)
    if not isinstance(handler_nursery, (trio.Nursery, NoneType)):
        raise TypeError(
            f"handler_nursery: expected a trio.Nursery or None; got {handler_nursery!r}"
        )


@enable_ki_protection
async def run_server(
    handler: Handler[Any],
    spec: ListenSpec,
    context: ssl_module.SSLContext | None,
    options: ServerOptions,
    handler_nursery: trio.Nursery | None = None,
    task_status: trio.TaskStatus[Server[Any]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Listen, and serve until cancelled or closed; the arguments are those of serve().

    Whatever is raised, the listeners are closed then.
    """
    listeners = await spec.open()
    try:
        logger = PlainLogger(options.logger or logging.getLogger("trio_ws.server"))
        poller = Poller()
        sessions = Sessions(handler, context, options, logger, poller)
        acceptor = Acceptor(listeners, logger, sessions.admission)
        done = trio.Event()
        server: Server[Any] = Server(acceptor, sessions, done, logger)
        sessions.server = server

        async def serve(nursery: trio.Nursery) -> None:
            await acceptor.run(
                partial(sessions.start, handler_nursery or nursery),
                partial(task_status.started, server),
            )

        async def read_and_serve(nursery: trio.Nursery) -> None:
            try:
                await nursery.start(poller.run, name="trio_ws poller")
                await run_in_nursery(serve)
            finally:
                poller.stop()

        try:
            await run_in_nursery(read_and_serve)
        finally:
            done.set()
            sessions.server = None  # no cycle
    except BaseException:
        await close_listeners(listeners)  # accepting may not have begun
        raise


def _port_of(addresses: Iterable[Any]) -> int | None:
    for address in addresses:
        if isinstance(address, tuple):  # not of a Unix socket
            return int(address[1])
    return None
