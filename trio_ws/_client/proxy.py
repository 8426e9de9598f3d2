"""Proxies: which one to use, and how to reach a server through it."""

from __future__ import annotations

import os
import socket
import ssl as ssl_module
import sys
from math import inf
from typing import TYPE_CHECKING, Literal, cast

import trio

from .._connection.opener import Stage
from .._endpoint.identity import AnyLogger, Identity
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
from .._protocol.uri import ProxyURI, host_port, parse_proxy
from .._transports.base import Transport, read_some, write_all
from .._transports.make import check_context, transport_of
from .._transports.network import current_network
from .._transports.tls import TLSTransport
from .opening import ask
from .options import ClientOptions
from .tcp import open_tcp
from .tls import default_context, server_name

if TYPE_CHECKING:
    from python_socks import ProxyError as SocksError
    from python_socks import ProxyType
    from python_socks.async_.trio import Proxy

_ENVIRONMENT = "_proxy"  # what the names of variables end with, in either case

# Whether the system keeps proxies elsewhere than in the environment, too. What is
# excepted from those there may be addresses, so that the DNS is asked.
_SYSTEM_SETTINGS = sys.platform in ("win32", "darwin")

_EMPTY_LINE = b"\r\n\r\n"


class ProxyChoice:
    """What the arguments of connect() say of proxies.

    Raises InvalidProxy, ValueError and TypeError for wrong ones, ImportError if
    python-socks is needed and isn't there.
    """

    def __init__(
        self, proxy: str | Literal[True] | None, ssl: ssl_module.SSLContext | None
    ) -> None:
        check_context(ssl, server_side=False, name="proxy_ssl")
        self.ssl = ssl
        self._fixed: ProxyURI | None = None
        self._by_environment = proxy is True
        if proxy is None or isinstance(proxy, str):
            if proxy is not None:
                self._fixed = _parsed(proxy)
            if ssl is not None and getattr(self._fixed, "scheme", None) != "https":
                raise ValueError("proxy_ssl: expected an https:// proxy with it")
        elif proxy is not True:
            # Not its value, which may have a password.
            raise TypeError(
                f"proxy: expected a URL, True or None; got {type(proxy).__name__}"
            )

    def refuse(self, name: str) -> None:
        """Raise ValueError if a proxy is named together with the argument ``name``."""
        if self._fixed is not None or self.ssl is not None:
            given = "proxy" if self._fixed is not None else "proxy_ssl"
            raise ValueError(f"{given}: expected no {name} with it")

    async def proxy_for(self, host: str, port: int, *, secure: bool) -> ProxyURI | None:
        """Return the proxy to reach a server through, None for none.

        The environment is looked at each time. Raises InvalidProxy, ImportError.
        """
        if not self._by_environment:
            return self._fixed
        if current_network() is not None:
            return None  # the environment is that of another one
        if not _SYSTEM_SETTINGS and not any(
            name.lower().endswith(_ENVIRONMENT) for name in os.environ
        ):
            return None
        url = _system_proxy(secure)
        if url is None or await _bypassed(f"{host}:{port}"):
            return None
        return _parsed(url)


def _parsed(url: str) -> ProxyURI:
    proxy = parse_proxy(url)
    if proxy.is_socks:
        _socks()
    return proxy


async def _bypassed(address: str) -> bool:
    """Tell whether the system excepts a server. **Cancellation**: a thread goes on."""
    from urllib.request import proxy_bypass

    if _SYSTEM_SETTINGS:
        return bool(
            await trio.to_thread.run_sync(proxy_bypass, address, abandon_on_cancel=True)
        )
    return bool(proxy_bypass(address))


