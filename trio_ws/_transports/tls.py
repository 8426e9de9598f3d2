"""TLS on another transport: an SSLObject on memory BIOs.

trio.SSLStream isn't used because its receive may have to send: a reader that
waits for writing is the first half of a full-duplex deadlock. It also costs
about a third more CPU. Here what reading makes TLS want to write (an answer to
a key update, an alert) is left for the flusher, like any other bytes.

A memory BIO never gives memory back: whatever it has once held an idle connection
keeps for ever. So each holds one record of ours at most.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import trio

from .base import READ_SIZE, Buffer, Transport, bounded
from .not_tls import explain

# RFC 8446, section 5.1: what comes before a record, its type, version and length; and
# the most that one read of TLS returns.
_HEADER_SIZE = 5
_LARGEST_RECORD = 2**14

# What a record of ours holds, so that five have all of a write, a frame of 64 KiB with
# its header. Six would keep 4 KiB less for ever, and take 2 % more CPU for that.
_RECORD_SIZE = -(-READ_SIZE // 5)

# What a BIO holds. Around what a record holds are its header, its type and what
# authenticates it: 22 bytes in TLS 1.3, up to 85 in TLS 1.2.
_PIECE_SIZE = _RECORD_SIZE + 96

# Up to this it makes no difference what a BIO keeps.
_SMALL = 4096

# More than this waits only if the peer makes TLS answer, and takes no answers.
_MOST_UNSENT = 2 * READ_SIZE

# What is discarded, without waiting, before the transport is closed.
_LAST_READS = 64

_End = TypeVar("_End", int, bytes)


class _Scratch(threading.local):
    """What is read at once: of no use once read() has returned."""

    def __init__(self) -> None:
        self.plain = memoryview(bytearray(READ_SIZE))
        self.cipher = memoryview(bytearray(READ_SIZE))


_scratch = _Scratch()
_scratch_above = _Scratch()  # of TLS in TLS: one is read into while the other fills


def _make_room(bio: ssl.MemoryBIO) -> int:
    """Let an empty BIO have room for a piece.

    OpenSSL takes a third more than what a BIO is to hold.
    """
    bio.write(bytes(_PIECE_SIZE * 3 // 4))
    bio.read()
    return _PIECE_SIZE


class TLSTransport(Transport):
    """A transport with TLS on it; needs :meth:`do_handshake` first."""

    __slots__ = (
        "_below",
        "_came",
        "_cipher",
        "_drained",
        "_ended",
        "_error",
        "_incoming",
        "_missing",
        "_outgoing",
        "_plain",
        "_records",
        "_room_in",
        "_room_out",
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
        scratch = _scratch_above if isinstance(below, TLSTransport) else _scratch
        self._plain, self._cipher = scratch.plain, scratch.cipher
        self._came = b""  # ciphertext that TLS hasn't been given yet
        self._missing = 0  # how far from where it begins a record ends
        self._drained = False  # nothing is in TLS, or on its way there
        self._unread = b""  # plaintext, until read() returns it
        self._ended = False  # there is nothing behind what was read
        self._error: OSError | None = None  # why, if not in good order
        self._room_in = self._room_out = _SMALL
        self._records: list[Buffer] = []  # ciphertext that wasn't taken below
        self.unsent = 0

    @property
    def below(self) -> Transport:
        """What TLS is on, for a peer that doesn't speak it."""
        return self._below

    @property
    def ssl_object(self) -> ssl.SSLObject | None:
        """The TLS session, for its certificate, cipher and protocol."""
        return self._tls

    async def do_handshake(self) -> None:
        """Do the TLS handshake.

        Raises OSError; ssl.SSLCertVerificationError says what is wrong with
        the peer's certificate. **Cancellation**: the transport is unusable.
        """
        first = b""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                piece = await self._feed()
                first = first or piece
            except ssl.SSLError as exc:
                # The alert tells the peer why.
                with suppress(OSError):
                    self._send()
                explain(exc, first, server_side=self._tls.server_side)
                raise
            else:
                await self._flush()
                return

    async def _flush(self) -> None:
        self._send()
        while self.unsent:
            await self.wait_writable()
            self._send()

    async def _feed(self) -> bytes:
        """Give TLS, in the handshake, a piece of what came, or comes; return it."""
        while True:
            if not self._missing and len(self._came) >= _HEADER_SIZE:
                self._missing = _HEADER_SIZE + int.from_bytes(self._came[3:5])
            cut = min(self._missing, len(self._came), _SMALL)
            if cut:
                piece = self._came[:cut]
                self._incoming.write(piece)
                self._came = self._came[cut:]
                self._missing -= cut
                return piece
            with suppress(trio.ClosedResourceError):
                await self._below.wait_readable()
            data = self._below.read()
            if data == b"":
                self._incoming.write_eof()
                return b""
            if data is not None:
                self._came += data

    # -- Reading -------------------------------------------------------------

    def read(self, size: int = READ_SIZE) -> bytes | None:
        if self._unread:
            # All that TLS had: see _close_notify().
            unread, self._unread = self._unread[:size], self._unread[size:]
            return unread
        came: Buffer | None = None
        if self._drained:
            came = self._receive()
            if came is None:
                return None
            length = len(came)
            if (
                _HEADER_SIZE < length <= _SMALL
                and length == _HEADER_SIZE + (came[3] << 8 | came[4])
                and length <= size
            ):
                # By far the most often one record comes, and is all.
                self._incoming.write(came)
                came = b""
                try:
                    if data := self._tls.read(length):
                        return data
                    self._ended = True
                except ssl.SSLError as exc:
                    self._note(exc)
        target = self._plain[:size]
        count = self._take(target, came)
        return bytes(target[:count]) if count else self._nothing(b"")

    def read_into(self, target: memoryview) -> int | None:
        if self._unread:
            return Transport.read_into(self, target)
        return self._take(target) or self._nothing(0)

    def _receive(self) -> Buffer | None:
        """Read once from below; return all that TLS hasn't been given, if any came."""
        cipher, kept = self._cipher, len(self._came)
        if kept:  # of a header
            cipher[:kept] = self._came
            count = self._below.read_into(cipher[kept:])
        else:
            count = self._below.read_into(cipher)
        if count is None:
            return None
        if not count:
            # TLS isn't told: it would send an error in place of a close_notify.
            # Whether a WebSocket was cut is told by its close frame.
            self._ended = True
        return cipher[: kept + count]

    def _take(self, target: memoryview, came: Buffer | None = None) -> int:
        """Put plaintext into ``target``; return how much.

        Waiting for the socket while plaintext is still in TLS would be waiting for
        nothing: all that TLS has is taken out, or enough.
        """
        count = self._decrypt(self._came if came is None else came, target)
        if not count and not self._ended and (came := self._receive()) is not None:
            count = self._decrypt(came, target)
        if self._outgoing.pending:
            # What reading has made TLS want to write.
            with suppress(OSError):  # whoever writes next is told; this one reads
                self._send()
            if self.unsent > _MOST_UNSENT:
                self._ended = True
                self._error = ConnectionError("peer takes no answers of TLS")
        return count

    def _decrypt(self, came: Buffer, target: memoryview) -> int:
        """Put plaintext of what TLS has and of ``came`` into ``target``."""
        incoming = self._incoming
        read: Callable[..., Any] = self._tls.read
        count, size, length = 0, len(target), len(came)
        start, end = 0, self._missing
        while count < size and not self._ended:
            if not incoming.pending:
                # What TLS is given ends where a record does: for want of the rest it
                # would raise an exception, which costs more.
                if start == end and length - start >= _HEADER_SIZE:
                    end = (
                        start + _HEADER_SIZE + (came[start + 3] << 8 | came[start + 4])
                    )
                cut = end
                if cut > length or cut > start + _PIECE_SIZE:
                    cut = min(length, start + _PIECE_SIZE)
                if start < cut:
                    if cut - start > self._room_in:
                        self._room_in = _make_room(incoming)
                    incoming.write(came[start:cut])
                    start = cut
                elif not self._tls.pending():  # a record that wasn't read to its end
                    break
            try:
                # Released whatever happens: an exception would keep it, and the
                # message's memory with it.
                with target[count:] as rest:
                    taken = read(size - count, rest)
            except ssl.SSLError as exc:
                self._note(exc)
            else:
                if not taken:
                    self._ended = True
                count += taken
        self._came = bytes(came[start:])
        self._missing = end - start
        self._drained = count < size and not (self._ended or self._came or end > start)
        return count

    def _note(self, exc: ssl.SSLError) -> None:
        """Note why TLS has nothing more to read."""
        if isinstance(exc, ssl.SSLWantReadError):
            return  # it was a part of a record, or nothing for us
        # What came before it is handed over first.
        self._ended = True
        if not isinstance(exc, ssl.SSLZeroReturnError):
            self._error = exc

    def _nothing(self, end: _End) -> _End | None:
        """Say that nothing was read, for now or ever; or why."""
        if self._error is not None:
            raise self._error
        return end if self._ended else None

    def wait_readable(self) -> Awaitable[None]:
        # A peer that waits for our close_notify sends nothing behind its own.
        if self._ended or self._unread:
            return trio.lowlevel.checkpoint()  # noqa: ASYNC105
        return self._below.wait_readable()

    def fileno(self) -> int:
        return self._below.fileno()

    @property
    def holds(self) -> bool:  # type: ignore[override]
        return not self._drained or self._ended or bool(self._unread)

    def wake(self) -> None:
        self._below.wake()

    # -- Writing -------------------------------------------------------------

    def write(self, buffers: Sequence[Buffer]) -> int:
        if self.unsent:
            # Ciphertext that waits is bounded: no more is made while some does.
            self._send()
            if self.unsent:
                return 0
        if len(buffers) == 1 and len(buffers[0]) <= _SMALL:
            taken = self._tls.write(buffers[0])
            record, sent = self._outgoing.read(), 0
            try:
                sent = self._below.write((record,))
            finally:
                if sent < len(record) or self._below.unsent:
                    self._keep([record], len(record), sent)
            return taken
        taken = 0
        try:
            if buffers:
                taken = self._encrypt(buffers)
        finally:
            # Whatever TLS does, this comes after it, so that unsent is right.
            self._send()
        return taken

    def _encrypt(self, buffers: Sequence[Buffer]) -> int:
        """Make records of what one write takes; return how much that is."""
        if self._room_out < _PIECE_SIZE and not self._outgoing.pending:
            self._room_out = _make_room(self._outgoing)
        write, read = self._tls.write, self._outgoing.read
        *small, last = bounded(buffers, READ_SIZE)
        # The record that small ones begin is filled up, so that it is a whole one; what
        # is left of a large payload isn't copied for that.
        start = -sum(map(len, small)) % _RECORD_SIZE
        beginning = b"".join((*small, last[:start]))
        records = self._records
        taken = 0
        for part in (memoryview(beginning), memoryview(last)[start:]):
            for at in range(0, len(part), _RECORD_SIZE):
                taken += write(part[at : at + _RECORD_SIZE])
                records.append(read())
        return taken

    def _send(self) -> None:
        """Write ciphertext as far as that needs no waiting."""
        records, sent = self._records, 0
        if self._outgoing.pending:
            records.append(self._outgoing.read())
        size = sum(map(len, records))
        try:
            if size or self._below.unsent:  # of TLS below, which keeps some, too
                sent = self._below.write(records)
        finally:
            self._keep(records, size, sent)

    def _keep(self, records: list[Buffer], size: int, sent: int) -> None:
        """Keep what wasn't taken below."""
        self.unsent = size - sent + self._below.unsent
        if sent == size:
            self._records = []
            return
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
            return False  # a stream: to write to it takes a wait, but for aclose()
        self._close_notify()
        return self._below.shutdown()

    def _close_notify(self) -> None:
        """Write a close_notify, if none was, as far as that needs no waiting.

        RFC 8446, section 6.1: "Each party MUST send a close_notify alert before
        closing its write side of the connection, unless it has already sent some error
        alert". The peer's is not waited for: the closing handshake says more.
        """
        if self._tls.version() is None:
            return  # the handshake isn't done
        if not self._drained:
            # With plaintext left in TLS, unwrap() would break it for good.
            target = bytearray(_LARGEST_RECORD)
            with memoryview(target) as view:
                while count := self._decrypt(self._came, view):
                    self._unread += target[:count]
        with suppress(ssl.SSLError):
            self._tls.unwrap()
        with suppress(OSError):
            self._send()

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
