"""How to reach a server through a proxy: CONNECT, SOCKS."""

from __future__ import annotations

import importlib
import socket
import ssl as ssl_module
import sys
from math import inf
from typing import TYPE_CHECKING, cast

import trio

from .._connection.opener import Stage
from .._endpoint.identity import Identity
from .._protocol.errors import (
    InvalidHandshake,
    InvalidProxyStatus,
    InvalidStatus,
    ProxyError,
)
from .._protocol.handshake.exchange import Exchange
from .._protocol.handshake.fields import build_authorization_basic
from .._protocol.http.headers import Headers
from .._protocol.http.messages import Request, Response
from .._protocol.uri import ProxyURI, host_port
from .._transports.base import Transport, read_some, write_all
from .._transports.make import transport_of
from .._transports.tls import TLSTransport
from .opening import ask
from .options import ClientOptions
from .tcp import look_up, open_tcp
from .tls import default_context, server_name

if TYPE_CHECKING:
    from python_socks import ProxyError as SocksError
    from python_socks import ProxyType
    from python_socks.async_.trio import Proxy

_EMPTY_LINE = b"\r\n\r\n"


async def open_through(
    proxy: ProxyURI,
    context: ssl_module.SSLContext | None,
    target: tuple[str, int],
    local_address: str | None,
    options: ClientOptions,
    identity: Identity,
    stage: Stage,
) -> Transport:
    """Connect to ``target``, a host and a port, through a proxy.

    ``context`` is for TLS to the proxy, ``identity`` that of the connection, which is
    told the addresses. Raises OSError if the proxy can't be reached, ProxyError if it
    doesn't do what it should. **Cancellation**: nothing is left open.
    """
    below = await open_tcp(proxy.host, proxy.port, local_address, stage, role="proxy ")
    transport = transport_of(below, None, server_side=False)
    identity.is_between(transport.remote_address, transport.local_address)
    try:
        if proxy.scheme == "https":
            transport = await _with_tls(transport, proxy, context, stage)
        # The zone of an IPv6 address means nothing elsewhere.
        host, port = target[0].partition("%")[0], target[1]
        if proxy.is_socks:
            await _pass_socks(transport, proxy, host, port, identity, stage)
        else:
            stage.name = f"CONNECT to {host_port(host, port)} through {proxy.where}"
            await _tunnel(transport, _Connect(proxy, host, port, options), identity)
    except BaseException:
        await transport.aclose()
        raise
    return transport


class _ProxyTLS(TLSTransport):
    """TLS with a proxy, which is not the WebSocket's own."""

    __slots__ = ()

    @property
    def ssl_object(self) -> None:
        """None: what asks for it wants to know of the server."""


async def _with_tls(
    transport: Transport,
    proxy: ProxyURI,
    context: ssl_module.SSLContext | None,
    stage: Stage,
) -> Transport:
    if context is None:
        stage.name = "reading the system's root certificates"
        context = await default_context()
    name = server_name(proxy.host)
    tls = _ProxyTLS(transport, context, server_side=False, server_hostname=name)
    stage.name = f"TLS handshake with proxy {proxy.where}"
    await tls.do_handshake()
    return tls


# HTTP


class _Connect(Exchange):
    """The request to connect to a server (RFC 9110, section 9.3.6)."""

    def __init__(
        self, proxy: ProxyURI, host: str, port: int, options: ClientOptions
    ) -> None:
        authority = host_port(host, port)
        headers = Headers({"Host": authority})
        if options.user_agent_header is not None:
            headers["User-Agent"] = options.user_agent_header
        if proxy.username is not None:
            headers["Proxy-Authorization"] = build_authorization_basic(
                proxy.username, proxy.password or ""
            )
        super().__init__(Request(authority, headers, "CONNECT"), options.limits)
        self._last = b""

    def _is_agreed(self, status_code: int) -> bool:
        return 200 <= status_code < 300

    @property
    def most(self) -> int | None:
        """As much as the head can't end before: what is behind it stays unread."""
        if self.is_refused:
            return None
        ends = 1
        while not self._last.endswith(_EMPTY_LINE[: len(_EMPTY_LINE) - ends]):
            ends += 1
        return ends

    def receive(self, data: bytes) -> Response | None:
        # An interim response ends as the last one does: then all is to come again.
        self._last = (self._last + data)[-len(_EMPTY_LINE) :].removesuffix(_EMPTY_LINE)
        return super().receive(data)


