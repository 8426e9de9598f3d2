"""What a connection needs of the thing that carries its bytes.

Reading and writing are synchronous attempts; waiting is apart from them. So
the side that reads never depends on the side that writes, a cancelled wait can
neither lose nor tear anything, and both can be done from any task.
"""

from __future__ import annotations

import abc
import ssl
from collections.abc import Awaitable, Sequence
from typing import Any, Literal, Protocol, overload

import trio

Buffer = bytes | memoryview

# One read asks for this much: 64 KiB, a common size, with the header before it.
# Above 128 KiB malloc maps and unmaps pages for every buffer; below, more system
# calls are needed for the same bytes.
READ_SIZE = 64 * 1024 + 512

# One write is offered this much of small frames; a larger frame goes alone.
WRITE_SIZE = 64 * 1024

# One write takes no more of a large frame, and others have their turn after it: a
# peer as fast as we are takes tens of megabytes in one system call. 1 MiB, a common
# size, goes with its header.
STEP_SIZE = 1024 * 1024 + 512


def bounded(buffers: Sequence[Buffer], limit: int) -> list[Buffer]:
    """Return the first ``limit`` bytes of buffers, without copying any.

    What is written of a large message in many steps must not be copied in each.
    """
    parts: list[Buffer] = []
    for buffer in buffers:
        if len(buffer) >= limit:
            parts.append(memoryview(buffer)[:limit])
            break
        parts.append(buffer)
        limit -= len(buffer)
    return parts


class TLSInfo(Protocol):
    """What can be asked of TLS, in the words of :class:`ssl.SSLObject`.

    It has them all, as has trio.SSLStream; read and write by neither.
    """

    @property
    def context(self) -> ssl.SSLContext:
        """The context."""

    @property
    def server_side(self) -> bool:
        """Whether this side is TLS' server."""

    @property
    def server_hostname(self) -> str | None:
        """The name that a client checks, and tells the server (SNI)."""

    @property
    def session(self) -> ssl.SSLSession | None:
        """The session of a client."""

    @property
    def session_reused(self) -> bool | None:
        """Whether the session was one from before."""

    @overload
    def getpeercert(
        self, binary_form: Literal[False] = False
    ) -> dict[str, Any] | None: ...

    @overload
    def getpeercert(self, binary_form: Literal[True]) -> bytes | None: ...

    @overload
    def getpeercert(self, binary_form: bool) -> dict[str, Any] | bytes | None: ...

    def getpeercert(self, binary_form: bool = False) -> Any:
        """Return the peer's certificate; None if it showed none."""

    def cipher(self) -> tuple[str, str, int] | None:
        """Return the cipher, the version that defines it, and its secret bits."""

    def version(self) -> str | None:
        """Return the version of TLS."""

    def selected_alpn_protocol(self) -> str | None:
        """Return the protocol that ALPN agreed on, if any."""

    def get_channel_binding(self, cb_type: str = "tls-unique") -> bytes | None:
        """Return bytes that no other connection has (RFC 5929)."""


class Transport(abc.ABC):
    """A stream of bytes both ways.

    What goes wrong below is an OSError here, whatever the transport:
    ConnectionResetError, ssl.SSLError, or one whose ``__cause__`` is the
    exception of the user's stream.
    """

    __slots__ = ()

    # Whether any task may wait_readable() and read(), not the reader alone, and
    # whether that can be interrupted.
    callers_read = False

    # Whether read() may have something that has left the socket already.
    holds = False

    # How many bytes of what write() took are still in our hands.
    unsent: int

    local_address: Any = None
    remote_address: Any = None

    @property
    def below(self) -> Transport | None:
        """What this transport is on, if it is on another."""
        return None

    @property
    def ssl_object(self) -> TLSInfo | None:
        """The WebSocket's own TLS, if there is one."""
        return None

    @property
    def trio_socket(self) -> trio.socket.SocketType | None:
        """The socket at the bottom; None where there is none, or none any more."""
        return None if self.below is None else self.below.trio_socket

    @abc.abstractmethod
    def read(self, size: int = READ_SIZE) -> bytes | None:
        """Return bytes that are there, b"" at the end, None if nothing is.

        Fewer than ``size``, more than zero, are all that is there. Raises OSError.
        """

    def read_into(self, target: memoryview) -> int | None:
        """Put bytes that are there into ``target``; return how many.

        0 at the end, None if nothing is there. Raises OSError.
        """
        data = self.read(len(target))
        if data:
            target[: len(data)] = data
        return None if data is None else len(data)

    @abc.abstractmethod
    def wait_readable(self) -> Awaitable[None]:
        """Wait until read() may have something, or the transport is closed.

        Raises OSError, and trio.ClosedResourceError when it is woken. Not a coroutine
        of its own where another will do: each costs an idle connection 200 bytes.
        **Cancellation**: nothing is lost.
        """

    def fileno(self) -> int:
        """Return the descriptor that tells when there is something to read; -1: none.

        But for what the transport ``holds``.
        """
        return -1

    def wake(self) -> None:
        """Make wait_readable() end, in whatever task."""
        return

    @abc.abstractmethod
    def write(self, buffers: Sequence[Buffer]) -> int:
        """Write what goes without waiting; return how many bytes were taken.

        Raises OSError.
        """

    def write_one(self, buffer: bytes) -> int:
        """Do that with a single buffer, of less than WRITE_SIZE."""
        return self.write((buffer,))

    @abc.abstractmethod
    async def wait_writable(self) -> None:
        """Wait until write() may take something, or the transport is closed.

        Raises OSError. **Cancellation**: nothing is lost, except on a stream of
        the user's, which is torn and takes nothing more.
        """

    @abc.abstractmethod
    def shutdown(self) -> bool:
        """Say that nothing more will be written, as far as that needs no waiting.

        Return whether that was possible; where it wasn't, aclose() says it.
        """

    def discard(self) -> None:
        """Free what can be freed without trio; for finalisers."""
        return

    @abc.abstractmethod
    async def aclose(self) -> None:
        """Close at once; those who wait return.

        **Cancellation**: none.
        """


async def write_all(transport: Transport, data: bytes | memoryview) -> None:
    """Write all of ``data``. **Cancellation**: a part of it may be written."""
    await trio.lowlevel.checkpoint_if_cancelled()
    rest = memoryview(data)
    while rest or transport.unsent:
        rest = rest[transport.write((rest,) if rest else ()) :]
        if rest or transport.unsent:
            await transport.wait_writable()


async def read_some(transport: Transport, size: int = READ_SIZE) -> bytes:
    """Read what is there, or comes; b"" at the end. **Cancellation**: harmless."""
    await trio.lowlevel.checkpoint_if_cancelled()
    while (data := transport.read(size)) is None:
        try:
            await transport.wait_readable()
        except trio.ClosedResourceError:
            pass  # then there is something to read
    return data
