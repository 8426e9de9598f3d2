"""connect(): a client's connection, from the URI to the end of its scope."""

from __future__ import annotations

import logging
import ssl as ssl_module
from types import TracebackType
from typing import NoReturn, Unpack

import trio
from trio.lowlevel import enable_ki_protection

from ._connection import ClientConnection
from ._opening import client_handshake, make_connection, open_client
from ._options import Options, OptionsDict
from ._protocol._uri import parse_uri
from ._scope import ConnectionScope
from ._transports import (
    StreamTransport,
    TLSTransport,
    Transport,
    make_transport,
    take_socket,
)
from .exceptions import OpenTimeoutError


class connect:  # noqa: N801 - reads as the function that it is to its users
    """Connect to a WebSocket server: ``async with connect(uri) as ws: ...``.

    ``uri`` begins with ``ws://`` or ``wss://`` (RFC 6455, section 3). ``host``
    and ``port`` say where to connect to instead; the URI's still stand in the
    Host header and are what TLS checks. ``ssl`` is the context for ``wss://``,
    by default one with the system's roots; ``server_hostname`` is checked in
    place of the URI's host. ``stream`` is a connected trio.abc.Stream to use
    instead of TCP; it is closed with the connection. ``options`` are those of
    :class:`trio_ws.Options`.

    Entering raises OSError if the server can't be reached (ssl.SSLError if TLS
    fails, with what is wrong with a certificate), InvalidHandshake if it
    answers otherwise, OpenTimeoutError after ``open_timeout`` seconds, which
    cover DNS, TCP, TLS and the handshake. Wrong arguments raise InvalidURI,
    ValueError or TypeError before anything is sent.

    Leaving closes the connection, in a way that tells the peer how the block
    ended, and raises ConnectionClosedError if the connection was lost and the
    block doesn't know yet.

    **Cancellation** while entering: nothing is left open. While leaving: a
    close frame is sent as far as that needs no waiting, then Cancelled passes.
    """

    def __init__(
        self,
        uri: str,
        *,
        host: str | None = None,
        port: int | None = None,
        ssl: ssl_module.SSLContext | None = None,
        server_hostname: str | None = None,
        stream: trio.abc.Stream | None = None,
        **options: Unpack[OptionsDict],
    ) -> None:
        self._uri = parse_uri(uri)
        self._options = Options(**options)
        self._host = host
        self._port = port
        self._ssl = ssl
        self._server_hostname = server_hostname
        self._stream = stream
        if ssl is not None and not isinstance(ssl, ssl_module.SSLContext):
            raise TypeError(f"ssl: expected an ssl.SSLContext; got {ssl!r}")
        if not self._uri.secure:
            for name, value in (("ssl", ssl), ("server_hostname", server_hostname)):
                if value is not None:
                    raise ValueError(
                        f"{name}: expected a wss:// URI with it; got ws://"
                    )
        if stream is not None:
            if not isinstance(stream, trio.abc.Stream):
                raise TypeError(f"stream: expected a trio.abc.Stream; got {stream!r}")
            if host is not None or port is not None:
                raise ValueError("stream: expected neither host nor port with it")
        client_handshake(self._uri, self._options)  # raises for wrong headers
        self._logger = self._options.logger or logging.getLogger("trio_ws.client")

    @enable_ki_protection
    async def __aenter__(self) -> ClientConnection:
        connection = await self._open()
        self._scope = ConnectionScope(connection)
        await self._scope.__aenter__()
        return connection

    @enable_ki_protection
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        return await self._scope.__aexit__(exc_type, exc, traceback)

    async def _open(self) -> ClientConnection:
        """Open a connection: everything but its scope."""
        with trio.CancelScope() as scope:
            if self._options.open_timeout is not None:
                scope.deadline = trio.current_time() + self._options.open_timeout
            transport = await self._open_transport()
            try:
                if isinstance(transport, TLSTransport):
                    await transport.do_handshake()
                opened = await open_client(
                    transport, self._uri, self._options, self._logger
                )
                connection = make_connection(opened, ClientConnection)
            except BaseException:
                await transport.aclose()
                raise
            assert isinstance(connection, ClientConnection)
            return connection
        raise OpenTimeoutError(
            f"connection not open after {self._options.open_timeout} s (open_timeout)"
        )

    async def _open_transport(self) -> Transport:
        stream = self._stream
        if stream is None:
            stream = await trio.open_tcp_stream(
                self._host if self._host is not None else self._uri.host,
                self._port if self._port is not None else self._uri.port,
            )
        context: ssl_module.SSLContext | None = None
        if self._uri.secure:
            context = self._ssl or ssl_module.create_default_context()
        hostname = self._server_hostname or self._uri.host
        if isinstance(stream, trio.SocketStream):
            return make_transport(
                take_socket(stream),
                context,
                server_side=False,
                server_hostname=hostname if context is not None else None,
            )
        if context is not None:
            stream = trio.SSLStream(
                stream, context, server_hostname=hostname, https_compatible=True
            )
        return StreamTransport(stream)

    # What websockets and trio users may try, with what to write instead.

    def __await__(self) -> NoReturn:
        raise TypeError(
            "connect() can't be awaited: its tasks need a block to live in; "
            "write: async with connect(...) as ws:"
        )

    def __aiter__(self) -> NoReturn:
        raise TypeError(
            "connect() can't be iterated over; to reconnect write: "
            "async for attempt in reconnect(...): async with attempt as ws:"
        )
