"""The server's side of the opening handshake over a transport."""

from __future__ import annotations

import logging
import ssl as ssl_module
from contextlib import suppress
from typing import Any

import trio

from .._connection.opener import Opened, Stage, make_connection
from .._connection.sides import ServerConnection
from .._endpoint.endpoint import Endpoint
from .._endpoint.errors import OpenTimeoutError
from .._endpoint.identity import Identity
from .._endpoint.log import log_or_print, log_request, log_response
from .._protocol.errors import InvalidHandshake, InvalidMessage, InvalidStatus
from .._protocol.handshake.proxy_header import Addresses, parse_proxy_header
from .._protocol.http.headers import pack
from .._protocol.http.messages import Request, Response, plain_response
from .._protocol.strangers import ASTRAY, MOST, spoken_by
from .._transports.base import Transport, read_some, write_all
from .._transports.make import AnyStream, close_any, transport_of
from .._transports.tls import TLSTransport
from .hooks import FAILED, NO_TLS, SLOW_HOOK, SLOW_REQUEST, answer
from .options import ServerOptions, server_handshake

# How long a client that was refused is listened to, so that it gets the answer
# before a reset.
_LINGER = 1.0

# So much of an answer has open_timeout to be taken.
_PORTION = 2**16

_PROXY_HEADER = "header of the PROXY protocol"  # a stage

# RFC 9110, section 15.2.1
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


async def take_accepted(
    accepted: AnyStream, context: ssl_module.SSLContext | None
) -> Transport:
    """Make the transport of what was accepted, which is closed if that fails."""
    try:
        return transport_of(accepted, context, server_side=True)
    except BaseException:
        await close_any(accepted)
        raise


class Unanswered(InvalidHandshake):
    """One that is refused was closed without an answer, which this names."""


class Guest:
    """What a server knows of a connection that opens; nothing where there is none."""

    __slots__ = ()

    server: object = None  # what the connection has under that name

    def arrived(self, address: Any) -> None:
        """Be told where it comes from, before all else."""

    def refuse(self, *, opens: bool) -> Response | None:
        """Answer otherwise than a request asks for, if need be.

        ``opens``: it asks for a WebSocket, or may do.
        """
        return None

    @property
    def is_one_of_a_crowd(self) -> bool:
        """Whether it is refused with so many others that it gets no answer."""
        return False


