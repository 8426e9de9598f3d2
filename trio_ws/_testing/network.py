"""MemoryNetwork: a trio run without a network."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

from .._connection.connection import Connection
from .._endpoint.options import check_finite, check_function, check_size
from .._transports.network import current_network, use_network
from .exchange import Exchange, OnConnect, Place
from .link import MemoryLink


class MemoryNetwork:
    """A network in memory: ``with MemoryNetwork() as network: ...``, in a trio run.

    Until the block ends, whatever this trio run connects to or listens on is there:
    connect(), reconnect(), serve() and open_server(), with the arguments that they
    have anyway. Nothing leaves the process, and nothing waits by another clock than
    trio's. All host names exist. A server that names no host has them all; of two at
    one port the one that names the host goes first. Where nobody listens, a connection
    is refused. The environment's proxies are not asked; one that ``proxy`` names is
    looked for in this network, too. Unix sockets, ``stream`` and ``listeners`` are what
    they always are.

    ``latency``, in seconds, is how long each byte is under way; to connect takes twice
    that. ``buffer_size``, in bytes, is how much can be sent each way that the other end
    hasn't read yet.

    ``on_connect``, which is an attribute, too, is called with the MemoryLink of each
    new connection before either end has it. connect() raises the OSError that it
    raises.

    When the block ends, all its connections are reset, and a server that still listens
    raises a trio.ClosedResourceError, unless it is cancelled just then.

    Raises ValueError and TypeError for wrong arguments, RuntimeError where trio doesn't
    run, and on leaving a block before one that was entered later.
    """

    def __init__(
        self,
        *,
        latency: float = 0,
        buffer_size: int = 2**16,
        on_connect: OnConnect | None = None,
    ) -> None:
        check_finite("latency", latency)
        check_size("buffer_size", buffer_size, least=1, none=False)
        self._exchange = Exchange(latency, buffer_size, None)
        self.on_connect = on_connect
        self._has_begun = False

    @property
    def on_connect(self) -> OnConnect | None:
        """What is called with each new MemoryLink, or None."""
        return self._exchange.on_connect

    @on_connect.setter
    def on_connect(self, value: OnConnect | None) -> None:
        if value is not None:
            check_function("on_connect", value, "a function", sync=True)
        self._exchange.on_connect = value

    def __enter__(self) -> Self:
        if self._has_begun:
            raise RuntimeError("MemoryNetwork() can be entered once; call it again")
        try:
            self._exchange.outer = use_network(self._exchange)
        except RuntimeError:  # of trio's, where it doesn't run
            raise RuntimeError(
                "MemoryNetwork() needs a trio run around its block: enter it in an "
                "async function, or in an async fixture"
            ) from None
        self._has_begun = True
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._exchange.end()
        if current_network() is self._exchange:
            outer = self._exchange.outer
            while isinstance(outer, Exchange) and outer.has_ended:
                outer = outer.outer
            use_network(outer)
        elif exc is None:  # which may well be what ends both blocks
            raise RuntimeError(
                "MemoryNetwork(): a block that was entered later goes on; leave them "
                "in the reverse order"
            )

    @property
    def links(self) -> list[MemoryLink]:
        """The connections that aren't closed at both ends, the oldest first."""
        return list(self._exchange.links)

    def link(self, connection: Connection) -> MemoryLink:
        """Return the link of a connection, which is either end of it.

        Raises ValueError if it has none here, or none any more.
        """
        address = connection.local_address, connection.remote_address
        for link, ends in self._exchange.links.items():
            if address in [(end.local_address, end.remote_address) for end in ends]:
                return link
        raise ValueError(
            "connection: expected one of this network that isn't closed at both ends; "
            f"got {connection!r}"
        )

    def reset(
        self, host: str | None = None, port: int | None = None, *, after: int = 0
    ) -> None:
        """Do MemoryLink.reset() to each connection to a host and a port, or to all."""
        self._each(host, port, lambda link: link.reset(after=after))

    def end(
        self, host: str | None = None, port: int | None = None, *, after: int = 0
    ) -> None:
        """Do MemoryLink.end() to each connection to a host and a port, or to all."""
        self._each(host, port, lambda link: link.end(after=after))

    def freeze(self, host: str | None = None, port: int | None = None) -> None:
        """Do MemoryLink.freeze() to each likewise; who connects there has to wait."""
        self._exchange.freeze(Place(host, port), True)
        self._each(host, port, MemoryLink.freeze)

    def thaw(self, host: str | None = None, port: int | None = None) -> None:
        """Do MemoryLink.thaw() to each likewise; who connects there waits no more."""
        self._exchange.freeze(Place(host, port), False)
        self._each(host, port, MemoryLink.thaw)

    def _each(
        self, host: str | None, port: int | None, act: Callable[[MemoryLink], None]
    ) -> None:
        place = Place(host, port)
        for link in self.links:
            if place.has(link.host, link.port):
                act(link)
