"""The server: what it accepts, its handlers, and how it ends."""

from __future__ import annotations

import errno
import logging
import os
import socket
import ssl as ssl_module
from collections.abc import Awaitable, Callable, Iterable, Sequence, Set
from functools import partial
from math import inf

import trio
from trio.lowlevel import disable_ki_protection, enable_ki_protection

from ._accept import open_connection
from ._connection import ServerConnection
from ._groups import exit_of, parted, raise_as_is, reduced
from ._opening import Rejected
from ._options import ServerOptions, check_seconds
from ._protocol._frames import close_payload
from ._protocol._handshake_server import plain_response
from ._protocol._http import Response
from ._protocol._state import OPEN, State
from ._scope import ConnectionScope
from ._transports import Transport, make_transport, transport_of
from .exceptions import ConnectionClosedOK, InvalidHandshake

Handler = Callable[[ServerConnection], Awaitable[object]]

# accept() fails with these for a connection that is gone before it is accepted;
# accept(2) lists them.
_GONE = {
    getattr(errno, name)
    for name in (
        "ECONNABORTED",
        "EHOSTDOWN",
        "EHOSTUNREACH",
        "ENETDOWN",
        "ENETUNREACH",
        "ENONET",
        "ENOPROTOOPT",
        "EOPNOTSUPP",
        "EPERM",
        "EPROTO",
    )
    if hasattr(errno, name)
}

# With anything else where the process or the machine is short of something, as
# of descriptors. Connections that end will give it back.
_SHORTAGE_SLEEP = 0.1

# So many connections are accepted in a row before others have their turn.
_BATCH = 64


class _Session:
    """A connection of a server, from accept() to the end of its handler."""

    __slots__ = ("_scope", "cancelled", "connection", "reading")

    def __init__(self) -> None:
        self.connection: ServerConnection | None = None
        # While the request is read; cancelled: answer without waiting.
        self.reading: trio.CancelScope | None = None
        self._scope: trio.CancelScope | None = None
        self.cancelled = False

    def cancel(self) -> None:
        """Cancel what goes on now and what follows."""
        self.cancelled = True
        # Its task may have had no step yet, or one be due in which it goes on.
        if self._scope is not None:  # pragma: no branch - chance orders a turn's tasks
            self._scope.cancel()

    def goes_on_in(self, scope: trio.CancelScope) -> None:
        """Take note of the scope that cancels what goes on now."""
        self._scope = scope
        if self.cancelled:  # pragma: no cover - likewise
            scope.cancel()


def _port_of(sockets: Iterable[trio.socket.SocketType]) -> int | None:
    for sock in sockets:
        name = sock.getsockname()
        if isinstance(name, tuple):  # not a Unix socket
            return int(name[1])
    return None


