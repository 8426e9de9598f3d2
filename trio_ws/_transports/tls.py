"""TLS on another transport: an SSLObject on memory BIOs.

trio.SSLStream isn't used because its receive may have to send: a reader that
waits for writing is the first half of a full-duplex deadlock. It also costs
about a third more CPU. Here what reading makes TLS want to write (an answer to
a key update, an alert) is left for the flusher, like any other bytes.

A memory BIO never gives memory back. So each holds a record or two at a time, not
all of a large read or write, which an idle connection would keep for ever.
"""

from __future__ import annotations

import ssl
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import trio

from .base import READ_SIZE, Buffer, Transport, bounded

# RFC 8446, section 5.1: the most that a record holds, and one read returns; and what
# comes before it, type, version and length.
_RECORD_SIZE = 2**14
_HEADER_SIZE = 5
_length_at = struct.Struct("!3xH").unpack_from

# What a BIO gets at once: where records are small, as many as go in there. One large
# record less in each would save 20 KiB of a connection, and cost 3 % of the CPU of
# writing.
_READ_PIECE = _RECORD_SIZE + 4096
_WRITE_PIECE = 2 * _RECORD_SIZE
_WRITE_REST = 4096  # goes with the piece before

# What is discarded, without waiting, before the transport is closed.
_LAST_READS = 64

_End = TypeVar("_End", int, bytes)


