"""Any trio.abc.Stream: memory streams, SSLStream, a stream of the user's.

Such a stream can't be tried without waiting, so writing takes a bounded amount
into our hands and wait_writable() sends it.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, cast

import trio
from trio.lowlevel import enable_ki_protection

from .base import READ_SIZE, Buffer, TLSInfo, Transport, bounded
from .sockets import SocketTransport, name_of

# How much is sent at once. Of a part of it nobody tells whether it has gone out,
# so a peer that takes less in ping_timeout seems to be dead.
_SEND_SIZE = 16 * 1024

# Closing takes no time, but the last that is said may need turns of the loop.
_LAST_TURNS = 16

# What is discarded, without waiting, of what came to a socket below.
_LAST_READS = 64


def _as_oserror(exc: Exception) -> OSError:
    """Translate what a stream raises; the cause is the stream's exception."""
    cause = exc.__cause__
    if isinstance(cause, OSError):
        return cause
    error = ConnectionError(f"stream is broken: {type(exc).__name__} {exc}")
    error.__cause__ = exc
    return error


def _parts(stream: object) -> Iterator[object]:
    """Go through a stream and what is below it, as far as trio's own tell.

    Of two that are stapled together, that which receives goes first.
    """
    yield stream
    if isinstance(stream, trio.SSLStream):
        yield from _parts(stream.transport_stream)
    elif isinstance(stream, trio.StapledStream):
        yield from _parts(stream.receive_stream)
        yield from _parts(stream.send_stream)


def addresses_of(stream: object) -> tuple[Any, Any]:
    """Return the addresses, ours and the peer's, of the socket below a stream.

    None where there is none, or where those that are stapled go to different places.
    """
    found: set[tuple[Any, Any]] = set()
    for part in _parts(stream):
        if isinstance(part, trio.SocketStream):
            sock = part.socket
            found.add((name_of(sock.getsockname), name_of(sock.getpeername)))
        elif not isinstance(part, trio.SSLStream | trio.StapledStream):
            found.add((None, None))
    return found.pop() if len(found) == 1 else (None, None)


class StreamTransport(Transport):
    """A stream of the user's, which is closed with the connection."""

    __slots__ = (
        "_eof",
        "_error",
        "_received",
        "_receiving",
        "_socket",
        "_stream",
        "_torn",
        "_unsent",
        "local_address",
        "remote_address",
        "unsent",
    )

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self.local_address, self.remote_address = addresses_of(stream)
        self._received: bytes | None = None
        self._unsent = b""
        self.unsent = 0
        self._error: OSError | None = None  # of receiving, until read() tells it
        self._eof = False
        self._torn = False  # a send was cut short: what follows would be garbage
        # The one below a trio.SSLStream, which outlives it; and what waits before.
        self._socket: SocketTransport | None = None
        self._receiving: trio.CancelScope | None = None

    @property
    def ssl_object(self) -> TLSInfo | None:
        tls = (one for one in _parts(self._stream) if isinstance(one, trio.SSLStream))
        return cast("TLSInfo | None", next(tls, None))  # by __getattr__()

    @property
    def trio_socket(self) -> trio.socket.SocketType | None:
        for part in _parts(self._stream):
            if isinstance(part, trio.SocketStream) and part.socket.fileno() >= 0:
                return part.socket
        return None

    def read(self, size: int = READ_SIZE) -> bytes | None:
        data, self._received = self._received, None
        if data and len(data) > size:
            self._received = data[size:]
            return data[:size]
        if self._error is not None:
            raise self._error
        if data == b"":
            self._eof = True
        return b"" if self._eof else data

    async def wait_readable(self) -> None:
        if self._received is not None or self._error is not None or self._eof:
            await trio.lowlevel.checkpoint()
            return
        try:
            if self._socket is not None:
                await self._linger(self._socket)
            elif self._socket_below() is None:
                await self._receive()
            else:
                with trio.CancelScope() as self._receiving:
                    await self._receive()
        except trio.ClosedResourceError:
            self._received = b""
        except (trio.BrokenResourceError, OSError) as exc:
            self._error = _as_oserror(exc)

    async def _receive(self) -> None:
        self._received = bytes(await self._stream.receive_some(READ_SIZE))

    async def _linger(self, sock: SocketTransport) -> None:
        """Discard what comes; ``read()`` tells of the end alone."""
        await self._close_stream()
        await sock.wait_readable()
        if sock.read() == b"":
            self._received = b""

    def write(self, buffers: Sequence[Buffer]) -> int:
        if self._unsent:
            return 0
        if self._torn:
            raise ConnectionError("stream is torn by a send that was cut short")
        self._unsent = b"".join(bounded(buffers, _SEND_SIZE))
        self.unsent = len(self._unsent)
        return self.unsent

    async def wait_writable(self) -> None:
        if not self._unsent:
            await trio.lowlevel.checkpoint()
            return
        self._torn = True
        error: OSError | None = None
        try:
            await self._stream.send_all(self._unsent)
            self._torn = False
        except trio.ClosedResourceError:
            pass
        except (trio.BrokenResourceError, OSError) as exc:
            error = _as_oserror(exc)
        finally:
            self._unsent = b""
            # Of a send that was cut short nobody knows how much is lost.
            self.unsent = int(self._torn)
        if error is not None:
            try:
                raise error
            finally:
                del error  # no cycle with its traceback

    def _socket_below(self) -> trio.socket.SocketType | None:
        """Return the socket below a trio.SSLStream, if there is one."""
        stream = self._stream
        if isinstance(stream, trio.SSLStream):
            below = stream.transport_stream
            if isinstance(below, trio.SocketStream):
                return below.socket
        return None

    def shutdown(self) -> bool:
        # send_eof() would have to be waited for; closing says the same. But closing a
        # socket with bytes unread sends a reset, which can destroy what was written
        # last: the one below a trio.SSLStream stays open, to discard what comes.
        if self._socket is None and (below := self._socket_below()) is not None:
            with suppress(OSError):
                copy = socket.socket(fileno=below.dup().detach())
                self._socket = SocketTransport(copy)
            if self._receiving is not None:
                self._receiving.cancel()
        return self._socket is not None

    async def aclose(self) -> None:
        self._error, self._eof = None, True  # no cycle with its traceback
        self.shutdown()
        try:
            await self._close_stream()
        finally:
            if self._socket is not None:
                with suppress(OSError):
                    for _ in range(_LAST_READS):
                        if not self._socket.read():
                            break
                await self._socket.aclose()

    async def _close_stream(self) -> None:
        """Close the stream, and end what is below. **Cancellation**: none."""
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.cancel_scope.shield = True
            nursery.start_soon(_cut, nursery.cancel_scope)
            try:
                await self._send_last()
            except Exception as exc:  # noqa: BLE001 - raised below, and in no group
                failure = exc
            nursery.cancel_scope.cancel()
        if self._socket is not None:
            self._socket.shutdown()
        if failure is not None:
            try:
                raise failure
            finally:
                del failure  # as above

    async def _send_last(self) -> None:
        """Send what is in our hands, and close the stream.

        Which may have a last word of its own, as trio.SSLStream has.
        """
        with suppress(trio.BrokenResourceError, OSError):
            try:
                if self._unsent and not self._torn:
                    await self.wait_writable()
            finally:
                await self._stream.aclose()


@enable_ki_protection
async def _cut(scope: trio.CancelScope) -> None:
    """Cancel what takes longer than some turns of the loop."""
    for _ in range(_LAST_TURNS):
        await trio.lowlevel.checkpoint()
    scope.cancel()
