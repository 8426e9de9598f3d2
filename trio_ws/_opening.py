"""The opening handshake over a transport: from bytes to an Opened connection."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

import trio

from ._connection import Connection, Opened
from ._options import Options
from ._protocol._handshake import ClientHandshake, ServerHandshake
from ._protocol._http import Request, Response
from ._protocol._uri import WebSocketURI
from ._transports import Transport
from ._version import __version__
from .exceptions import InvalidHandshake

USER_AGENT = "Python/{}.{} trio_ws/{}".format(*sys.version_info[:2], __version__)

# How long a client that was refused is listened to, so that it gets the answer
# before a reset.
_LINGER = 1.0


def client_handshake(uri: WebSocketURI, options: Options) -> ClientHandshake:
    """Make a client's handshake; raise ValueError for headers it can't send."""
    return ClientHandshake(
        uri,
        subprotocols=options.subprotocols,
        additional_headers=options.additional_headers,
        user_agent_header=USER_AGENT,
    )


def server_handshake(options: Options) -> ServerHandshake:
    """Make a server's handshake; raise ValueError for headers it can't send."""
    return ServerHandshake(
        subprotocols=options.subprotocols,
        additional_headers=options.additional_headers,
        server_header=USER_AGENT,
    )


async def open_client(
    transport: Transport, uri: WebSocketURI, options: Options, logger: logging.Logger
) -> Opened:
    """Do the client's side of the handshake.

    Raises InvalidHandshake, OSError. **Cancellation**: the transport is of no
    use any more; the caller closes it.
    """
    handshake = client_handshake(uri, options)
    await _write_all(transport, handshake.request_bytes)
    logger.debug("> GET %s HTTP/1.1", handshake.request.path)
    response = None
    while response is None:
        data = await _read_some(transport)
        if not data:
            handshake.receive_eof()
        response = handshake.receive(data)
    logger.debug("< HTTP/1.1 %d", response.status_code)
    return Opened(
        transport=transport,
        request=handshake.request,
        response=response,
        subprotocol=handshake.subprotocol,
        leftover=handshake.leftover,
        options=options,
        logger=logger,
    )


async def open_server(
    transport: Transport,
    options: Options,
    logger: logging.Logger,
    *,
    reading: trio.CancelScope,
    refuse: Callable[[], Response | None],
) -> Opened:
    """Do the server's side of the handshake; answer a request that is wrong.

    ``refuse`` is asked before a request is accepted, and may answer otherwise;
    to cancel ``reading`` is to ask it before the request is complete.

    Raises InvalidHandshake, OSError. **Cancellation**: the transport is of no
    use any more; the caller closes it.
    """
    handshake = server_handshake(options)
    try:
        with reading:
            request = await _read_request(transport, handshake)
            logger.debug("< GET %s HTTP/1.1", request.path)
        refusal = refuse()
        if refusal is None:
            response = handshake.accept(request)
    except InvalidHandshake as exc:
        if not isinstance(exc.__cause__, EOFError):
            await _respond(transport, handshake.rejection(exc))
        raise
    if refusal is not None:
        await _respond(transport, refusal)
        raise InvalidHandshake(f"refused with HTTP {refusal.status_code}")
    await _write_all(transport, response.serialize())
    logger.debug("> HTTP/1.1 %d", response.status_code)
    return Opened(
        transport=transport,
        request=request,
        response=response,
        subprotocol=handshake.subprotocol,
        leftover=handshake.leftover,
        options=options,
        logger=logger,
    )


async def _read_request(transport: Transport, handshake: ServerHandshake) -> Request:
    while True:
        data = await _read_some(transport)
        if not data:
            handshake.receive_eof()
        request = handshake.receive(data)
        if request is not None:
            return request


def make_connection(opened: Opened, default: type[Connection]) -> Connection:
    """Make the connection, by create_connection where the user has one."""
    create = opened.options.create_connection or default
    connection = create(opened)
    if not isinstance(connection, default):
        raise TypeError(
            f"create_connection: expected it to return a {default.__name__}; "
            f"got {type(connection).__name__}"
        )
    return connection


async def _respond(transport: Transport, response: Response) -> None:
    """Write the answer to a request that isn't accepted, and see that it arrives.

    Closing with bytes unread would send a reset, which can destroy the answer
    on its way: what the peer still sends is discarded for a while.
    """
    with trio.move_on_after(_LINGER):
        await _write_all(transport, response.serialize())
        if transport.shutdown():
            while await _read_some(transport):
                pass


async def _write_all(transport: Transport, data: bytes) -> None:
    """Write all of ``data``. **Cancellation**: a part of it may be written."""
    await trio.lowlevel.checkpoint()
    rest = memoryview(data)
    while rest or not transport.flushed:
        rest = rest[transport.write((rest,) if rest else ()) :]
        if rest or not transport.flushed:
            await transport.wait_writable()


async def _read_some(transport: Transport) -> bytes:
    await trio.lowlevel.checkpoint_if_cancelled()
    while (data := transport.read()) is None:
        await transport.wait_readable()
    return data
