"""What the tests ask of another implementation, so that each is written once.

A test drives both ends in lock-step from one trio task: ``ours`` is a connection
of trio_ws, ``theirs`` a Peer. Whatever is waited for is an event; the time limit
of a test is there for the case that it never comes.
"""

from __future__ import annotations

import ssl
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import NamedTuple

HOST = "127.0.0.1"

# A test takes milliseconds; what hangs shows after this many seconds.
LIMIT = 60

# Far above the time limit of a test: a closing handshake, or an end of TCP, that a
# peer only gets over by a timeout of its own fails the test.
NEVER = 600.0


class Ending(NamedTuple):
    """How a connection ended, as the peer tells it; 1006 is a loss."""

    code: int
    #: None where the library doesn't tell.
    reason: str | None


@dataclass(frozen=True)
class TLS:
    server: ssl.SSLContext
    client: ssl.SSLContext


class Peer(ABC):
    """The other end of a connection."""

    #: What the library has no API for is left out.
    can_ping = True
    can_fragment = True
    #: Otherwise it answers each close frame with 1000 (RFC 6455, section 5.5.1:
    #: it "typically echoes the status code it received").
    echoes_the_code = True
    #: Whether, after close(), closed() tells what the other side answered.
    sees_the_answer = True

    @property
    @abstractmethod
    def subprotocol(self) -> str | None: ...

    @abstractmethod
    async def send(self, message: str | bytes) -> None: ...

    async def send_fragments(self, fragments: Sequence[str | bytes]) -> None:
        """Send a message in fragments, with a ping and its pong between them."""
        raise NotImplementedError

    @abstractmethod
    async def recv(self) -> str | bytes: ...

    async def ping(self) -> None:
        """Return once the pong came."""
        raise NotImplementedError

    @abstractmethod
    async def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake; return when the library says it is done."""

    @abstractmethod
    async def closed(self) -> Ending:
        """Wait for the end; raise what the library holds to be wrong with it."""


class Service(ABC):
    """A server of the other implementation."""

    port: int

    @abstractmethod
    async def accept(self) -> Peer:
        """Return the next connection, open."""


class Library(ABC):
    """An implementation, as client and as server.

    It offers and accepts permessage-deflate, if it has it.
    """

    @abstractmethod
    def connect(
        self, port: int, *, subprotocols: Sequence[str] = (), tls: TLS | None = None
    ) -> AbstractAsyncContextManager[Peer]: ...

    @abstractmethod
    def serve(
        self, *, subprotocols: Sequence[str] = (), tls: TLS | None = None
    ) -> AbstractAsyncContextManager[Service]: ...
