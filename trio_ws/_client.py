"""connect(): a client's connection, from the URI to the end of its scope."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import os
import socket
import ssl as ssl_module
from typing import Any, NoReturn, Unpack

import trio

from ._connection import ClientConnection
from ._opening import open_client
from ._options import (
    ClientOptions,
    ClientOptionsDict,
    check_keywords,
    make_options,
)
from ._protocol._handshake_client import ClientHandshake
from ._protocol._headers import Headers
from ._protocol._uri import WebSocketURI, parse_uri, redirected
from ._scope import Opener
from ._transports import TLSTransport, Transport, check_context, transport_of
from .exceptions import InvalidStatus, InvalidURI

# RFC 9110, section 15.4, without those that lead nowhere else
_REDIRECTS = frozenset({300, 301, 302, 303, 307, 308})
_MAX_REDIRECTS = 10

# What a request says for one origin alone.
_CREDENTIALS = frozenset({"authorization", "cookie", "proxy-authorization"})


class connect(Opener[ClientConnection]):  # noqa: N801 - reads as the function that it is to its users
    """Connect to a WebSocket server: ``async with connect(uri) as ws: ...``.

    ``uri`` begins with ``ws://`` or ``wss://`` (RFC 6455, section 3). ``host``
    and ``port`` say where to connect to instead; the URI's still stand in the
    Host header and are what TLS checks. ``local_address`` is the address to
    connect from. ``ssl`` is the context for ``wss://``,
    by default one with the system's roots; ``server_hostname`` is checked in
    place of the URI's host. ``stream`` is a connected trio.abc.Stream to use
    instead of TCP; it is closed with the connection. ``options`` are those of
    :class:`trio_ws.ClientOptions`.

    Entering raises OSError if the server can't be reached (ssl.SSLError if TLS
    fails, with what is wrong with a certificate), InvalidHandshake if it
    answers otherwise, OpenTimeoutError after ``open_timeout`` seconds, which
    cover DNS, TCP, TLS, the handshake and redirects. Wrong arguments raise
    InvalidURI, ValueError or TypeError before anything is sent.

    Up to ten redirects in a row are followed (RFC 9110, section 15.4), where
    http:// means ws://; not from wss:// to ws://, nor over ``stream``, nor to
    another origin if ``host``, ``port`` or ``server_hostname`` is given. Another
    origin isn't told the URI's user information, nor the headers Authorization,
    Cookie and Proxy-Authorization. What isn't followed is an InvalidStatus with a
    note that says why.

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
        local_address: str | None = None,
        ssl: ssl_module.SSLContext | None = None,
        server_hostname: str | None = None,
        stream: trio.abc.Stream | None = None,
        **options: Unpack[ClientOptionsDict],
    ) -> None:
        super().__init__()
        self._uri = parse_uri(uri)
        self._options = make_options(ClientOptions, type(self).__name__, options)
        self._host = host
        self._port = port
        self._local_address = local_address
        self._ssl = ssl
        self._server_hostname = server_hostname
        self._stream = stream
        if port is not None and not 1 <= port <= 65535:
            raise ValueError(f"port: expected 1 to 65535; got {port!r}")
        check_context(ssl)
        if not self._uri.secure:
            for name, value in (("ssl", ssl), ("server_hostname", server_hostname)):
                if value is not None:
                    raise ValueError(
                        f"{name}: expected a wss:// URI with it; got ws://"
                    )
        if stream is not None:
            if not isinstance(stream, trio.abc.Stream):
                raise TypeError(f"stream: expected a trio.abc.Stream; got {stream!r}")
            for name, given in (
                ("host", host),
                ("port", port),
                ("local_address", local_address),
            ):
                if given is not None:
                    raise ValueError(f"stream: expected no {name} with it")
        # Made here, since it raises for wrong headers; of use for one connection.
        self._handshake: ClientHandshake | None = self._options.handshake(self._uri)
        self._logger = self._options.logger or logging.getLogger("trio_ws.client")

    async def _open(self) -> ClientConnection:
        uri, options = self._uri, self._options
        with trio.move_on_after(options.open_seconds):
            for redirects in itertools.count():  # pragma: no branch - without end
                try:
                    return await self._open_at(uri, options)
                except InvalidStatus as exc:
                    target = self._target(exc, uri, redirects)
                if target.origin != uri.origin:
                    options = _without_credentials(options)
                uri = target
        raise options.open_timed_out()

    async def _open_at(
        self, uri: WebSocketURI, options: ClientOptions
    ) -> ClientConnection:
        transport = await self._open_transport(uri)
        try:
            if isinstance(transport, TLSTransport):
                await transport.do_handshake()
            handshake = self._handshake or options.handshake(uri)
            self._handshake = None
            return await open_client(transport, handshake, options, self._logger)
        except BaseException:
            await transport.aclose()
            raise

    def _target(
        self, exc: InvalidStatus, uri: WebSocketURI, redirects: int
    ) -> WebSocketURI:
        """Return where a redirect leads; raise it if it isn't one to be followed."""
        try:
            if exc.response.status_code not in _REDIRECTS:
                raise exc
            locations = exc.response.headers.get_all("Location")
            if len(locations) != 1:
                raise ValueError(f"expected one Location; got {len(locations)}")
            target = redirected(uri, locations[0])
            if redirects == _MAX_REDIRECTS:
                raise ValueError(f"expected at most {_MAX_REDIRECTS} in a row")
            if uri.secure and not target.secure:
                raise ValueError("from wss:// to ws://")
            if self._stream is not None:
                raise ValueError("the stream is of use for one connection")
            if target.origin != uri.origin and self._fixed:
                raise ValueError(f"to another origin, with {self._fixed} given")
        except (ValueError, InvalidURI) as problem:
            exc.add_note(f"redirect not followed: {problem}")
            raise exc from None
        finally:
            del exc  # no cycle with the traceback
        return target

    @property
    def _fixed(self) -> str:
        """What was said of where to connect to, which holds for one origin alone."""
        given = {
            "host": self._host,
            "port": self._port,
            "server_hostname": self._server_hostname,
        }
        return " and ".join(name for name, value in given.items() if value is not None)

    async def _open_transport(self, uri: WebSocketURI) -> Transport:
        stream: trio.abc.Stream | socket.socket | None = self._stream
        if stream is None:
            stream = await self._open_stream(uri)
        context = None
        if uri.secure:
            # To make one takes longer than to connect: once is enough.
            self._ssl = self._ssl or ssl_module.create_default_context()
            context = self._ssl
        try:
            return transport_of(
                stream,
                context,
                server_side=False,
                server_hostname=self._server_hostname or uri.host,
            )
        except BaseException:
            if isinstance(stream, trio.abc.Stream):
                await trio.aclose_forcefully(stream)
            raise

    async def _open_stream(self, uri: WebSocketURI) -> trio.abc.Stream | socket.socket:
        host = uri.host if self._host is None else self._host
        port = uri.port if self._port is None else self._port
        if self._local_address is None:
            address = _literal(host, port)
            if address is not None:
                return await _connected(address)
        return await trio.open_tcp_stream(host, port, local_address=self._local_address)

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