async def _tunnel(transport: Transport, connect: _Connect, identity: Identity) -> None:
    """Have an HTTP proxy connect to the server. Raises ProxyError."""
    try:
        await ask(transport, connect, identity)
    except InvalidStatus as exc:
        raise InvalidProxyStatus(exc.response) from None
    except InvalidHandshake as exc:
        # An end of the stream has a cause of its own.
        raise ProxyError(f"proxy: {exc}") from exc.__cause__ or exc
    except OSError as exc:
        raise ProxyError(f"connection to the proxy lost: {exc}") from exc


# SOCKS

_SOCKS_MODULE = "python_socks.async_.trio"

# What python-socks calls each version, and whether the proxy looks names up.
_SOCKS = {
    "socks4": ("SOCKS4", False),
    "socks4a": ("SOCKS4", True),
    "socks5": ("SOCKS5", False),
    "socks5h": ("SOCKS5", True),
}

# Replies that say that the server can't be reached, now: of SOCKS 5 (RFC 1928,
# section 6) failure, network or host unreachable, refused, expired; of SOCKS 4 failed.
_UNREACHED = frozenset({1, 3, 4, 5, 6, 0x5B})


class _Wire:
    """What python-socks takes for the socket to the proxy."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.came = bytearray()

    async def send(self, data: bytes) -> int:
        await write_all(self._transport, data)
        return len(data)

    async def recv(self, size: int) -> bytes:
        data = await read_some(self._transport, size)
        if not data:
            raise EOFError("connection closed before the end of its answer")
        self.came += data
        return data

    def close(self) -> None:
        """Leave that to whom the transport belongs to."""

    async def connect(self, **_: object) -> _Wire:
        """Be the way to the proxy, as a proxy before it would be."""
        return self


def _socks() -> tuple[type[Proxy], type[SocksError], type[ProxyType]]:
    """Import what is used of python-socks, which is an extra."""
    from python_socks import ProxyError as SocksError
    from python_socks import ProxyType
    from python_socks.async_.trio import Proxy

    return Proxy, SocksError, ProxyType


async def _pass_socks(
    transport: Transport,
    proxy: ProxyURI,
    host: str,
    port: int,
    identity: Identity,
    stage: Stage,
) -> None:
    """Have a SOCKS proxy connect to the server.

    Raises ProxyError; socket.gaierror for a name that is looked up on this side.
    """
    stage.name = f"SOCKS to {host_port(host, port)} through {proxy.where}"
    kind, by_proxy = _SOCKS[proxy.scheme]
    if kind == "SOCKS4" and ":" in host:
        raise ProxyError(f"SOCKS 4 has no IPv6 addresses; expected another than {host}")
    if _SOCKS_MODULE not in sys.modules:
        # Here, it would stop the loop for longer than it takes to connect.
        await trio.to_thread.run_sync(
            importlib.import_module, _SOCKS_MODULE, abandon_on_cancel=True
        )
    socks_proxy, socks_error, kinds = _socks()
    if not by_proxy:
        family = socket.AF_INET if kind == "SOCKS4" else socket.AF_UNSPEC
        goal = stage.name
        found = await look_up(host, port, stage, f", for {goal}", family=family)
        host = min(found, key=lambda one: one[0])[4][0]  # IPv4 first
        stage.name = goal
    identity.log.debug("> %s to %s", proxy.scheme, host_port(host, port))
    wire = _Wire(transport)
    through = socks_proxy(
        kinds[kind],
        proxy.host,
        proxy.port,
        proxy.username,
        proxy.password,
        rdns=True,  # or what was looked up
        forward=cast("Proxy", wire),
    )
    try:
        await through.connect(host, port, timeout=inf)
    except (socks_error, EOFError, OSError, ValueError) as exc:
        text = f"proxy: {exc}"
        if wire.came:
            text += f"; got {wire.came.hex(' ')}"
        if getattr(exc, "error_code", None) in _UNREACHED:
            raise ProxyError(text) from ConnectionError(str(exc))
        raise ProxyError(text) from exc
