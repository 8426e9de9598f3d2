"""Where what connects finds what listens."""

from __future__ import annotations

import errno
import itertools
from collections import deque
from collections.abc import Callable

import trio
import trio.testing

from .._protocol.uri import host_port
from .._transports.network import Network, NetworkListener
from .link import MemoryLink, make_ends
from .wire import Address, MemoryTransport, system_error

# All that stands for this machine, and for each of its addresses.
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_ANY = {"", "0.0.0.0", "::"}

# What port 0 and clients get (RFC 6335, section 6).
_FREE_PORTS = range(49152, 65536)

OnConnect = Callable[[MemoryLink], object]


def machine(host: str) -> str:
    """Return the one name that each machine has here."""
    name = host.lower().removesuffix(".")
    return "localhost" if name in _LOOPBACK else name


class Place:
    """A host and a port, either of which may be any."""

    def __init__(self, host: str | None, port: int | None) -> None:
        self._host = None if host is None else machine(host)
        self._port = port

    def has(self, host: str, port: int) -> bool:
        """Tell whether it is there that one connects to."""
        return self._host in (None, machine(host)) and self._port in (None, port)

    def covers(self, other: Place) -> bool:
        """Tell whether all that the other has is in this."""
        return self._host in (None, other._host) and self._port in (None, other._port)


class MemoryListener(NetworkListener):
    """Accepts the connections to one port."""

    def __init__(
        self, host: str | None, port: int, on_close: Callable[[], None]
    ) -> None:
        self.address = ("" if host is None else host), port
        self._on_close = on_close
        self._changed = trio.lowlevel.ParkingLot()
        self._waiting: deque[MemoryTransport] = deque()
        self._is_closed = self._is_cut_off = False

    def connected(self, end: MemoryTransport) -> None:
        """Have a client that waits to be accepted."""
        self._waiting.append(end)
        self._changed.unpark_all()

    def cut_off(self) -> None:
        """Know that nobody will connect any more."""
        self._is_cut_off = True
        self._changed.unpark_all()

    async def accept(self) -> MemoryTransport:
        """Accept a connection. **Cancellation**: none is lost."""
        await trio.lowlevel.checkpoint()
        while not (self._waiting or self._is_closed or self._is_cut_off):
            await self._changed.park()
        if self._is_closed:
            raise trio.ClosedResourceError("listener is closed")
        if self._waiting:
            return self._waiting.popleft()
        # Whoever is about to be cancelled, as at the end of a test, needn't be told.
        await trio.testing.wait_all_tasks_blocked()
        raise trio.ClosedResourceError(
            "the block of MemoryNetwork() was left while a server listens at "
            f"{host_port(*self.address)}: leave that server first"
        )

    async def aclose(self) -> None:
        """Accept nothing more, and lose those who wait for it."""
        if not self._is_closed:
            self._is_closed = True
            self._on_close()
            self._changed.unpark_all()
            for end in self._waiting:
                end.discard()
        await trio.lowlevel.checkpoint()


class Exchange(Network):
    """Connects and listens in memory; see MemoryNetwork for the arguments."""

    def __init__(self, latency: float, size: int, on_connect: OnConnect | None) -> None:
        self.on_connect = on_connect
        # Those that aren't closed at both ends.
        self.links: dict[MemoryLink, tuple[MemoryTransport, MemoryTransport]] = {}
        self._latency = latency
        self._size = size
        self._listeners: dict[tuple[str | None, int], MemoryListener] = {}
        self._ports = itertools.cycle(_FREE_PORTS)
        # What was said of connections to come; the last that fits counts.
        self._frozen: list[tuple[Place, bool]] = []
        self.outer: Network | None = None  # in whose place this is
        self.has_ended = False
        self._changed = trio.lowlevel.ParkingLot()  # what is frozen, and the end

    def freeze(self, place: Place, frozen: bool) -> None:
        """Let those who connect there wait, or go on."""
        self._frozen = [one for one in self._frozen if not place.covers(one[0])]
        self._frozen.append((place, frozen))
        self._changed.unpark_all()

    def end(self) -> None:
        """Connect nobody any more, and lose all connections."""
        self.has_ended = True
        self._changed.unpark_all()
        for listener in self._listeners.values():
            listener.cut_off()
        for link in self.links:
            link.reset()

    async def connect(
        self, host: str, port: int, local_address: str | None
    ) -> MemoryTransport:
        await trio.sleep(2 * self._latency)
        while self._is_frozen(host, port) and not self.has_ended:
            await self._changed.park()
        if self.has_ended:
            raise system_error(errno.ENETDOWN)
        listener = self._listener_at(host, port)
        if listener is None:
            raise system_error(errno.ECONNREFUSED)
        address: Address = local_address or "127.0.0.1", self._free_port()
        link = MemoryLink(address, host, port, self._size, self._latency)
        if self.on_connect is not None:
            self.on_connect(link)
        client, server = ends = make_ends(link, lambda: self._forget(link))
        self.links[link] = ends
        listener.connected(server)
        return client

    def listen(self, host: str | None, port: int) -> MemoryListener:
        place = None if host is None or host in _ANY else machine(host)
        at = place, port or self._free_port()
        if at in self._listeners:
            raise system_error(errno.EADDRINUSE)
        listener = MemoryListener(host, at[1], lambda: self._listeners.__delitem__(at))
        self._listeners[at] = listener
        return listener

    def _is_frozen(self, host: str, port: int) -> bool:
        said = [frozen for place, frozen in self._frozen if place.has(host, port)]
        return bool(said) and said[-1]

    def _listener_at(self, host: str, port: int) -> MemoryListener | None:
        by_name = self._listeners.get((machine(host), port))
        return by_name or self._listeners.get((None, port))

    def _free_port(self) -> int:
        taken = {link.client_address[1] for link in self.links}
        taken.update(port for _, port in self._listeners)
        for port in itertools.islice(self._ports, len(_FREE_PORTS)):
            if port not in taken:
                return port
        raise system_error(errno.EADDRNOTAVAIL)

    def _forget(self, link: MemoryLink) -> None:
        if all(end.is_closed for end in self.links[link]):
            del self.links[link]
