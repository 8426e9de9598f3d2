"""How many connections a server takes: what counts, and who is refused."""

from __future__ import annotations

import enum
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Any

import trio

from .._protocol.http.messages import Response, plain_response
from .options import ServerOptions

# So many of those who are refused are heard and answered at a time: that takes a
# descriptor for some seconds.
_MAX_REFUSED = 256

_FULL = 503  # the status where all places are taken

# What who was refused is told to wait, in seconds (RFC 9110, section 10.2.3).
_RETRY_AFTER = 10


class Standing(enum.Enum):
    """What a connection counts as.

    ABSENT -> OPENING: it is accepted.
    OPENING -> OPEN: its handshake is over.
    OPENING -> REFUSED: there are too many.
    any -> ABSENT: it is over.
    """

    ABSENT = enum.auto()
    OPENING = enum.auto()
    OPEN = enum.auto()
    REFUSED = enum.auto()  # it takes no other's place

    __hash__ = object.__hash__  # Enum's own is in Python, that of its name


ABSENT = Standing.ABSENT
OPENING = Standing.OPENING
OPEN = Standing.OPEN
REFUSED = Standing.REFUSED


class Admission:
    """The counts of a server."""

    def __init__(self, options: ServerOptions) -> None:
        self.max_connections = options.max_connections
        self.max_per_ip = options.max_connections_per_ip
        self.max_handshakes = options.max_handshakes
        self.by_source: dict[object, int] = {}
        self._counts = dict.fromkeys(Standing, 0)
        self._end: trio.Event | None = None  # of any handshake

    @property
    def connections(self) -> int:
        """How many there are, or will be if nothing goes wrong."""
        return self._counts[OPENING] + self._counts[OPEN]

    @property
    def handshakes(self) -> int:
        """How many have a handshake under way."""
        return self._counts[OPENING]

    @property
    def refused(self) -> int:
        """How many are refused, and not closed yet."""
        return self._counts[REFUSED]

    @property
    def has_room(self) -> bool:
        """Whether another handshake may begin."""
        return self.max_handshakes is None or self.handshakes < self.max_handshakes

    @property
    def under_way(self) -> int:
        """How many there are that will open, be answered or be refused."""
        return self.handshakes + self.refused

    async def wait_for_room(self) -> None:
        """Wait until another may begin. **Cancellation**: changes nothing."""
        while not self.has_room:
            await self._wait_for_an_end()

    async def wait_for_none(self) -> None:
        """Wait until none is under way. **Cancellation**: changes nothing."""
        while self.handshakes:
            await self._wait_for_an_end()

    async def _wait_for_an_end(self) -> None:
        if self._end is None:
            self._end = trio.Event()
        await self._end.wait()

    def moved(self, before: Standing, after: Standing) -> None:
        """Count a connection as something else."""
        self._counts[before] -= 1
        self._counts[after] += 1
        if before is OPENING and self._end is not None:
            end, self._end = self._end, None
            end.set()


class Ticket:
    """What one connection counts for, from accept() until it is given back."""

    __slots__ = ("_admission", "_refusal", "_source", "_standing")

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._refusal = 0, ""  # a status and a text, once it is refused
        self._source: object = None  # in whose count it is
        self._standing = ABSENT

    def accepted(self) -> None:
        """Count it."""
        self._move(OPENING)
        most = self._admission.max_connections
        if most is not None and self._admission.connections > most:
            self._refuse(_FULL, "Too many connections.\n")

    def _move(self, standing: Standing) -> None:
        before, self._standing = self._standing, standing
        self._admission.moved(before, standing)

    def arrived(self, address: Any) -> None:
        """Count it for where it comes from, once that is known."""
        admission = self._admission
        if admission.max_per_ip is None or not isinstance(address, tuple):
            return  # of a Unix socket, or of none
        if not isinstance(address[0], str):
            return  # of a virtual machine (AF_VSOCK), say
        source = _source_of(address[0])
        count = admission.by_source.get(source, 0)
        if count >= admission.max_per_ip:
            self._refuse(429, "Too many connections from your address.\n")
        elif self._standing is not REFUSED:
            admission.by_source[source] = count + 1
            self._source = source

    def _refuse(self, status: int, text: str) -> None:
        self._refusal = status, text
        self._move(REFUSED)

    @property
    def is_one_of_a_crowd(self) -> bool:
        """Whether it is refused, with more others than are answered at a time."""
        return self._standing is REFUSED and self._admission.refused > _MAX_REFUSED

    def refusal(self, *, opens: bool) -> Response | None:
        """Return the answer to it, if there is no room.

        Where all that is wanting is a place, which only what ``opens`` as a connection
        takes, a health check or a scrape of figures can be answered otherwise.
        """
        if self._standing is not REFUSED or (self._refusal[0] == _FULL and not opens):
            return None
        response = plain_response(*self._refusal)
        response.headers["Retry-After"] = str(_RETRY_AFTER)
        return response

    def opened(self) -> None:
        """Say that its handshake is over."""
        if self._standing is OPENING:
            self._move(OPEN)

    def give_back(self) -> None:
        """Say that it is over."""
        self._move(ABSENT)
        if self._source is not None:
            by_source = self._admission.by_source
            by_source[self._source] -= 1
            if not by_source[self._source]:
                del by_source[self._source]
            self._source = None


def _source_of(host: str) -> object:
    """Return what counts as one source: an address; of IPv6, a network of 64 bits.

    Who has such a network can take any address in it. Sites are to be given
    "significantly more" than one, though not always a /48 (RFC 6177, section 2), and
    are as many sources.
    """
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host  # in a test's network, which has what names it is told
    if not isinstance(address, IPv6Address):
        return address
    return address.ipv4_mapped or IPv6Network((address, 64), strict=False)
