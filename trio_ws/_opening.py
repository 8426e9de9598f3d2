"""The opening handshake over a transport: from bytes to a connection."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from math import inf
from typing import Any, TypeVar

import trio
from trio.lowlevel import disable_ki_protection

from ._connection import ClientConnection, Connection, ServerConnection
from ._options import ClientOptions, ServerOptions
from ._protocol._handshake_client import ClientHandshake
from ._protocol._handshake_server import ServerHandshake, plain_response
from ._protocol._http import Request, Response
from ._pump import Endpoint
from ._story import log_request, log_response
from ._transports import TLSTransport, Transport
from .exceptions import InvalidHandshake, InvalidStatus

# How long a client that was refused is listened to, so that it gets the answer
# before a reset.
_LINGER = 1.0

# How long a client waits for the body that explains a refusal. A server that says
# neither how long it is nor closes the connection would keep it for ever.
_EXPLANATION = 1.0

# RFC 9110, sections 15.3.5 and 15.4.5
_WITHOUT_BODY = (204, 304)

# The body of the answer where the server's own code failed.
_FAILED = "Failed to open a WebSocket connection: see the server's log.\n"


class Rejected(InvalidHandshake):
    """A hook, or a server that closes, answered with something else than 101."""


async def open_client(
    transport: Transport,
    handshake: ClientHandshake,
    options: ClientOptions,
    logger: logging.Logger,
) -> ClientConnection:
    """Do the client's side of the handshake.

    Raises InvalidHandshake, OSError. **Cancellation**: the transport is of no
    use any more; the caller closes it.
    """
    broken: ConnectionError | None = None
    try:
        await _write_all(transport, handshake.request_bytes)
    except ConnectionError as exc:
        broken = exc  # but the server may have answered before it went
    log_request(logger, ">", handshake.request)
    try:
        response = await _read_response(transport, handshake, broken)
    except InvalidStatus as exc:
        log_response(logger, "<", exc.response)
        raise
    log_response(logger, "<", response)
    endpoint = Endpoint(transport, handshake.request, options, logger, client=True)
    connection = _make_connection(endpoint, ClientConnection)
    _opened(connection, response, handshake)
    return connection


async def _read_response(
    transport: Transport, handshake: ClientHandshake, broken: ConnectionError | None
) -> Response:
    """Read the response that opens the WebSocket.

    A status that refuses is enough, whatever becomes of its body. ``broken`` is
    what writing met with: then only what is there is read.

    Raises InvalidHandshake, OSError.
    """
    with trio.CancelScope() as body:
        while True:
            try:
                data = transport.read() if broken else await _read_some(transport)
                if not data and broken:
                    raise broken
                if not data:
                    break
                response = handshake.receive(data)
            except (OSError, InvalidHandshake):
                if handshake.is_refused:
                    break
                raise
            if response is not None:
                return response
            if handshake.is_refused and body.deadline == inf:
                body.deadline = trio.current_time() + _EXPLANATION
            await trio.lowlevel.checkpoint()  # a server may send without end
    handshake.receive_eof()


async def open_server(
    transport: Transport,
    options: ServerOptions,
    logger: logging.Logger,
    *,
    reading: trio.CancelScope,
    refuse: Callable[[], Response | None],
) -> ServerConnection:
    """Do the server's side of the handshake; answer a request that is wrong.

    ``refuse`` is asked before a request is accepted, and may answer otherwise;
    to cancel ``reading`` is to ask it before the request is complete.

    Raises InvalidHandshake, OSError. **Cancellation**: the transport is of no
    use any more; the caller closes it.
    """
    handshake = options.handshake()
    request: Request | None = None
    can_answer = False
    try:
        with reading:
            if isinstance(transport, TLSTransport):
                await transport.do_handshake()
            can_answer = True
            request = await _read_request(transport, handshake)
            log_request(logger, "<", request)
    except InvalidHandshake as exc:
        if not isinstance(exc.__cause__, EOFError):
            await _respond(transport, handshake.rejection(exc), logger)
        raise
    response = refuse()
    if request is None:
        assert response is not None  # why else would reading be cancelled
        if can_answer:
            await _respond(transport, response, logger)
        raise Rejected(f"HTTP {response.status_code}")
    endpoint = Endpoint(transport, request, options, logger, client=False)
    try:
        connection = _make_connection(endpoint, ServerConnection)
    except Exception:
        await _respond(transport, plain_response(500, _FAILED), logger)
        raise
    problem: InvalidHandshake | None = None
    if response is None:
        response, problem = await _answer(connection, handshake, options)
        # The hooks may have taken their time.
        response = refuse() or response
    if response.status_code != 101:
        await _respond(transport, response, logger)
        raise problem or Rejected(f"HTTP {response.status_code}")
    log_response(logger, ">", response)
    await _write_all(transport, response.serialize())
    _opened(connection, response, handshake)
    request.headers._pack()
    response.headers._pack()
    return connection


async def _answer(
    connection: ServerConnection, handshake: ServerHandshake, options: ServerOptions
) -> tuple[Response, InvalidHandshake | None]:
    """Make the response to a request: by the hooks, by the RFC.

    Return it with what is wrong with the request, if it is refused for that.
    """
    request = connection.request
    problem: InvalidHandshake | None = None
    accepted = False
    hook = "process_request"
    try:
        response = await _called(options.process_request, connection, request)
        if response is not None:
            _check_response(response, accepted)
        else:
            hook = "select_subprotocol"
            select = options.select_subprotocol
            try:
                response = handshake.accept(
                    request,
                    None if select is None else partial(_call, select, connection),
                )
                accepted = True
            except InvalidHandshake as exc:
                response, problem = handshake.rejection(exc), exc
        hook = "process_response"
        changed = await _called(options.process_response, connection, request, response)
        response = changed or response
        _check_response(response, accepted)
    except Exception:
        connection.logger.exception("%s failed", hook)
        return plain_response(500, _FAILED), None
    return response, problem


def _check_response(response: Response, accepted: bool) -> None:
    """Check that a user's response can be sent, before any of it is.

    A body that a hook has changed gets its length. Raises ValueError, TypeError or
    AttributeError.
    """
    response.serialize()
    length = [str(len(response.body))]
    if response.status_code in _WITHOUT_BODY:
        response.body, length = b"", []
    if response.headers.get_all("Content-Length") not in ([], length):
        del response.headers["Content-Length"]
        response.headers.update(("Content-Length", value) for value in length)
    if response.status_code < 200 and not (accepted and response.status_code == 101):
        # Only handshake.accept() knows the Sec-WebSocket-Accept of a 101, and
        # behind another of these a client waits for the final response.
        raise ValueError(
            f"status code: expected at least 200; got {response.status_code}"
        )


@disable_ki_protection  # the user's code
def _call(function: Callable[..., Any], *args: object) -> Any:
    return function(*args)


@disable_ki_protection
async def _called(hook: Callable[..., object] | None, *args: object) -> Response | None:
    """Call a hook, which may be asynchronous; check what it returns."""
    if hook is None:
        return None
    result = hook(*args)
    if isinstance(result, Awaitable):
        result = await result
    if result is not None and not isinstance(result, Response):
        raise TypeError(f"expected a trio_ws.Response or None; got {result!r}")
    return result


async def _read_request(transport: Transport, handshake: ServerHandshake) -> Request:
    while True:
        data = await _read_some(transport)
        if not data:
            handshake.receive_eof()
        request = handshake.receive(data)
        if request is not None:
            return request


def _opened(
    connection: Connection,
    response: Response,
    handshake: ClientHandshake | ServerHandshake,
) -> None:
    endpoint = connection._endpoint
    endpoint.opened(response, handshake)
    connection.response = response
    connection.subprotocol = endpoint.subprotocol


_ConnectionT = TypeVar("_ConnectionT", bound=Connection)


def _make_connection(opened: Endpoint, default: type[_ConnectionT]) -> _ConnectionT:
    """Make the connection, by create_connection where the user has one."""
    create = opened.options.create_connection or default
    connection = _call(create, opened)
    if not isinstance(connection, default):
        raise TypeError(
            f"create_connection: expected it to return a {default.__name__}; "
            f"got {type(connection).__name__}"
        )
    return connection


async def _respond(
    transport: Transport, response: Response, logger: logging.Logger
) -> None:
    """Write the answer to a request that isn't accepted, and see that it arrives.

    Closing with bytes unread would send a reset, which can destroy the answer
    on its way: what the peer still sends is discarded for a while.
    """
    log_response(logger, ">", response)
    # A peer that is gone doesn't hide why it is refused.
    with suppress(OSError):
        await _write_all(transport, response.serialize())
        if transport.shutdown():
            with trio.move_on_after(_LINGER):
                while await _read_some(transport):
                    # One that floods would keep even the deadline from passing.
                    await trio.lowlevel.checkpoint()


async def _write_all(transport: Transport, data: bytes) -> None:
    """Write all of ``data``. **Cancellation**: a part of it may be written."""
    await trio.lowlevel.checkpoint_if_cancelled()
    rest = memoryview(data)
    while rest or transport.unsent:
        rest = rest[transport.write((rest,) if rest else ()) :]
        if rest or transport.unsent:
            await transport.wait_writable()


async def _read_some(transport: Transport) -> bytes:
    await trio.lowlevel.checkpoint_if_cancelled()
    while (data := transport.read()) is None:
        await transport.wait_readable()
    return data