class Opening:
    """The server's side of the handshake over one transport.

    ``received`` is what came already, behind TLS.
    """

    def __init__(
        self,
        transport: Transport,
        options: ServerOptions,
        identity: Identity,
        guest: Guest | None = None,
        *,
        received: bytes = b"",
    ) -> None:
        self._transport = transport
        self._options = options
        self._identity = identity
        self._guest = guest or Guest()
        self._received = received
        self._handshake = server_handshake(options)
        self._stage = Stage()
        self._deadline = trio.current_time() + options.open_seconds
        self._first = b""  # of the request, as much as tells what it is
        self._endpoint: Endpoint | None = None

    async def run(self, reading: trio.CancelScope) -> Opened[ServerConnection]:
        """Do the handshake; answer a request that is wrong.

        To cancel ``reading`` is to refuse before the request is complete, if at all.

        Raises InvalidHandshake, OSError (OpenTimeoutError is one, after an answer where
        one is due), and closes the transport then. **Cancellation**: the transport is
        closed.
        """
        transport = self._transport
        try:
            return await self._run(reading)
        except BaseException:
            try:
                await transport.aclose()
            finally:
                if self._endpoint is not None:
                    self._endpoint.release()  # a hook may have it waited for
            raise

    def is_of_a_stranger(self, exc: Exception) -> bool:
        """Tell what isn't a client's failing, as of probes, scans and preconnects.

        What begins as a client or a proxy would that is set up wrongly isn't one's:
        TLS for HTTP and the other way round, or a header of the PROXY protocol.
        """
        if self._handshake.method:
            return False
        if isinstance(exc, (InvalidStatus, Unanswered)):  # a server that closes, say
            return not self._first
        if self._stage.name == _PROXY_HEADER:  # it is the proxy's, or there is none
            return isinstance(exc.__cause__, EOFError)
        if isinstance(exc, ssl_module.SSLError):
            # Others are about certificates, versions and ciphers.
            _, expected, got = str(exc).partition("expected TLS; got ")
            eof = isinstance(exc, ssl_module.SSLEOFError)
            return eof or (bool(expected) and not got.startswith(ASTRAY))
        return spoken_by(self._first) not in ASTRAY

    async def _run(self, reading: trio.CancelScope) -> Opened[ServerConnection]:
        transport, identity = self._transport, self._identity
        request = await self._receive(reading)
        try:
            log_request(identity, "<", request)
            endpoint = self._endpoint = Endpoint(
                transport, request, self._options, identity, client=False
            )
            connection = make_connection(endpoint, ServerConnection)
            connection.server = self._guest.server
            response, problem = await self._answer(connection)
            if response.status_code == 101:
                log_response(identity, ">", response)
                offered = "Sec-WebSocket-Protocol" in request.headers
                if offered and "Sec-WebSocket-Protocol" not in response.headers:
                    identity.log.info(
                        "no offered subprotocol selected: browsers fail with 1006"
                    )
        except Exception:
            # Code of the user's: a hook, or a handler of the log.
            await self._respond(self._plain(500, FAILED))
            raise
        if response.status_code != 101:
            loss: OSError | None = None
            try:
                loss = await self._respond(response)
                if response.status_code < 400 and loss is not None:
                    raise loss
                raise problem or InvalidStatus(response)
            finally:
                del problem, loss  # no cycle with its traceback
        await self._write(response.serialize())
        endpoint.opened(response, self._handshake)
        pack(request.headers)
        pack(response.headers)
        if identity.logger.isEnabledFor(logging.INFO):
            log_or_print(identity.log, logging.INFO, "connection open")
        return connection, endpoint

    def _plain(self, status: int, text: str) -> Response:
        return self._handshake.complete(plain_response(status, text))

    def _refused(self, *, opens: bool = True) -> Response | None:
        response = self._guest.refuse(opens=opens)
        return response and self._handshake.complete(response)

    def _refuse_at_once(self, reading: trio.CancelScope) -> None:
        """Leave who is refused already a moment to ask, so that it gets an answer.

        Raises Unanswered if there is no answer for it.
        """
        response = self._refused()
        if response is None:
            return
        if self._guest.is_one_of_a_crowd:
            raise Unanswered(f"HTTP {response.status_code}, to too many at a time")
        reading.deadline = min(reading.deadline, trio.current_time() + _LINGER)

    def _hurry(self) -> None:
        """Leave who is refused no more than a moment to take the answer."""
        self._deadline = trio.current_time()

    async def _write(self, data: bytes) -> None:
        """Write an answer, as long as the peer goes on taking it. Raises OSError.

        One that is late has a moment, too.
        """
        deadline = max(self._deadline, trio.current_time() + _LINGER)
        await trio.lowlevel.checkpoint_if_cancelled()
        for start in range(0, len(data), _PORTION):
            portion = memoryview(data)[start : start + _PORTION]
            portion = portion[self._transport.write((portion,)) :]
            if not (portion or self._transport.unsent):
                continue  # as of nearly all: no scope for them
            with trio.CancelScope(deadline=deadline) as scope:
                await write_all(self._transport, portion)
            if scope.cancelled_caught:
                raise self._options.open_timed_out("response")
            more = max(self._options.open_seconds, _LINGER)
            deadline = trio.current_time() + more

    def _timed_out(self) -> OpenTimeoutError:
        return self._options.open_timed_out(self._stage.name)

    async def _receive(self, reading: trio.CancelScope) -> Request:
        """Receive the request; answer one that is wrong, late or that nobody awaits."""
        can_answer = False
        reading.deadline = self._deadline
        try:
            with reading:
                self._refuse_at_once(reading)
                if self._options.proxy_protocol:
                    self._stage.name = _PROXY_HEADER
                    await self._receive_proxy_header()
                self._guest.arrived(self._identity.remote_address)
                self._refuse_at_once(reading)
                self._stage.name = "TLS handshake"
                if isinstance(self._transport, TLSTransport):
                    await self._transport.do_handshake()
                can_answer = True
                self._stage.name = "request"
                return await self._read_request()
        except InvalidHandshake as exc:
            if can_answer and not isinstance(exc.__cause__, EOFError):
                await self._respond(self._handshake.rejection(exc))
            raise
        except ssl_module.SSLError as exc:
            transport = self._transport
            if exc.reason == "HTTP_REQUEST" and isinstance(transport, TLSTransport):
                self._transport = transport.below
                await self._respond(self._plain(400, NO_TLS))
            raise
        response = self._refused()
        if response is not None:
            if not can_answer:
                why = f"before the end of the {self._stage.name}"
                raise Unanswered(f"HTTP {response.status_code}, {why}")
            self._hurry()
            await self._respond(response)
            raise InvalidStatus(response)
        if self._first:
            await self._respond(self._plain(408, SLOW_REQUEST))
        # Without a byte, it is no request that is late, but what a browser opens in
        # case of need, or a probe.
        raise self._timed_out()

    async def _receive_proxy_header(self) -> None:
        """Take the addresses that a proxy tells, which then are the connection's.

        Raises InvalidMessage if it tells none.
        """
        transport, parser = self._transport, parse_proxy_header()
        if isinstance(transport, TLSTransport):
            transport = transport.below
        wanted, data = next(parser), b""
        while True:
            received = await read_some(transport, wanted - len(data))
            if not received:
                raise InvalidMessage(
                    f"expected a {_PROXY_HEADER}; got {data!r} and the end of stream"
                ) from EOFError("connection closed")
            data += received
            if len(data) == wanted:
                try:
                    wanted, data = parser.send(data), b""
                except StopIteration as stop:
                    addresses: Addresses | None = stop.value
                    break
        if addresses is not None:
            self._identity.remote_address, self._identity.local_address = addresses

    async def _read_request(self) -> Request:
        while True:
            data, self._received = self._received, b""
            data = data or await read_some(self._transport)
            if not data:
                self._handshake.receive_eof()
            self._first += data[: MOST - len(self._first)]
            request = self._handshake.receive(data)
            if request is not None:
                return request
            if self._handshake.has_head:
                self._stage.name = "request body"
            if self._handshake.awaits_continue:
                await write_all(self._transport, _CONTINUE)

    async def _answer(
        self, connection: ServerConnection
    ) -> tuple[Response, Exception | None]:
        """Make the response, in time; return it with why, if there is more to say."""
        response = self._refused()
        if response and not self._handshake.opens(connection.request):
            response = self._refused(opens=False)
        if response is not None:
            self._hurry()
            return response, None
        problem: Exception | None = None
        options = self._options
        answering = answer(connection, self._handshake, options, self._stage)
        if not (options.process_request or options.process_response):
            return await answering  # without a scope: nothing is waited for
        with trio.CancelScope(deadline=self._deadline):
            response, problem = await answering
        if response is None:
            response, problem = self._plain(503, SLOW_HOOK), self._timed_out()
        try:
            # The hooks may have taken their time.
            opens = response.status_code == 101
            return self._refused(opens=opens) or response, problem
        finally:
            del problem  # no cycle with its traceback

    async def _respond(self, response: Response) -> OSError | None:
        """Write the answer to a request that isn't accepted, and see that it arrives.

        Return why the peer hasn't taken all of it: one that is gone doesn't hide why
        it is refused. Closing with bytes unread would send a reset, which can destroy
        the answer on its way: what the peer still sends is discarded for a while.
        """
        transport = self._transport
        try:
            log_response(self._identity, ">", response)
        finally:  # a handler of the log that raises keeps no answer back
            loss = None
            try:
                await self._write(self._handshake.serialize(response))
            except OSError as exc:
                loss = exc
            with suppress(OSError):
                if loss is None and transport.shutdown():
                    with trio.move_on_after(_LINGER):
                        while await read_some(transport):
                            # One that floods would keep even the deadline from passing.
                            await trio.lowlevel.checkpoint()
        try:
            return loss
        finally:
            del loss  # no cycle with its traceback
