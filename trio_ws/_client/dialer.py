"""Opening a client's connection: a stream, proxies, TLS, the handshake, redirects."""

from __future__ import annotations

import logging
import ssl as ssl_module
from typing import Generic, Literal, cast

import trio

from .._connection.opener import Opened, Stage
from .._connection.sides import ClientConnection, ClientT
from .._endpoint.errors import OpenTimeoutError
from .._endpoint.identity import Identity, PlainLogger
from .._endpoint.options import check_port, checked_host
from .._protocol.errors import InvalidProxyStatus, InvalidStatus
from .._protocol.uri import ProxyURI, WebSocketURI, host_port
from .._transports.base import Transport
from .._transports.make import AnyStream, check_context, close_any, transport_of
from .._transports.sockets import unix_family
from .._transports.tls import TLSTransport
from .asking import AskedHeaders, AskedURI, Target
from .opening import explain, open_client
from .options import ClientOptions
from .proxy import open_through
from .proxy_choice import ProxyChoice
from .redirects import Trail, credentials_in, redirect_target, without_credentials
from .tcp import open_tcp
from .tls import default_context, server_name
from .unix import open_unix

_LOGGER = logging.getLogger("trio_ws.client")


class Dialer(Generic[ClientT]):
    """Opens connections to one URI; the arguments are those of connect().

    ``path`` is that of a Unix socket. ``uri`` may be a function that is asked each
    time; ``ask_headers`` is one in place of ``additional_headers``. Raises InvalidURI,
    ValueError and TypeError for wrong arguments.
    """

    def __init__(
        self,
        uri: str | AskedURI,
        options: ClientOptions,
        *,
        ask_headers: AskedHeaders | None = None,
        host: str | None = None,
        port: int | None = None,
        local_address: str | None = None,
        ssl: ssl_module.SSLContext | None = None,
        server_hostname: str | None = None,
        stream: trio.abc.Stream | None = None,
        path: str | None = None,
        proxy: str | Literal[True] | None = True,
        proxy_ssl: ssl_module.SSLContext | None = None,
    ) -> None:
        self._target = Target(uri, options, ask_headers)
        self._options = options
        self._host = checked_host("host", host)
        self._port = port
        self._local_address = local_address
        self._ssl = ssl
        self._server_hostname = checked_host("server_hostname", server_hostname)
        self._stream = stream
        self._path = path
        if port is not None:
            check_port(port, least=1)
        checked_host("local_address", local_address)
        if path is not None:
            unix_family("path")
        check_context(ssl, server_side=False)
        if self._target.uri is not None:
            self._check_tls(self._target.uri)
        self._choice = ProxyChoice(proxy, proxy_ssl)
        if stream is not None:
            self._check_stream(stream)
        self.logger = PlainLogger(options.logger or _LOGGER)

    @property
    def uri(self) -> WebSocketURI | None:
        """The latest URI; None as long as none is known."""
        return self._target.uri

    def _check_tls(self, uri: WebSocketURI) -> None:
        if uri.secure:
            return
        for name, value in (
            ("ssl", self._ssl),
            ("server_hostname", self._server_hostname),
        ):
            if value is not None:
                raise ValueError(f"{name}: expected a wss:// URI with it; got ws://")

    def _check_stream(self, stream: object) -> None:
        self._choice.refuse("stream")
        if not isinstance(stream, trio.abc.Stream):
            raise TypeError(f"stream: expected a trio.abc.Stream; got {stream!r}")
        for name, given in (
            ("host", self._host),
            ("port", self._port),
            ("local_address", self._local_address),
        ):
            if given is not None:
                raise ValueError(f"stream: expected no {name} with it")

    async def open(self) -> Opened[ClientT]:
        """Open a connection: everything but its scope.

        Raises what entering connect() raises. **Cancellation**: nothing is left open.
        """
        stage, trail = Stage(), Trail()
        try:
            with trio.move_on_after(self._options.open_seconds):
                uri, options = await self._target.ask(stage)
                self._check_tls(uri)
                opened = await self._follow(uri, options, stage, trail)
                # Which create_connection makes, if there is one.
                return cast("Opened[ClientT]", opened)
            raise self._options.open_timed_out(stage.name)
        except Exception as exc:
            if stage.name and not isinstance(exc, OpenTimeoutError):
                exc.add_note(stage.name)
            if isinstance(exc, (InvalidStatus, InvalidProxyStatus)):
                explain(exc)
            trail.add_note(exc)
            raise

    async def _follow(
        self, uri: WebSocketURI, options: ClientOptions, stage: Stage, trail: Trail
    ) -> Opened[ClientConnection]:
        while True:
            try:
                return await self._open_at(uri, options, stage)
            except InvalidStatus as exc:
                most = options.limits.redirects
                target = redirect_target(exc, uri, trail.followed, most, self._fixed)
            trail.add(uri, target)
            if target.origin != uri.origin:
                trail.withheld += credentials_in(uri, options)
                options = without_credentials(options)
            uri = target

    @property
    def _fixed(self) -> str:
        """What was said of where to connect to, which holds for one origin alone."""
        if self._stream is not None:
            return "stream"
        if self._path is not None:
            return "a Unix socket"
        given = {
            "host": self._host,
            "port": self._port,
            "server_hostname": self._server_hostname,
        }
        return " and ".join(name for name, value in given.items() if value is not None)

    async def _open_at(
        self, uri: WebSocketURI, options: ClientOptions, stage: Stage
    ) -> Opened[ClientConnection]:
        proxy = await self._proxy_for(uri, stage)
        identity = Identity(self.logger)  # one, of what a proxy is asked, too
        transport = await self._open_transport(uri, proxy, identity, stage)
        try:
            peer = self._peer(uri)
            if proxy is not None:
                peer += f" through {proxy.where}"
            if uri.secure:
                assert isinstance(transport, TLSTransport)
                stage.name = f"TLS handshake with {peer}"
                await transport.do_handshake()
            stage.name = f"opening handshake with {peer}"
            handshake = self._target.handshake(uri, options)
            return await open_client(transport, handshake, options, identity)
        except BaseException:
            await transport.aclose()
            raise

    def _peer(self, uri: WebSocketURI) -> str:
        """Say who is at the other end, and where if elsewhere than the URI says."""
        named = host_port(uri.host, uri.port)
        if self._path is not None:
            return f"{named} at {self._path!r}"
        host, port = self._address(uri)
        at = host_port(host, port)
        return named if at == named else f"{named} at {at}"

    def _address(self, uri: WebSocketURI) -> tuple[str, int]:
        return (
            uri.host if self._host is None else self._host,
            uri.port if self._port is None else self._port,
        )

    async def _proxy_for(self, uri: WebSocketURI, stage: Stage) -> ProxyURI | None:
        if self._stream is not None or self._path is not None:
            return None
        stage.name = "choosing a proxy"
        return await self._choice.proxy_for(*self._address(uri), secure=uri.secure)

    async def _open_transport(
        self,
        uri: WebSocketURI,
        proxy: ProxyURI | None,
        identity: Identity,
        stage: Stage,
    ) -> Transport:
        stream = await self._open_stream(uri, proxy, identity, stage)
        try:
            context = name = None
            if uri.secure:
                stage.name = "reading the system's root certificates"
                context = self._ssl or await default_context()
                name = server_name(self._server_hostname or uri.host)
            return transport_of(
                stream, context, server_side=False, server_hostname=name
            )
        except BaseException:
            await close_any(stream)
            raise

    async def _open_stream(
        self,
        uri: WebSocketURI,
        proxy: ProxyURI | None,
        identity: Identity,
        stage: Stage,
    ) -> AnyStream:
        if self._stream is not None:
            return self._stream
        if self._path is not None:
            return await open_unix(self._path, stage)
        address = self._address(uri)
        if proxy is None:
            return await open_tcp(*address, self._local_address, stage)
        return await open_through(
            proxy,
            self._choice.ssl,
            address,
            self._local_address,
            self._options,
            identity,
            stage,
        )
