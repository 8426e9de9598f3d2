"""The connections of a server, each from accept() to the end of its handler."""

from __future__ import annotations

import logging
import ssl as ssl_module
from collections.abc import Set
from typing import Any

import trio
from trio.lowlevel import disable_ki_protection, enable_ki_protection

from .._connection.groups import split_errors
from .._connection.opener import Opened, make_scope
from .._connection.scope import ConnectionScope
from .._connection.sides import ServerConnection
from .._endpoint.endpoint import Endpoint
from .._endpoint.errors import ConnectionClosedOK
from .._endpoint.identity import AnyLogger, Identity
from .._endpoint.log import log_or_print
from .._endpoint.poller import Poller
from .._protocol.closing import OPEN, State
from .._protocol.engine import Engine
from .._protocol.errors import InvalidHandshake, InvalidStatus
from .._protocol.escaping import shortened
from .._protocol.http.messages import Response, plain_response
from .._transports.make import AnyStream
from .admission import Admission, Ticket
from .opening import Guest, Opening, take_accepted
from .options import Handler, ServerOptions
from .statistics import ServerStatistics, Tally

# So many close frames are sent in one turn of the loop.
_AT_ONCE = 256


class Session(Guest):
    """A connection of a server, before, while and after it is open."""

    __slots__ = (
        "cancelled",
        "connection",
        "endpoint",
        "engine",
        "identity",
        "reading",
        "scope",
        "sessions",
        "ticket",
    )

    engine: Engine  # of the connection, once there is one

    def __init__(self, sessions: Sessions) -> None:
        self.sessions = sessions
        self.ticket = Ticket(sessions.admission)
        self.connection: ServerConnection | None = None
        self.identity: Identity | None = None
        self.endpoint: Endpoint | None = None
        # While the request is read; cancelled: answer without waiting.
        self.reading: trio.CancelScope | None = trio.CancelScope()
        self.scope = trio.CancelScope()  # of what goes on now: first, the opening
        self.cancelled = False

    @property
    def server(self) -> object:  # type: ignore[override]
        """The Server that it is one of."""
        return self.sessions.server

    def arrived(self, address: Any) -> None:
        """Count it for where it comes from."""
        self.ticket.arrived(address)

    def refuse(self, *, opens: bool) -> Response | None:
        """Answer otherwise if the server closes, or has enough connections."""
        if self.sessions.closing:
            return plain_response(503, "Server is shutting down.\n")
        return self.ticket.refusal(opens=opens)

    @property
    def is_one_of_a_crowd(self) -> bool:
        """Whether it is refused with so many others that it gets no answer."""
        return self.ticket.is_one_of_a_crowd

    def cancel(self) -> None:
        """Cancel what goes on now and what follows."""
        self.cancelled = True  # a step may be due in which it goes on
        self.scope.cancel()

    def runs_in(self, scope: trio.CancelScope) -> None:
        """Say which scope cancels what goes on now."""
        self.scope = scope
        if self.cancelled:  # pragma: no cover - chance orders a turn's tasks
            scope.cancel()


