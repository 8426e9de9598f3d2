"""The keywords of a server's connections."""

from __future__ import annotations

import dataclasses
import re
import socket
import ssl as ssl_module
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from types import NoneType
from typing import Any, Generic

import trio

from .._connection.opener import check_create_connection
from .._connection.sides import ServerConnection, ServerT
from .._endpoint.options import (
    USER_AGENT,
    Options,
    OptionsDict,
    check_function,
    check_size,
    factories_of,
    make_options,
)
from .._protocol.extensions.base import ServerExtensionFactory
from .._protocol.extensions.deflate import (
    ServerPerMessageDeflateFactory,
)
from .._protocol.handshake.server import ServerHandshake
from .._protocol.http.headers import HeadersLike
from .._protocol.http.messages import Request, Response
from .._protocol.uri import parse_host

_SERVER_DEFLATE = ServerPerMessageDeflateFactory()


Handler = Callable[[ServerT], Awaitable[object]]


ProcessRequest = Callable[
    [ServerT, Request], Awaitable[Response | None] | Response | None
]


ProcessResponse = Callable[
    [ServerT, Request, Response],
    Awaitable[Response | None] | Response | None,
]


SelectSubprotocol = Callable[[ServerT, Sequence[str]], str | None]


class AcceptOptionsDict(OptionsDict, Generic[ServerT], total=False):
    """Keywords of accept(); see ``ServerOptions``."""

    additional_headers: HeadersLike | None
    extensions: Sequence[ServerExtensionFactory] | None
    origins: Sequence[str | re.Pattern[str] | None] | None
    select_subprotocol: SelectSubprotocol[ServerT] | None
    process_request: ProcessRequest[ServerT] | None
    process_response: ProcessResponse[ServerT] | None
    server_header: str | None
    proxy_protocol: bool


class ServeOptionsDict(AcceptOptionsDict[ServerT], Generic[ServerT], total=False):
    """Keywords of serve(), open_server() and the like; see ``ServerOptions``."""

    max_connections: int | None
    max_connections_per_ip: int | None
    max_handshakes: int | None


class ListenOptionsDict(ServeOptionsDict[ServerT], Generic[ServerT], total=False):
    """Those of serve() that say where, and by what, too."""

    host: str | None
    backlog: int | None
    reuse_port: bool
    listeners: Iterable[trio.abc.Listener[Any] | socket.socket] | None
    ssl: ssl_module.SSLContext | None


class UnixOptionsDict(ServeOptionsDict[ServerT], Generic[ServerT], total=False):
    """Those of unix_serve() that do so."""

    mode: int | None
    backlog: int | None
    ssl: ssl_module.SSLContext | None


# What one connection doesn't have.
OF_A_SERVER = ("max_connections", "max_connections_per_ip", "max_handshakes")


def accept_options(keywords: Mapping[str, Any]) -> ServerOptions:
    """Make the options of one connection; raise TypeError for those of a server."""
    for name in OF_A_SERVER:
        if name in keywords:
            raise TypeError(f"{name}: accept() is for one connection; see serve()")
    return make_options(ServerOptions, "accept", keywords)


class ServerOptionsDict(AcceptOptionsDict[Any], total=False):
    """Those of accept(), with the one that decides what the hooks are given."""

    create_connection: Callable[..., ServerConnection] | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions(Options):
    """What can be said of a server's connections, besides :class:`Options`.

    * ``extensions``: factories of extensions to accept, besides compression.
    * ``origins``: which Origin headers are accepted (RFC 6455, section 10.2):
      str exactly (as browsers write them: in lower case, without a slash behind them
      or a default port), compiled patterns as a whole, None for a request without
      one. Others are answered with HTTP 403. By default all are accepted.
    * ``select_subprotocol``: a function of the connection and the subprotocols
      that the client offers, which returns one of them or None.
    * ``process_request``: a function, or coroutine function, of the connection
      and the request, called with each well-formed request of HTTP/1, whether it
      asks for a WebSocket or not: of any method and version, with or without a Host,
      with its body in ``request.body``. It may return any HTTP response, such as
      ``connection.respond()`` makes, to answer with it instead of opening a
      WebSocket. What it returns None for and asks for no WebSocket is refused.
    * ``process_response``: the same, of the connection, the request and the
      response, called before the response is sent.
    * ``server_header``: None leaves the header out.
    * ``proxy_protocol``: True where all connections come from a proxy that says before
      each whose it is, in a header of the PROXY protocol, version 1 or 2 (HAProxy's
      ``send-proxy`` and ``send-proxy-v2``). ``remote_address`` and ``local_address``
      are then those that the client has used. A connection without such a header is
      closed. Nobody else may reach the port: whoever can may give any address for his.
    * ``max_connections``: of a server, with those whose handshake is under way; more
      are answered with HTTP 503 and ``Retry-After``. Plain HTTP, as of health checks,
      needs no room where there is a ``process_request``.
    * ``max_connections_per_ip``: the same of one address, or of one IPv6 network of 64
      bits; more are answered with HTTP 429. Connections by Unix sockets have no such
      address, unless ``proxy_protocol`` tells it.
    * ``max_handshakes``: of a server, those that are under way; more wait in the
      backlog of the listener until one is over. None sets no limit. These three are
      not for accept().

    What one of these functions raises is logged and answered with HTTP 500; one that
    takes longer than ``open_timeout`` is cancelled, and answered with 503.
    """

    extensions: Sequence[ServerExtensionFactory] | None = None
    origins: Sequence[str | re.Pattern[str] | None] | None = None
    select_subprotocol: SelectSubprotocol[Any] | None = None
    process_request: ProcessRequest[Any] | None = None
    process_response: ProcessResponse[Any] | None = None
    server_header: str | None = USER_AGENT
    proxy_protocol: bool = False
    max_connections: int | None = None
    max_connections_per_ip: int | None = None
    max_handshakes: int | None = 2**14

    def __post_init__(self) -> None:
        # Not super(): with slots, the class is not the one of its own methods.
        Options.__post_init__(self)
        for name in ("select_subprotocol", "process_request", "process_response"):
            value = getattr(self, name)
            if value is not None:
                sync = name == "select_subprotocol"
                check_function(name, value, "a function", sync=sync)
        if self.origins is not None:
            _check_origins(self.origins)
        if not isinstance(self.proxy_protocol, bool):
            raise TypeError(
                f"proxy_protocol: expected a bool; got {self.proxy_protocol!r}"
            )
        check_create_connection(self.create_connection, ServerConnection)
        for name in OF_A_SERVER:
            check_size(name, getattr(self, name), least=1, none=True)
        server_handshake(self)


