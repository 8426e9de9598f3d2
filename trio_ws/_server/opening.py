"""The server's side of the opening handshake over a transport."""

from __future__ import annotations

import logging
import socket
import ssl as ssl_module
from collections.abc import Callable
from contextlib import suppress

import trio

from .._connection.connection import ServerConnection
from .._connection.opener import Opened, make_connection
from .._endpoint.endpoint import Endpoint
from .._endpoint.log import log_request, log_response
from .._protocol.errors import InvalidHandshake
from .._protocol.handshake.server import ServerHandshake
from .._protocol.http.headers import pack
from .._protocol.http.messages import Request, Response, plain_response
from .._transports.base import Transport, read_some, write_all
from .._transports.make import transport_of
from .._transports.tls import TLSTransport
from .hooks import FAILED, answer
from .options import ServerOptions

# How long a client that was refused is listened to, so that it gets the answer
# before a reset.
_LINGER = 1.0


class Rejected(InvalidHandshake):
    """A hook, or a server that closes, answered with something else than 101."""


async def take_accepted(
    accepted: trio.abc.Stream | socket.socket, context: ssl_module.SSLContext | None
) -> Transport:
    """Make the transport of what was accepted, which is closed if that fails."""
    try:
        return transport_of(accepted, context, server_side=True)
    except BaseException:
        await close_accepted(accepted)
        raise


async def close_accepted(accepted: trio.abc.Stream | socket.socket) -> None:
    """Close a stream at once, whatever it raises. **Cancellation**: none."""
    if isinstance(accepted, socket.socket):
        accepted.close()
        return
    with suppress(Exception), trio.CancelScope(shield=True):
        await trio.aclose_forcefully(accepted)


async def open_server(
    transport: Transport,
    options: ServerOptions,
    logger: logging.Logger,
    *,
    reading: trio.CancelScope,
    refuse: Callable[[], Response | None] = lambda: None,
) -> Opened[ServerConnection]:
    """Do the server's side of the handshake; answer a request that is wrong.

    ``refuse`` is asked before a request is accepted, and may answer otherwise;
    to cancel ``reading`` is to ask it before the request is complete.

    Raises InvalidHandshake, OSError, and closes the transport then.
    **Cancellation**: the transport is closed.
    """
    try:
        return await _open(transport, options, logger, reading, refuse)
    except BaseException:
        await transport.aclose()
        raise


async def _open(
    transport: Transport,
    options: ServerOptions,
    logger: logging.Logger,
    reading: trio.CancelScope,
    refuse: Callable[[], Response | None],
) -> Opened[ServerConnection]:
    handshake = options.handshake()

    def refused() -> Response | None:
        response = refuse()
        return response and handshake.complete(response)

    request = await _receive(transport, handshake, logger, reading, refused)
    try:
        log_request(logger, "<", request)
        endpoint = Endpoint(transport, request, options, logger, client=False)
        connection = make_connection(endpoint, ServerConnection)
        response, problem = refused(), None
        if response is None:
            response, problem = await answer(connection, handshake, options)
            # The hooks may have taken their time.
            response = refused() or response
        if response.status_code == 101:
            log_response(logger, ">", response)
            offered = "Sec-WebSocket-Protocol" in request.headers
            if offered and "Sec-WebSocket-Protocol" not in response.headers:
                logger.info("no offered subprotocol selected: browsers fail with 1006")
    except Exception:
        # Code of the user's: a hook, or a handler of the log.
        failed = handshake.complete(plain_response(500, FAILED))
        await _respond(transport, handshake, failed, logger)
        raise
    if response.status_code != 101:
        try:
            await _respond(transport, handshake, response, logger)
            raise problem or Rejected(f"HTTP {response.status_code}")
        finally:
            del problem  # no cycle with its traceback
    await write_all(transport, response.serialize())
    endpoint.opened(response, handshake)
    pack(request.headers)
    pack(response.headers)
    return connection, endpoint


async def _receive(
    transport: Transport,
    handshake: ServerHandshake,
    logger: logging.Logger,
    reading: trio.CancelScope,
    refuse: Callable[[], Response | None],
) -> Request:
    """Receive the request; answer one that is wrong, or that nobody waits for."""
    request: Request | None = None
    can_answer = False
    try:
        with reading:
            if isinstance(transport, TLSTransport):
                await transport.do_handshake()
            can_answer = True
            request = await _read_request(transport, handshake)
    except InvalidHandshake as exc:
        if not isinstance(exc.__cause__, EOFError):
            await _respond(transport, handshake, handshake.rejection(exc), logger)
        raise
    if request is None:
        response = refuse()
        assert response is not None  # why else would reading be cancelled
        if can_answer:
            await _respond(transport, handshake, response, logger)
        raise Rejected(f"HTTP {response.status_code}")
    return request


async def _read_request(transport: Transport, handshake: ServerHandshake) -> Request:
    while True:
        data = await read_some(transport)
        if not data:
            handshake.receive_eof()
        request = handshake.receive(data)
        if request is not None:
            return request


async def _respond(
    transport: Transport,
    handshake: ServerHandshake,
    response: Response,
    logger: logging.Logger,
) -> None:
    """Write the answer to a request that isn't accepted, and see that it arrives.

    Closing with bytes unread would send a reset, which can destroy the answer
    on its way: what the peer still sends is discarded for a while.
    """
    try:
        log_response(logger, ">", response)
    finally:  # a handler of the log that raises keeps no answer back
        # A peer that is gone doesn't hide why it is refused.
        with suppress(OSError):
            await write_all(transport, handshake.serialize(response))
            if transport.shutdown():
                with trio.move_on_after(_LINGER):
                    while await read_some(transport):
                        # One that floods would keep even the deadline from passing.
                        await trio.lowlevel.checkpoint()
