"""TLS over a socket: an SSLObject on memory BIOs.

trio.SSLStream isn't used because its receive may have to send: a reader that
waits for writing is the first half of a full-duplex deadlock. It also costs
about a third more CPU. Here what reading makes TLS want to write (an answer to
a key update, an alert) is left for the flusher, like any other bytes.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, TypeVar

import trio

from .base import READ_SIZE, Buffer, Transport, bounded
from .sockets import SocketTransport

# The most that a record holds, and one read returns (RFC 8446, section 5.1).
_RECORD_SIZE = 2**14

# What is discarded, without waiting, before the socket is closed.
_LAST_READS = 64

_End = TypeVar("_End", int, bytes)


class TLSTransport(SocketTransport):
    """A stream socket with TLS on it; needs :meth:`do_handshake` first."""

    __slots__ = (
        "_ended",
        "_error",
        "_incoming",
        "_outgoing",
        "_tls",
        "_unread",
        "_unsent",
    )

    def __init__(
        self,
        sock: socket.socket,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        server_hostname: str | None = None,
    ) -> None:
        super().__init__(sock)
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=server_side,
            server_hostname=server_hostname,
        )
        self._unsent = memoryview(b"")  # ciphertext that the socket didn't take
        self._unread = b""  # plaintext, until read() returns it
        self._ended = False  # there is nothing behind what was read
        self._error: ssl.SSLError | None = None  # why, if not in good order

    @property
    def ssl_object(self) -> ssl.SSLObject:
        """The TLS session, for its certificate, cipher and protocol."""
        return self._tls

    async def do_handshake(self) -> None:
        """Do the TLS handshake.

        Raises OSError; ssl.SSLCertVerificationError says what is wrong with
        the peer's certificate. **Cancellation**: the transport is unusable.
        """
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self.wait_readable()
                self._fill()
            except ssl.SSLError:
                # The alert tells the peer why.
                with suppress(OSError):
                    self._write_ciphertext()
                raise
            else:
                await self._flush()
                return

    async def _flush(self) -> None:
        self._write_ciphertext()
        while self.unsent:
            await self.wait_writable()
            self._write_ciphertext()

    def _fill(self) -> bool | None:
        """Move ciphertext from the socket to TLS; False at the end, None if none."""
        data = super().read()
        if data:
            self._incoming.write(data)
            return True
        if data is None:
            return None
        self._incoming.write_eof()
        return False

    def read(self, size: int = READ_SIZE) -> bytes | None:
        # All that TLS has is taken out, or enough: waiting for the socket while
        # plaintext is still in TLS would be waiting for nothing.
        chunks = [self._unread[:size]] if self._unread else []
        self._unread = self._unread[size:]
        count = sum(map(len, chunks))
        while count < size:
            # No more than a record: for so much as is asked for, memory is taken.
            chunk = self._attempt(not count, min(size - count, _RECORD_SIZE))
            if not chunk:
                break
            chunks.append(chunk)
            count += len(chunk)
        self._answer()
        return b"".join(chunks) if count else self._nothing(b"")

    def read_into(self, target: memoryview) -> int | None:
        if self._unread:
            return Transport.read_into(self, target)
        count, size = 0, len(target)
        while count < size:
            # Released whatever happens: an exception would keep it, and the message's
            # memory with it.
            with target[count:] as rest:
                came = self._attempt(not count, size - count, rest)
            if not came:
                break
            count += came
        self._answer()
        return count or self._nothing(0)

    def _attempt(self, fill: bool, *args: Any) -> Any:
        """Read a record; if TLS has none, from the socket, too, if ``fill`` says so.

        ``args`` are those of SSLObject.read(): a size and perhaps a buffer. Return what
        that returns, so bytes or their number; None if there is no record.
        """
        while not self._ended:
            # For want of ciphertext TLS would raise an exception, which costs more.
            if not (self._incoming.pending or self._tls.pending()):
                if not fill or self._fill() is None:
                    return None
            try:
                data = self._tls.read(*args)
            except ssl.SSLWantReadError:
                pass  # it was a part of a record, or nothing for us
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                # With or without close_notify: whether a WebSocket was cut is
                # told by its close frame.
                self._ended = True
            except ssl.SSLError as exc:
                # What came before it is handed over first.
                self._ended = True
                self._error = exc
            else:
                self._ended = not data
                return data
        return None

    def _answer(self) -> None:
        """Write what reading has made TLS want to write."""
        if self._outgoing.pending:
            with suppress(OSError):  # whoever writes next is told; this one reads
                self._write_ciphertext()

    def _nothing(self, end: _End) -> _End | None:
        """Say that nothing was read, for now or ever; or why."""
        if self._error is not None:
            raise self._error
        return end if self._ended else None

    async def wait_readable(self) -> None:
        # A peer that waits for our close_notify sends nothing behind its own.
        if self._ended:
            await trio.lowlevel.checkpoint()
        else:
            await super().wait_readable()

    def write(self, buffers: Sequence[Buffer]) -> int:
        # Ciphertext that waits is bounded: no more is made while some does.
        self._write_ciphertext()
        if self.unsent or not buffers:
            return 0
        # A frame of 64 KiB goes in one step, with its header.
        *small, last = bounded(buffers, READ_SIZE)
        taken = 0
        if small:
            # The record that they begin is filled up, so that it is a whole one; what
            # is left of a large payload isn't copied for that.
            size = _RECORD_SIZE - sum(map(len, small)) % _RECORD_SIZE
            beginning = b"".join((*small, last[:size]))
            taken = self._tls.write(beginning)
            last = memoryview(last)[size:] if taken == len(beginning) else b""
        if last:
            taken += self._tls.write(last)
        self._write_ciphertext()
        return taken

    def _write_ciphertext(self) -> None:
        # Whatever TLS does, this comes after it, so that unsent is right.
        try:
            while self._unsent or self._outgoing.pending:
                if not self._unsent:
                    self._unsent = memoryview(self._outgoing.read())
                sent = super().write([self._unsent])
                if not sent:
                    return
                self._unsent = self._unsent[sent:]
        finally:
            self.unsent = len(self._unsent) + self._outgoing.pending

    async def aclose(self) -> None:
        # RFC 8446, section 6.1: "Each party MUST send a "close_notify" alert before
        # closing its write side of the connection, unless it has already sent some
        # error alert". Here at the latest, as far as that needs no waiting.
        if self._sock.fileno() >= 0 and self._tls.version() is not None:
            self.shutdown()
            with suppress(OSError):
                # What isn't read makes the system send a reset, which destroys it.
                for _ in range(_LAST_READS):
                    if not super().read():
                        break
        await super().aclose()
        self._error = None  # no cycle with its traceback

    def shutdown(self) -> bool:
        # close_notify is written; the peer's is not waited for, since the
        # closing handshake of the WebSocket says more (RFC 8446, section 6.1).
        # With plaintext left in TLS, unwrap() would break it for good.
        with suppress(ssl.SSLError):
            while chunk := self._tls.read(READ_SIZE):
                self._unread += chunk
        with suppress(ssl.SSLError):
            self._tls.unwrap()
        with suppress(OSError):
            self._write_ciphertext()
        return super().shutdown()
