"""Any trio.abc.Stream: memory streams, SSLStream, a stream of the user's.

Such a stream can't be tried without waiting, so writing takes a bounded amount
into our hands and wait_writable() sends it.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import suppress

import trio

from .base import READ_SIZE, Buffer, Transport, bounded

# How much is sent at once. Of a part of it nobody tells whether it has gone out,
# so a peer that takes less in ping_timeout seems to be dead.
_SEND_SIZE = 16 * 1024


def _as_oserror(exc: Exception) -> OSError:
    """Translate what a stream raises; the cause is the stream's exception."""
    cause = exc.__cause__
    if isinstance(cause, OSError):
        return cause
    error = ConnectionError(f"stream is broken: {type(exc).__name__} {exc}")
    error.__cause__ = exc
    return error


class StreamTransport(Transport):
    """A stream of the user's, which is closed with the connection."""

    __slots__ = ("_eof", "_error", "_received", "_stream", "_torn", "_unsent", "unsent")

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._received: bytes | None = None
        self._unsent = b""
        self.unsent = 0
        self._error: OSError | None = None  # of receiving, until read() tells it
        self._eof = False
        self._torn = False  # a send was cut short: what follows would be garbage

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
            self._received = bytes(await self._stream.receive_some(READ_SIZE))
        except trio.ClosedResourceError:
            self._received = b""
        except (trio.BrokenResourceError, OSError) as exc:
            self._error = _as_oserror(exc)

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

    def shutdown(self) -> bool:
        # send_eof() would have to be waited for; closing says the same. But
        # closing a socket with bytes unread sends a reset, which can destroy
        # what was written last: where there is one below, its end is told.
        stream = self._stream
        if isinstance(stream, trio.SSLStream):
            stream = stream.transport_stream
        if not isinstance(stream, trio.SocketStream):
            return False
        with suppress(OSError):
            stream.socket.shutdown(socket.SHUT_WR)
        return True

    async def aclose(self) -> None:
        self._error, self._eof = None, True  # no cycle with its traceback
        with (
            suppress(trio.BrokenResourceError, OSError),
            trio.CancelScope(shield=True),
        ):
            await trio.aclose_forcefully(self._stream)