def _system_proxy(secure: bool) -> str | None:
    """Return the URL of the proxy that the system has for wss:// or ws://, or None."""
    import urllib.request  # which is slow, and few need

    proxies = urllib.request.getproxies()
    # A proxy for WebSockets goes first. Then RFC 6455, section 4.1, has SOCKS, failing
    # that the proxy for HTTPS, and after it that for HTTP.
    names = ["wss"] if secure else ["ws"]
    names += ["socks", "https"] if secure else ["socks", "https", "http"]
    for name in [*names, "all"]:
        url = proxies.get(name)
        if url is None:
            continue
        # Settings of a system have no scheme of SOCKS' own.
        if name == "socks" and url.startswith("http://"):
            url = "socks5h://" + url.removeprefix("http://")
        return url
    return None


async def open_through(
    proxy: ProxyURI,
    context: ssl_module.SSLContext | None,
    target: tuple[str, int],
    local_address: str | None,
    options: ClientOptions,
    logger: AnyLogger,
    stage: Stage,
) -> Transport:
    """Connect to ``target``, a host and a port, through a proxy.

    ``context`` is for TLS to the proxy. Raises OSError if that can't be reached,
    ProxyError if it doesn't do what it should. **Cancellation**: nothing is left open.
    """
    below = await open_tcp(proxy.host, proxy.port, local_address, stage, role="proxy ")
    transport = transport_of(below, None, server_side=False)
    try:
        if proxy.scheme == "https":
            transport = await _with_tls(transport, proxy, context, stage)
        if proxy.is_socks:
            stage.name = f"SOCKS through {proxy.where}"
            await _pass_socks(transport, proxy, *target)
        else:
            stage.name = f"CONNECT through {proxy.where}"
            await _tunnel(transport, _Connect(proxy, *target, options), logger)
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
        # The zone of an IPv6 address means nothing elsewhere.
        authority = host_port(host.partition("%")[0], port)
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


async def _tunnel(transport: Transport, connect: _Connect, logger: AnyLogger) -> None:
    """Have an HTTP proxy connect to the server. Raises ProxyError."""
    try:
        await ask(
            transport,
            connect,
            Identity(logger, transport.remote_address, transport.local_address).log,
        )
    except InvalidStatus as exc:
        raise InvalidProxyStatus(exc.response) from None
    except InvalidHandshake as exc:
        # An end of the stream has a cause of its own.
        raise ProxyError(f"proxy: {exc}") from exc.__cause__ or exc
    except OSError as exc:
        raise ProxyError(f"connection to the proxy lost: {exc}") from exc


# SOCKS

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
    try:
        from python_socks import ProxyError as SocksError
        from python_socks import ProxyType
        from python_socks.async_.trio import Proxy
    except ImportError as exc:
        raise ImportError(
            'proxy: SOCKS needs python-socks; pip install "trio_ws[socks]"'
        ) from exc
    return Proxy, SocksError, ProxyType


async def _pass_socks(
    transport: Transport, proxy: ProxyURI, host: str, port: int
) -> None:
    """Have a SOCKS proxy connect to the server.

    Raises ProxyError; socket.gaierror for a name that is looked up on this side.
    """
    socks_proxy, socks_error, kinds = _socks()
    kind, by_proxy = _SOCKS[proxy.scheme]
    if kind == "SOCKS4" and ":" in host:
        raise ProxyError(f"SOCKS 4 has no IPv6 addresses; expected another than {host}")
    wire = _Wire(transport)
    through = socks_proxy(
        kinds[kind],
        proxy.host,
        proxy.port,
        proxy.username,
        proxy.password,
        rdns=by_proxy,
        forward=cast("Proxy", wire),
    )
    try:
        # The zone of an IPv6 address means nothing elsewhere.
        await through.connect(host.partition("%")[0], port, timeout=inf)
    except socket.gaierror:
        raise
    except (socks_error, EOFError, OSError, ValueError) as exc:
        text = f"proxy: {exc}"
        if wire.came:
            text += f"; got {wire.came.hex(' ')}"
        if getattr(exc, "error_code", None) in _UNREACHED:
            raise ProxyError(text) from ConnectionError(str(exc))
        raise ProxyError(text) from exc
