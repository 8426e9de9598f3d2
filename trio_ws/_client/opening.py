"""The client's side of the opening handshake over a transport."""

from __future__ import annotations

import trio

from .._connection.groups import raise_as_is
from .._connection.opener import Opened, make_connection
from .._connection.scope import ConnectionScope
from .._connection.sides import ClientConnection
from .._endpoint.endpoint import Endpoint
from .._endpoint.identity import Identity
from .._endpoint.log import log_request, log_response
from .._protocol.errors import InvalidHandshake, InvalidProxyStatus, InvalidStatus
from .._protocol.escaping import escape
from .._protocol.handshake.client import ClientHandshake
from .._protocol.handshake.exchange import Exchange
from .._protocol.http.messages import Response
from .._transports.base import READ_SIZE, Transport, read_some, write_all
from .options import ClientOptions

# How long a client waits for the body that explains a refusal. A server that says
# neither how long it is nor closes the connection would keep it for ever.
_EXPLANATION = 1.0

_SHORT = 300  # characters of an answer that a note has


async def open_client(
    transport: Transport,
    handshake: ClientHandshake,
    options: ClientOptions,
    identity: Identity,
) -> Opened[ClientConnection]:
    """Do the client's side of the handshake.

    Raises InvalidHandshake, OSError. **Cancellation**: the transport is of no
    use any more; the caller closes it.
    """
    identity.is_between(transport.remote_address, transport.local_address)
    response = await ask(transport, handshake, identity)
    endpoint = Endpoint(transport, handshake.request, options, identity, client=True)
    try:
        connection = make_connection(endpoint, ClientConnection)
    except Exception:
        # The server holds the connection for open: it is left as a block is by an
        # error, with 1011, and has a moment to answer.
        endpoint.opened(response, handshake)
        with trio.move_on_after(_EXPLANATION):
            async with ConnectionScope(ClientConnection(endpoint), endpoint):
                raise
        raise  # pragma: no cover - the block lets it out
    endpoint.opened(response, handshake)
    return connection, endpoint


def explain(exc: InvalidStatus | InvalidProxyStatus) -> None:
    """Note what a refusal says, if that is a text for people and is short."""
    response = exc.response
    kind = ", ".join(response.headers.get_all("Content-Type")).partition(";")[0]
    text = response.body.decode("utf-8", "replace").strip()
    if kind.strip().lower() == "text/plain" and 0 < len(text) <= _SHORT:
        exc.add_note(f"the answer says: {escape(text)}")


async def ask(transport: Transport, exchange: Exchange, identity: Identity) -> Response:
    """Send a request; return the response that agrees to it.

    Raises InvalidHandshake, OSError. **Cancellation**: the transport is of no
    use any more.
    """
    broken: ConnectionError | None = None
    try:
        await write_all(transport, exchange.request_bytes)
    except ConnectionError as exc:
        broken = exc  # but the server may have answered before it went
    log_request(identity, ">", exchange.request)
    try:
        response = await _read_response(transport, exchange, broken)
    except InvalidStatus as exc:
        log_response(identity, "<", exc.response)
        raise
    finally:
        del broken  # no cycle with its traceback
    log_response(identity, "<", response)
    return response


async def _read_response(
    transport: Transport, exchange: Exchange, broken: ConnectionError | None
) -> Response:
    """Read the response that agrees.

    A status that refuses is enough, whatever becomes of its body. ``broken`` is
    what writing met with: then only what is there is read.

    Raises InvalidHandshake, OSError.
    """
    while not exchange.is_refused:
        response = await _receive(transport, exchange, broken)
        if response is not None:
            return response
        await trio.lowlevel.checkpoint()  # a server may send without end
    if not exchange.is_redirected:
        with trio.move_on_after(_EXPLANATION):
            while True:
                await _receive(transport, exchange, broken)
                await trio.lowlevel.checkpoint()
    exchange.receive_eof()


async def _receive(
    transport: Transport, exchange: Exchange, broken: ConnectionError | None
) -> Response | None:
    """Read once; return the response that agrees, once it is complete."""
    try:
        size = exchange.most or READ_SIZE
        data = transport.read(size) if broken else await read_some(transport, size)
        if data:
            return exchange.receive(data)
        if broken:
            raise_as_is(broken)
    except (OSError, InvalidHandshake):
        if not exchange.is_refused:
            raise
    exchange.receive_eof()
