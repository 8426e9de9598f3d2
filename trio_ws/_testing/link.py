"""MemoryLink: a connection as the network sees it."""

from __future__ import annotations

from collections.abc import Callable

import trio

from .._endpoint.options import check_size
from .._protocol.uri import host_port
from .wire import Address, Mark, MemoryTransport, Pipe


class MemoryLink:
    """A TCP connection of a :class:`MemoryNetwork`: what a test does to it.

    ``host`` and ``port`` are those that the client has connected to;
    ``client_address`` is the client's own address, a host and a port.
    """

    def __init__(
        self, client_address: Address, host: str, port: int, size: int, latency: float
    ) -> None:
        self.client_address = client_address
        self.host = host
        self.port = port
        self._changed = trio.lowlevel.ParkingLot()
        self._up = Pipe(size, latency, self._lose)
        self._down = Pipe(size, latency, self._lose)

    def __repr__(self) -> str:
        client, server = host_port(*self.client_address), host_port(*self._server)
        return f"<MemoryLink {client} - {server}>"

    @property
    def _server(self) -> Address:
        return self.host, self.port

    def reset(self, *, after: int = 0) -> None:
        """Lose the connection: what is under way is lost, both ends find a reset.

        With ``after``, once so many bytes more have come at either end. What has come
        before can still be received.
        """
        self._lose_after(after, Mark.RESET)

    def end(self, *, after: int = 0) -> None:
        """Lose the connection as reset() does; both ends find the end of the stream."""
        self._lose_after(after, Mark.END)

    def freeze(self) -> None:
        """Let nothing pass, either way, and tell nobody, until it thaws.

        What has come can be received; what is sent waits, as far as the buffer has
        room for it. Closing waits, too.
        """
        for pipe in (self._up, self._down):
            pipe.frozen = True

    def thaw(self) -> None:
        """Let pass what was held up, and what follows."""
        for pipe in (self._up, self._down):
            pipe.frozen = False
            pipe.advance()
        self._changed.unpark_all()

    def _lose_after(self, size: int, mark: Mark) -> None:
        check_size("after", size, least=0, none=False)
        if not size:
            self._lose(mark)
        for pipe in (self._up, self._down):
            pipe.limit(size, mark)

    def _lose(self, mark: Mark) -> None:
        for pipe in (self._up, self._down):
            pipe.cut(mark)
        self._changed.unpark_all()


def make_ends(
    link: MemoryLink, on_close: Callable[[], None]
) -> tuple[MemoryTransport, MemoryTransport]:
    """Make the client's end of a link and the server's."""
    up, down, changed = link._up, link._down, link._changed
    here, there = link.client_address, link._server
    return (
        MemoryTransport((down, up), (here, there), changed, on_close),
        MemoryTransport((up, down), (there, here), changed, on_close),
    )