class TLSTransport(Transport):
    """A transport with TLS on it; needs :meth:`do_handshake` first."""

    __slots__ = (
        "_below",
        "_ended",
        "_error",
        "_header",
        "_incoming",
        "_missing",
        "_outgoing",
        "_pieces",
        "_records",
        "_tls",
        "_unread",
        "callers_read",
        "local_address",
        "remote_address",
        "unsent",
    )

    def __init__(
        self,
        below: Transport,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        server_hostname: str | None = None,
    ) -> None:
        self._below = below
        self.callers_read = below.callers_read
        self.local_address = below.local_address
        self.remote_address = below.remote_address
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=server_side,
            server_hostname=server_hostname,
        )
        # Ciphertext that came: what TLS hasn't been given, the last first, and the
        # beginning of a header. And how much hasn't come of the record before that.
        self._pieces: list[Buffer] = []
        self._header = b""
        self._missing = 0
        self._unread = b""  # plaintext, until read() returns it
        self._ended = False  # there is nothing behind what was read
        self._error: ssl.SSLError | None = None  # why, if not in good order
        self._records: list[Buffer] = []  # ciphertext that wasn't taken below
        self.unsent = 0

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
                if self._pieces:
                    self._incoming.write(self._pieces.pop())
                else:
                    while not self._feed():
                        await self.wait_readable()
                    if self._ended:
                        self._incoming.write_eof()
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

    # -- Reading -------------------------------------------------------------

    def _feed(self) -> bool:
        """Read from below and give TLS the first piece; return whether there was one.

        Pieces end where records do, since TLS raises an exception for want of the rest,
        which costs more.
        """
        data = self._below.read()
        if data is None:
            return False
        if not data:
            # TLS isn't told: it would send an error in place of a close_notify.
            # Whether a WebSocket was cut is told by its close frame.
            self._ended = True
            return True
        if self._header:
            data, self._header = self._header + data, b""
        start, end, size = 0, self._missing, len(data)
        while end <= size - _HEADER_SIZE:
            (length,) = _length_at(data, end)
            if end + length > start + _READ_PIECE and end > start:
                self._pieces.append(memoryview(data)[start:end])
                start = end
            end += _HEADER_SIZE + length
        if end < size:
            data, self._header = data[:end], data[end:]
        self._missing = max(end - size, 0)
        if start:
            self._pieces.append(memoryview(data)[start:])
            self._pieces.reverse()
        self._incoming.write(self._pieces.pop() if start else data)
        return end > 0

    def read(self, size: int = READ_SIZE) -> bytes | None:
        chunks: list[bytes] = []
        if self._unread:
            chunks.append(self._unread[:size])
            self._unread = self._unread[size:]
            size -= len(chunks[0])
        self._take(size, chunks)
        return b"".join(chunks) or self._nothing(b"")

    def read_into(self, target: memoryview) -> int | None:
        if self._unread:
            return Transport.read_into(self, target)
        return self._take(len(target), [], target) or self._nothing(0)

    def _take(
        self, size: int, chunks: list[bytes], target: memoryview | None = None
    ) -> int:
        """Read up to ``size`` bytes, of what is there, into ``chunks`` or ``target``.

        All that TLS has is taken out, or enough: waiting for the socket while
        plaintext is still in TLS would be waiting for nothing.
        """
        incoming, pieces = self._incoming, self._pieces
        read: Callable[..., Any] = self._tls.read
        count = 0
        while count < size and not self._ended:
            if not incoming.pending:
                if pieces:
                    incoming.write(pieces.pop())
                # A record that isn't read to its end has filled all that was asked for.
                elif count or not (self._tls.pending() or self._feed()):
                    break
            try:
                if target is None:
                    # For as much as is asked for, memory is taken.
                    chunk = read(min(size - count, _RECORD_SIZE))
                    chunks.append(chunk)
                    came = len(chunk)
                else:
                    # Released whatever happens: an exception would keep it, and the
                    # message's memory with it.
                    with target[count:] as rest:
                        came = read(size - count, rest)
                count += came
                self._ended = not came
            except ssl.SSLWantReadError:
                pass  # it was a part of a record, or nothing for us
            except ssl.SSLZeroReturnError:
                self._ended = True
            except ssl.SSLError as exc:
                # What came before it is handed over first.
                self._ended = True
                self._error = exc
        if self._outgoing.pending:
            # What reading has made TLS want to write.
            with suppress(OSError):  # whoever writes next is told; this one reads
                self._write_ciphertext()
        return count

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
            await self._below.wait_readable()

    def wake(self) -> None:
        self._below.wake()

    # -- Writing -------------------------------------------------------------

    def write(self, buffers: Sequence[Buffer]) -> int:
        if self.unsent:
            # Ciphertext that waits is bounded: no more is made while some does.
            self._write_ciphertext()
            if self.unsent:
                return 0
        if not buffers:
            return 0
        if len(buffers) == 1 and len(buffers[0]) <= _RECORD_SIZE:
            taken = self._tls.write(buffers[0])
            self._send([self._outgoing.read()])
            return taken
        taken = self._encrypt(buffers)
        self._write_ciphertext()
        return taken

    def _encrypt(self, buffers: Sequence[Buffer]) -> int:
        """Make records of what one write takes; return how much that is."""
        # A frame of 64 KiB goes in one step, with its header.
        *small, last = bounded(buffers, READ_SIZE)
        # The record that small ones begin is filled up, so that it is a whole one; what
        # is left of a large payload isn't copied for that.
        start = -sum(map(len, small)) % _RECORD_SIZE
        beginning = b"".join((*small, last[:start]))
        taken = 0
        for part in (memoryview(beginning), memoryview(last)[start:]):
            start, size = 0, len(part)
            while start < size:
                end = start + _WRITE_PIECE
                if end > size - _WRITE_REST:
                    end = size
                taken += self._tls.write(part[start:end])
                self._records.append(self._outgoing.read())
                start = end
        return taken

    def _write_ciphertext(self) -> None:
        # Whatever TLS does, this comes after it, so that unsent is right.
        records, self._records = self._records, []
        if self._outgoing.pending:
            records.append(self._outgoing.read())
        self._send(records)

    def _send(self, records: list[Buffer]) -> None:
        """Write records, as far as that needs no waiting; keep the rest."""
        sent, size = 0, sum(map(len, records))
        try:
            if size:
                sent = self._below.write(records)
        finally:
            self.unsent = size - sent + self._below.unsent
            if sent < size:
                while sent >= len(records[0]):
                    sent -= len(records.pop(0))
                records[0] = memoryview(records[0])[sent:]
                self._records = records

    async def wait_writable(self) -> None:
        try:
            await self._below.wait_writable()
        finally:
            self.unsent = sum(map(len, self._records)) + self._below.unsent

    # -- The end -------------------------------------------------------------

    def shutdown(self) -> bool:
        if not self.callers_read:
            return False  # a stream, to which nothing can be written without waiting
        self._close_notify()
        return self._below.shutdown()

    def _close_notify(self) -> None:
        """Write a close_notify, if none was, as far as that needs no waiting.

        RFC 8446, section 6.1: "Each party MUST send a close_notify alert before
        closing its write side of the connection, unless it has already sent some error
        alert". The peer's is not waited for: the closing handshake says more.
        """
        if self._tls.version() is None:
            return  # the handshake isn't done, or TLS has failed
        # With plaintext left in TLS, unwrap() would break it for good.
        with suppress(ssl.SSLError):
            while chunk := self._tls.read(_RECORD_SIZE):
                self._unread += chunk
        with suppress(ssl.SSLError):
            self._tls.unwrap()
        with suppress(OSError):
            self._write_ciphertext()

    def _leave(self) -> None:
        """Write what is the last to be written, and see that it arrives."""
        self._close_notify()
        # A socket that is closed with bytes unread sends a reset, which can destroy
        # what was written last. The peer's close_notify, at least, comes unread.
        with suppress(OSError):
            for _ in range(_LAST_READS):
                if not self._below.read():
                    break

    def discard(self) -> None:
        self._leave()
        self._below.discard()

    async def aclose(self) -> None:
        self._leave()
        await self._below.aclose()
        self._error = None  # no cycle with its traceback