class unix_connect(connect):  # noqa: N801 - reads as the function that it is
    """Connect over a Unix socket: ``async with unix_connect(path) as ws: ...``.

    ``uri`` says what the Host header and the path of the request are, and with
    ``wss://`` that TLS is used. Otherwise as connect().

    **Cancellation** as with connect().
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        uri: str = "ws://localhost/",
        *,
        ssl: ssl_module.SSLContext | None = None,
        server_hostname: str | None = None,
        **options: Unpack[ClientOptionsDict],
    ) -> None:
        # connect() would take its own host, port and stream from among them.
        check_keywords(ClientOptions, "unix_connect", options)
        super().__init__(uri, ssl=ssl, server_hostname=server_hostname, **options)
        self._path = os.fspath(path)

    async def _open_stream(self, uri: WebSocketURI) -> trio.abc.Stream | socket.socket:
        return await trio.open_unix_socket(self._path)

    @property
    def _fixed(self) -> str:
        return "a Unix socket"


def _without_credentials(options: ClientOptions) -> ClientOptions:
    """Leave out what another origin must not be told (RFC 9110, section 15.4)."""
    headers = options.additional_headers
    if headers is None:
        return options
    assert isinstance(headers, Headers)
    kept = [
        (name, value)
        for name, value in headers.raw_items()
        if name.lower() not in _CREDENTIALS
    ]
    return dataclasses.replace(options, additional_headers=kept)


_Address = tuple[int, int, int, str, Any]  # as of socket.getaddrinfo()


def _literal(host: str, port: int) -> _Address | None:
    """Return the address that ``host`` spells out, None if it is a name."""
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)[0]
    except socket.gaierror:
        return None


async def _connected(address: _Address) -> socket.socket:
    """Connect to one address.

    Not trio.open_tcp_stream(), which makes ready to try several at once: that
    costs a fifth of a whole connection.

    Raises OSError. **Cancellation**: nothing is left open.
    """
    family, kind, protocol, _, name = address
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            sock.connect(name)
        except BlockingIOError:
            await trio.lowlevel.wait_writable(sock)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise OSError(code, os.strerror(code)) from None
    except BaseException as exc:
        sock.close()
        if isinstance(exc, OSError):
            exc.add_note(f"connecting to {name}")
        raise
    return sock