class Server:
    """A server that runs; made by serve() and open_server()."""

    def __init__(
        self,
        handler: Handler,
        listeners: Sequence[trio.abc.Listener[trio.abc.Stream]],
        context: ssl_module.SSLContext | None,
        options: ServerOptions,
    ) -> None:
        self.logger = options.logger or logging.getLogger("trio_ws.server")
        self._handler = handler
        self._listeners = listeners
        self._port = _port_of(self.sockets)  # known also once they are closed
        self._context = context
        self._options = options
        # In order of arrival, which is also how the kernel's data for them lies in
        # memory: sending to all takes a third less time than in random order.
        self._sessions: dict[_Session, None] = {}
        self._accepting = trio.CancelScope()
        self._accepted_all = trio.Event()  # nothing is accepted any more
        self._closing = False
        self._goodbye: tuple[int, str] | None = None  # for late comers
        self._idle: trio.Event | None = None  # set when the last session ends
        self._short = False  # accept() failed for want of something
        self._done = trio.Event()

    # -- Facts ---------------------------------------------------------------

    @property
    def connections(self) -> Set[ServerConnection]:
        """The connections that are open now, the oldest first."""
        return {
            connection: None
            for session in self._sessions
            if (connection := session.connection) is not None
            and connection._endpoint.engine.phase is OPEN
        }.keys()

    @property
    def sockets(self) -> tuple[trio.socket.SocketType, ...]:
        """The sockets that the server listens on."""
        return tuple(
            listener.socket
            for listener in self._listeners
            if isinstance(listener, trio.SocketListener)
        )

    @property
    def port(self) -> int:
        """The port that the server listens on, that of its first TCP socket.

        Raises ValueError if it has none.
        """
        if self._port is not None:
            return self._port
        raise ValueError("port: expected a server with a TCP socket; it has none")

    # -- Running -------------------------------------------------------------

    @enable_ki_protection
    async def _run(
        self,
        handler_nursery: trio.Nursery | None,
        task_status: trio.TaskStatus[Server],
    ) -> None:
        """Serve until cancelled or closed."""
        manager = trio.open_nursery(strict_exception_groups=True)
        nursery = await manager.__aenter__()
        nursery.start_soon(self._accept_all, handler_nursery or nursery, task_status)
        error = await exit_of(manager, None)
        self._done.set()
        if error is not None:
            raise_as_is(reduced(error, None))

    async def _accept_all(
        self, handlers: trio.Nursery, task_status: trio.TaskStatus[Server]
    ) -> None:
        try:
            with self._accepting:
                async with trio.open_nursery() as nursery:
                    for listener in self._listeners:
                        if isinstance(listener, trio.SocketListener):
                            nursery.start_soon(self._accept_sockets, listener, handlers)
                        else:
                            nursery.start_soon(self._accept_streams, listener, handlers)
                    for sock in self.sockets:
                        self.logger.info("listening on %s", sock.getsockname())
                    task_status.started(self)
        finally:
            self._accepted_all.set()
            with trio.CancelScope(shield=True):
                for listener in self._listeners:
                    await listener.aclose()

    async def _accept_sockets(
        self, listener: trio.SocketListener, handlers: trio.Nursery
    ) -> None:
        # A descriptor of our own for the same socket: trio's accept() takes a
        # turn of the loop for every connection, and the user's stays usable.
        with socket.socket(fileno=os.dup(listener.socket.fileno())) as sock:
            sock.setblocking(False)
            while True:
                await trio.lowlevel.wait_readable(sock)
                if not self._accept_batch(sock, handlers):
                    await trio.sleep(_SHORTAGE_SLEEP)

    @enable_ki_protection
    def _accept_batch(self, sock: socket.socket, handlers: trio.Nursery) -> bool:
        """Accept what is there; return False if there is a shortage."""
        for _ in range(_BATCH):
            try:
                accepted, _address = sock.accept()
            except BlockingIOError:
                break
            except OSError as exc:
                if exc.errno in _GONE:
                    continue
                self._lack(exc)
                return False
            self._start(
                handlers,
                partial(make_transport, accepted, self._context, server_side=True),
            )
        self._short = False
        return True

    async def _accept_streams(
        self,
        listener: trio.abc.Listener[trio.abc.Stream],
        handlers: trio.Nursery,
    ) -> None:
        while True:
            try:
                stream = await listener.accept()
            except OSError as exc:
                if exc.errno not in _GONE:
                    self._lack(exc)
                    await trio.sleep(_SHORTAGE_SLEEP)
                continue
            self._short = False
            self._start(
                handlers, partial(transport_of, stream, self._context, server_side=True)
            )

    def _lack(self, exc: OSError) -> None:
        """Log a shortage, once for as long as it lasts."""
        if not self._short:
            self._short = True
            self.logger.error("accepting no connections for now: %s", exc)

    @enable_ki_protection
    def _start(self, handlers: trio.Nursery, make: Callable[[], Transport]) -> None:
        """Start to serve one connection."""
        session = _Session()
        handlers.start_soon(self._serve, session, make, name="trio_ws session")
        self._sessions[session] = None  # before its task runs: aclose() may come first

    @enable_ki_protection
    async def _serve(self, session: _Session, make: Callable[[], Transport]) -> None:
        """Serve one connection, whatever happens to it; harm no other."""
        scope: ConnectionScope | None = None
        error = rest = None
        try:
            connection = await self._open(session, make)
            del make
            if connection is None:
                return
            session.connection = connection
            scope = ConnectionScope(connection)
            async with scope:
                session.goes_on_in(scope.outermost)
                if self._goodbye is not None:
                    # Its handshake and our aclose() have crossed.
                    await connection.aclose(*self._goodbye)
                else:
                    await self._handle(connection)
        except BaseException as exc:
            error, rest = parted(exc)
            if error is not None:
                self._log_error(error, scope)
            if rest is exc:
                raise
            if rest is not None:
                raise rest from None
        finally:
            del error, rest  # no cycle with the traceback
            del self._sessions[session]
            if self._idle is not None and not self._sessions:
                self._idle.set()

    def _log_error(self, exc: Exception, scope: ConnectionScope | None) -> None:
        if scope is None:
            self.logger.error("opening handshake failed", exc_info=exc)
        elif scope.gave_verdict:
            # The handler was never told, so it didn't fail.
            self.logger.info("connection lost: %s", exc)
        elif not isinstance(scope.loss_in(exc), ConnectionClosedOK):
            self.logger.error("connection handler failed", exc_info=exc)

    @disable_ki_protection
    async def _handle(self, connection: ServerConnection) -> None:
        await self._handler(connection)

    async def _open(
        self, session: _Session, make: Callable[[], Transport]
    ) -> ServerConnection | None:
        """Do the opening handshake; log what goes wrong and return None."""
        options = self._options
        problem: Exception
        try:
            transport = make()
            with trio.move_on_after(options.open_seconds) as opening:
                session.goes_on_in(opening)
                session.reading = trio.CancelScope()
                if self._closing:
                    session.reading.cancel()
                return await open_connection(
                    transport, options, self.logger, session.reading, self._refuse
                )
            if session.cancelled:
                return None
            problem = options.open_timed_out()
        except Rejected as exc:
            self.logger.info("connection rejected: %s", exc)
            return None
        except (InvalidHandshake, OSError) as exc:
            problem = exc
        finally:
            session.reading = None
        self.logger.info(
            "opening handshake failed: %s: %s", type(problem).__name__, problem
        )
        return None

    def _refuse(self) -> Response | None:
        if not self._closing:
            return None
        return plain_response(503, "Server is shutting down.\n")

    # -- Closing -------------------------------------------------------------

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
        self._closing = True
        self._accepting.cancel()
        for session in self._sessions:
            if session.reading is not None:
                session.reading.cancel()
        try:
            # One that has just been accepted gets its session and its answer.
            await self._accepted_all.wait()
            if self._idle is None:
                self._idle = trio.Event()
            if not self._sessions:
                self._idle.set()
            async with trio.open_nursery() as nursery:
                if close_connections:
                    self._goodbye = (code, reason)
                    await self._close_connections(nursery, code, reason, spread)
                with trio.CancelScope() as scope:
                    if timeout is not None:
                        scope.deadline = trio.current_time() + timeout
                    await self._idle.wait()
                for session in list(self._sessions):
                    session.cancel()
            if self._sessions:
                await self._idle.wait()
            await self._done.wait()
        except BaseException:
            for session in list(self._sessions):
                session.cancel()
            raise

    async def _close_connections(
        self, nursery: trio.Nursery, code: int, reason: str, spread: float
    ) -> None:
        assert self._idle is not None
        connections = list(self.connections)
        start = trio.current_time()
        for number, connection in enumerate(connections):
            # By the clock: what each takes and oversleeps must not add up.
            with trio.CancelScope() as pause:
                pause.deadline = start + spread * number / len(connections)
                await self._idle.wait()
            if self._idle.is_set():
                break
            # To close one that is lost would hide the loss from its handler.
            if connection.state is State.OPEN:
                nursery.start_soon(_close_quietly, connection, code, reason)


async def _close_quietly(connection: ServerConnection, code: int, reason: str) -> None:
    try:
        await connection.aclose(code, reason)
    except Exception:
        connection.logger.info("closing failed", exc_info=True)
