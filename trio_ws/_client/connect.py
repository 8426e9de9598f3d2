"""connect() and unix_connect(): a client's connection as a block."""

from __future__ import annotations

import os
import ssl as ssl_module
from typing import Literal, NoReturn, Unpack

import trio

from .._connection.opener import Opened, Opener
from .._connection.sides import ClientT
from .._endpoint.options import make_options
from .._transports.sockets import checked_path
from .dialer import Dialer
from .options import ClientOptions, ClientOptionsDict


class connect(Opener[ClientT]):  # noqa: N801 - reads as the function that it is to its users
    """Connect to a WebSocket server: ``async with connect(uri) as ws: ...``.

    ``uri`` begins with ``ws://`` or ``wss://`` (RFC 6455, section 3). ``host``
    and ``port`` say where to connect to instead; the URI's still stand in the
    Host header and are what TLS checks. Names that aren't ASCII go through IDNA
    2008 (UTS 46). ``local_address`` is the address to connect from. ``ssl`` is the
    context for ``wss://``, by default one with the system's roots, read once, that
    all connections of the process share;
    ``server_hostname`` is checked in place of the URI's host. ``stream`` is a
    connected trio.abc.Stream to use instead of TCP, which is closed with the
    connection; a trio.SocketStream at once, as its socket is taken out of it: what
    closes the connection is leaving the block, or aclose() of the connection.
    ``proxy`` is the URL of a proxy, ``http://``, ``https://``, ``socks4://``,
    ``socks4a://``, ``socks5://`` or ``socks5h://``, with the user name and the password
    if it wants any; True, the default, takes the one that the environment names for
    the server, if any, except with ``stream``; None takes none. ``proxy_ssl`` is the
    context for ``https://`` proxies, by default as with ``ssl``. ``local_address`` is
    for the connection to the proxy. SOCKS needs ``trio_ws[socks]``.
    ``options`` are those of :class:`trio_ws.ClientOptions`.

    Entering raises OSError if the server, or the proxy, can't be reached
    (ssl.SSLError if TLS fails, with what is wrong with a certificate),
    InvalidHandshake if it answers otherwise (ProxyError if the proxy does),
    OpenTimeoutError after ``open_timeout`` seconds, which cover DNS, TCP, the proxy,
    TLS, the handshake and redirects. Wrong arguments raise InvalidURI, InvalidProxy,
    ValueError or TypeError, and SOCKS without its extra ImportError, before anything
    is sent; what the environment says is looked at on entering.

    Up to ten redirects in a row (``limits``) are followed (RFC 9110, section 15.4),
    where http:// means ws://; not from wss:// to ws://, nor over ``stream``, nor to
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
        proxy: str | Literal[True] | None = True,
        proxy_ssl: ssl_module.SSLContext | None = None,
        **options: Unpack[ClientOptionsDict[ClientT]],
    ) -> None:
        super().__init__()
        self._dialer: Dialer[ClientT] = Dialer(
            uri,
            make_options(ClientOptions, "connect", options),
            host=host,
            port=port,
            local_address=local_address,
            ssl=ssl,
            server_hostname=server_hostname,
            stream=stream,
            proxy=proxy,
            proxy_ssl=proxy_ssl,
        )

    async def _open(self) -> Opened[ClientT]:
        return await self._dialer.open()

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


class unix_connect(connect[ClientT]):  # noqa: N801 - reads as the function that it is
    """Connect over a Unix socket: ``async with unix_connect(path) as ws: ...``.

    ``path`` may be an abstract name, which begins with NUL (Linux, unix(7)).
    ``uri`` says what the Host header and the path of the request are, and with
    ``wss://`` that TLS is used; by default it is ``ws://localhost/``, or
    ``wss://localhost/`` if ``ssl`` is given. Otherwise as connect(). Raises
    RuntimeError on Windows, where Python has no Unix sockets.

    **Cancellation** as with connect().
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        uri: str | None = None,
        *,
        ssl: ssl_module.SSLContext | None = None,
        server_hostname: str | None = None,
        **options: Unpack[ClientOptionsDict[ClientT]],
    ) -> None:
        Opener.__init__(self)
        if uri is None:
            uri = "ws://localhost/" if ssl is None else "wss://localhost/"
        self._dialer: Dialer[ClientT] = Dialer(
            uri,
            make_options(ClientOptions, "unix_connect", options),
            ssl=ssl,
            server_hostname=server_hostname,
            path=checked_path(path),
        )