class Sessions:
    """All sessions of a server, in order of arrival.

    That is also how the kernel's data for them lies in memory: sending to all takes a
    third less time than in random order.
    """

    def __init__(
        self,
        handler: Handler[Any],
        context: ssl_module.SSLContext | None,
        options: ServerOptions,
        logger: AnyLogger,
        poller: Poller,
    ) -> None:
        self._handler = handler
        self._context = context
        self._options = options
        self._logger = logger
        self._poller = poller
        self._sessions: dict[Session, None] = {}
        self.admission = Admission(options)
        self._tally = Tally()
        self.server: object = None  # the Server, as connections have it
        self.closing = False
        self._goodbye: tuple[int, str] | None = None  # for late comers
        self._idle: trio.Event | None = None  # set when the last session ends

    def __len__(self) -> int:
        return len(self._sessions)

    def statistics(self) -> ServerStatistics:
        """Add up what all have done."""
        endpoints = (s.endpoint for s in self._sessions if s.endpoint is not None)
        return self._tally.statistics(self.admission, endpoints)

    @property
    def connections(self) -> Set[ServerConnection]:
        """The connections that are open now, the oldest first."""
        return {
            session.connection: None
            for session in self._sessions
            if session.connection is not None and session.engine.phase is OPEN
        }.keys()

    # -- One session ---------------------------------------------------------

    @enable_ki_protection
    def start(self, nursery: trio.Nursery, accepted: AnyStream) -> None:
        """Start to serve one connection; take it over unless this raises."""
        session = Session(self)
        try:
            session.ticket.accepted()
            # Before its task runs: aclose() may come first.
            self._sessions[session] = None
            nursery.start_soon(self._serve, session, accepted, name="trio_ws session")
        except BaseException:
            self._sessions.pop(session, None)
            session.ticket.give_back()
            raise
        self._tally.accepted += 1

    @enable_ki_protection
    async def _serve(self, session: Session, accepted: AnyStream) -> None:
        """Serve one connection, whatever happens to it; harm no other."""
        scope: ConnectionScope | None = None
        error = rest = None
        try:
            opened = await self._open(session, accepted)
            del accepted
            if opened is None:
                return
            connection, session.endpoint = opened
            self._tally.opened += 1
            session.endpoint.reader.poller = self._poller
            session.engine = session.endpoint.engine
            session.connection = connection
            scope = await make_scope(connection, session.endpoint)
            async with scope:
                session.runs_in(scope.outermost)
                if self._goodbye is not None:
                    # Its handshake and our aclose() have crossed.
                    await connection.aclose(*self._goodbye)
                else:
                    await self._handle(connection)
        except BaseException as exc:
            error, rest = split_errors(exc)
            if error is not None:
                self._log_error(error, session, scope)
            if rest is exc:
                raise
            if rest is not None:
                raise rest from None
        finally:
            del error, rest  # no cycle with the traceback
            del self._sessions[session]
            session.ticket.give_back()
            if session.endpoint is not None:
                self._tally.ended(session.endpoint)
            if self._idle is not None and not self._sessions:
                self._idle.set()

    def _log_error(
        self, exc: Exception, session: Session, scope: ConnectionScope | None
    ) -> None:
        logger = self._logger_of(session)
        if scope is None:
            log_or_print(
                logger, logging.ERROR, "opening handshake failed", exc_info=exc
            )
        elif not (
            # The handler was never told, so it didn't fail.
            scope.raised_exit_error
            or isinstance(scope.loss_in(exc), ConnectionClosedOK)
        ):
            log_or_print(
                logger, logging.ERROR, "connection handler failed", exc_info=exc
            )

    def _logger_of(self, session: Session) -> AnyLogger:
        return self._logger if session.identity is None else session.identity.log

    @disable_ki_protection
    async def _handle(self, connection: ServerConnection) -> None:
        await self._handler(connection)

    async def _open(
        self, session: Session, accepted: AnyStream
    ) -> Opened[ServerConnection] | None:
        """Do the opening handshake; log what goes wrong and return None."""
        reading = session.reading
        assert reading is not None  # until the end of this
        opening: Opening | None = None
        refused: str | None = "Cancelled"  # why, unless something else happens
        try:
            with session.scope:
                if self.closing:
                    reading.cancel()
                transport = await take_accepted(accepted, self._context)
                identity = Identity(
                    self._logger, transport.remote_address, transport.local_address
                )
                session.identity = identity
                opening = Opening(transport, self._options, identity, session)
                opened = await opening.run(reading)
                refused = None
                return opened
        except (InvalidHandshake, OSError) as exc:
            refused = type(exc).__name__
            logger = self._logger_of(session)
            if opening is not None and opening.is_of_a_stranger(exc):
                logger = identity.log.child("strangers")
            if isinstance(exc, InvalidStatus):
                status = exc.response.status_code
                refused = None if status < 400 else f"HTTP {status}"
                self._tally.answered += refused is None
                _log_answer(logger, exc)
            else:
                text = shortened(f"{type(exc).__name__}: {exc}")
                logger.info("opening handshake failed: %s", text)
        except Exception as exc:
            refused = type(exc).__name__
            raise
        finally:
            if refused is not None:
                self._tally.refused[refused] += 1
            session.reading = None
            session.ticket.opened()
        return None

    # -- All of them ---------------------------------------------------------

    def refuse_new(self) -> None:
        """Answer opening handshakes with HTTP 503 from now on, those under way too."""
        self.closing = True
        for session in self._sessions:
            if session.reading is not None:
                session.reading.cancel()

    def cancel_all(self) -> None:
        """Cancel the sessions, each of which says 1001 without waiting."""
        for session in list(self._sessions):
            session.cancel()

    def end_event(self) -> trio.Event:
        """Return the event of there being no session; refuse_new() comes before."""
        if self._idle is None:
            self._idle = trio.Event()
        if not self._sessions:
            self._idle.set()
        return self._idle

    async def close_connections(
        self, nursery: trio.Nursery, code: int, reason: str, spread: float
    ) -> None:
        """Close connections one after the other over ``spread`` seconds, late ones too.

        **Cancellation**: the rest is not closed.
        """
        self._goodbye = (code, reason)
        idle = self.end_event()
        connections = list(self.connections)
        start = trio.current_time()
        for number, connection in enumerate(connections):
            # By the clock: what each takes and oversleeps must not add up. Behind
            # schedule, many go in a turn of the loop, which may be long.
            due = start + spread * number / len(connections)
            if due > trio.current_time() or number % _AT_ONCE == 0:
                with trio.move_on_at(due):
                    await idle.wait()
            if idle.is_set():
                break
            # To close one that is lost would hide the loss from its handler.
            if connection.state is State.OPEN:
                nursery.start_soon(_close_quietly, connection, code, reason)


async def _close_quietly(connection: ServerConnection, code: int, reason: str) -> None:
    try:
        await connection.aclose(code, reason)
    except Exception as exc:  # noqa: BLE001 - logged
        log_or_print(connection.logger, logging.INFO, "closing failed", exc_info=exc)


def _log_answer(logger: AnyLogger, exc: InvalidStatus) -> None:
    """Log an answer of a hook's, or of the server itself."""
    status = exc.response.status_code
    if status < 400:
        logger.info("HTTP response sent: %d", status)
    elif exc.__cause__ is None:  # what a hook has raised is logged already
        logger.info("connection rejected: HTTP %d", status)