def server_handshake(options: ServerOptions) -> ServerHandshake:
    """Make a handshake; raise ValueError for headers that can't be sent."""
    return ServerHandshake(
        plain=options.process_request is not None,
        limits=options.limits,
        subprotocols=options.subprotocols,
        additional_headers=options.additional_headers,
        server_header=options.server_header,
        origins=options.origins,
        extensions=factories_of(
            options.extensions, options.compression, _SERVER_DEFLATE
        ),
    )


def _check_origins(origins: object) -> None:
    if isinstance(origins, str) or not isinstance(origins, Sequence):
        raise TypeError(f"origins: expected a sequence of origins; got {origins!r}")
    for origin in origins:
        text = origin.pattern if isinstance(origin, re.Pattern) else origin
        if not isinstance(text, (str, NoneType)):
            raise TypeError(
                "origins: expected str, compiled patterns of str, and None; "
                f"got {origin!r}"
            )
        if isinstance(origin, str):
            _check_origin(origin)


# serialized-origin (RFC 6454, section 6.2), as browsers write it.
_is_origin = re.compile(r"[a-z][a-z0-9+.\-]*://[^/?#@\s\\]+").fullmatch
_is_web_origin = re.compile(
    r"https?://(?:[a-z0-9._~\-]+|\[[0-9a-f:.]+\])(?::[0-9]+)?"
).fullmatch
_has_default_port = re.compile(r"(?:http|ws)://.*:80|(?:https|wss)://.*:443").fullmatch
_find_port = re.compile(r"(?<=:)[0-9]*\Z").search
_is_port = re.compile(r"[1-9][0-9]{0,4}").fullmatch
_international = re.compile(r"(https?://)([^:/?#@\[\]]+)((?::[0-9]+)?)").fullmatch

# What frames without an origin say, and pages of applications (Electron, Cordova).
_WITHOUT_HOST = ("null", "file://")


def _check_origin(origin: str) -> None:
    """Refuse what no browser says, with which nobody would ever be let in."""
    if origin in _WITHOUT_HOST:
        return
    web = re.match(r"https?:", origin, re.IGNORECASE)
    if not (_is_web_origin if web else _is_origin)(origin):
        raise ValueError(
            "origins: expected scheme://host or scheme://host:port, in lower case and "
            "without a slash behind it, a compiled pattern, or no origins to "
            f"accept all; got {origin!r}{_in_punycode(origin)}"
        )
    port = _find_port(origin)
    if port and not (_is_port(port[0]) and int(port[0]) <= 65535):
        raise ValueError(
            "origins: expected a port from 1 to 65535, without zeros before it; "
            f"got {origin!r}"
        )
    if _has_default_port(origin):
        shown = origin.rpartition(":")[0]
        raise ValueError(
            f"origins: expected no default port, which browsers leave out: {shown!r}; "
            f"got {origin!r}"
        )


def _in_punycode(origin: str) -> str:
    """Say what browsers write, if it is other than an international name."""
    match = None if origin.isascii() else _international(origin)
    if match is None:
        return ""
    scheme, host, port = match.groups()
    try:
        return f"; browsers write it {f'{scheme}{parse_host(host)}{port}'!r}"
    except ValueError:
        return ""
