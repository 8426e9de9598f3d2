"""The transport for what there is: a socket or a stream, with or without TLS."""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress

import trio

from .base import Transport
from .sockets import SocketTransport, take_socket
from .streams import StreamTransport
from .tls import TLSTransport

# What a transport can be made of, or is.
AnyStream = trio.abc.Stream | socket.socket | Transport


def make_transport(
    sock: socket.socket,
    context: ssl.SSLContext | None,
    *,
    server_side: bool,
    server_hostname: str | None = None,
) -> Transport:
    """Make the transport of a socket, with TLS if there is a context.

    Takes the socket over: it is closed if anything is wrong, as with a
    ``server_hostname`` that can't be one (ValueError).
    """
    try:
        below = SocketTransport(sock)
        if context is None:
            return below
        return TLSTransport(
            below, context, server_side=server_side, server_hostname=server_hostname
        )
    except BaseException:
        sock.close()
        raise


def transport_of(
    stream: AnyStream,
    context: ssl.SSLContext | None,
    *,
    server_side: bool,
    server_hostname: str | None = None,
) -> Transport:
    """Make the transport of a stream; a socket is taken out of trio's stream.

    On a transport, it is that of TLS in what it carries, or the same.
    """
    if isinstance(stream, trio.SocketStream):
        stream = take_socket(stream)
    if isinstance(stream, socket.socket):
        return make_transport(
            stream, context, server_side=server_side, server_hostname=server_hostname
        )
    below = stream if isinstance(stream, Transport) else StreamTransport(stream)
    if context is None:
        return below
    return TLSTransport(
        below, context, server_side=server_side, server_hostname=server_hostname
    )


async def close_any(stream: AnyStream) -> None:
    """Close what transport_of() takes at once, whatever it raises.

    **Cancellation**: none.
    """
    if isinstance(stream, socket.socket):
        stream.close()
    elif isinstance(stream, Transport):
        await stream.aclose()
    else:
        with suppress(Exception), trio.CancelScope(shield=True):
            await trio.aclose_forcefully(stream)


def check_context(context: object, *, server_side: bool, name: str = "ssl") -> None:
    """Check an argument that is to be a context, or None."""
    if context is None:
        return
    if not isinstance(context, ssl.SSLContext):
        raise TypeError(f"{name}: expected an ssl.SSLContext; got {context!r}")
    if server_side and context.protocol == ssl.PROTOCOL_TLS_CLIENT:
        raise ValueError(
            "ssl: expected a server's context, as of "
            "ssl.create_default_context(ssl.Purpose.CLIENT_AUTH); got a client's"
        )
    if not server_side and context.protocol == ssl.PROTOCOL_TLS_SERVER:
        raise ValueError(
            f"{name}: expected a client's context, as of ssl.create_default_context(); "
            "got a server's"
        )
