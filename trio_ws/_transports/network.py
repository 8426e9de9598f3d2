"""What can take the place of TCP in a trio run.

As trio.socket.set_custom_socket_factory() does for trio's sockets; what connects and
what listens asks here, once for each connection and each server.
"""

from __future__ import annotations

import abc
from typing import Any

import trio

from .base import Transport


class NetworkListener(trio.abc.Listener[Any]):
    """Accepts the Transports of a Network."""

    address: tuple[str, int]


class Network(abc.ABC):
    """Connects and listens."""

    @abc.abstractmethod
    async def connect(
        self, host: str, port: int, local_address: str | None
    ) -> Transport:
        """Connect. Raises OSError. **Cancellation**: nothing is left open."""

    @abc.abstractmethod
    def listen(self, host: str | None, port: int) -> NetworkListener:
        """Listen; port 0 takes a free one. Raises OSError."""


_network: trio.lowlevel.RunVar[Network | None] = trio.lowlevel.RunVar(
    "trio_ws network", None
)


def current_network() -> Network | None:
    """Return what takes the place of TCP in this trio run, None if nothing does."""
    return _network.get()


def use_network(network: Network | None) -> Network | None:
    """Let something take the place of TCP in this trio run; return what did."""
    before = _network.get()
    _network.set(network)
    return before
