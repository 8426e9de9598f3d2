# cython: annotation_typing=False, nonecheck=True
"""Bytes to messages and back: the hot path (RFC 6455, section 5).

:class:`Decoder` parses everything it is given in one call. A whole message in
one frame, by far the most common, becomes a str or bytes at once; only the
rest goes through a :class:`PartialMessage`. That, and the frame whose payload is
still incomplete, are the state, so that feeding byte by byte costs no more than
feeding all at once: nothing is ever scanned twice.

Where there is a C compiler, Cython makes an extension module of this file, with
the types in ``_codec.pxd``.
"""

from __future__ import annotations

import functools
import io
import os
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import FunctionType
from typing import Final, Literal

from . import _masking
from ._deflate import PerMessageDeflate
from ._errors import PayloadTooBig, ProtocolError
from ._extensions import Extension, Frame
from ._frames import (
    CLOSE,
    CONT,
    MAX_CONTROL_PAYLOAD,
    MAX_SHORT_FRAGMENTS,
    OPCODE_NAMES,
    PIECE_SIZE,
    SHORT_FRAGMENT,
    SPLIT_SIZE,
    TEXT,
    CloseCode,
)
from ._outbox import Encoded
from ._partial import PartialMessage, invalid_utf8

# The trace of a frame that comes in pieces shows this many bytes of it.
TRACED: Final = 100

# A payload of at least so much is received where it will stay.
_LARGE: Final = 32 * 1024

# No frame is longer (RFC 6455, section 5.2).
_MAX_LENGTH: Final = 2**63 - 1

Control = tuple[int, bytes]
Item = str | bytes | Control | ProtocolError
Trace = Callable[[int, bytes, int, bool], None]


def codec() -> Literal["compiled", "python"]:
    """Tell whether frames are made and parsed by compiled code or by Python.

    Both do the same. The code is compiled where trio_ws was installed with a C
    compiler at hand; ``TRIO_WS_PURE=1`` in the environment when trio_ws is
    imported makes it Python all the same.
    """
    return "python" if isinstance(codec, FunctionType) else "compiled"


@functools.cache
def _keep_memory(bits: int) -> None:
    """Have malloc keep what is freed of messages of about so many bits of size.

    The malloc of glibc gives a large block back to the system when it is freed, and
    takes it anew, page by page, for the next message, which costs several times what
    receiving does. It stops doing so once a still larger block, of up to 32 MiB, has
    been freed: so one is allocated and freed here.
    """
    with suppress(MemoryError):
        _masking.blank(min(4 << bits, 2**25 - 2**16))


# ---------------------------------------------------------------------------
# Messages to bytes
# ---------------------------------------------------------------------------

_KEYS_AT_ONCE: Final = 1024
_keys: list[int] = []


def _new_key() -> int:
    # RFC 6455, section 5.3: "derived from a strong source of entropy". One
    # system call a thousand keys instead of one a key.
    try:
        return _keys.pop()
    except IndexError:
        keys = struct.unpack(f"<{_KEYS_AT_ONCE}I", os.urandom(4 * _KEYS_AT_ONCE))
        _keys.extend(keys[1:])
        return int(keys[0])


if hasattr(os, "register_at_fork"):  # pragma: no branch - POSIX alone has fork
    # A child must not mask with the keys that its parent will use.
    os.register_at_fork(after_in_child=_keys.clear)


def encode(
    opcode: int, payload: bytes, fin: bool, masked: bool, reserved: int = 0
) -> Encoded:
    """Build a frame; ``masked`` is what a client must do and a server must not.

    ``reserved`` are the bits that extensions use, as in the first byte.
    """
    if type(payload) is not bytes:
        payload = bytes(payload)  # an extension of the user's may make others
    size = len(payload)
    first = opcode | reserved | 0x80 if fin else opcode | reserved
    second = 0x80 if masked else 0
    key = _new_key() if masked else -1
    if size < 126:
        return _masking.joined(first << 8 | second | size, 2, payload, key)
    if size < 0x10000:
        head = (first << 8 | second | 126) << 16 | size
        if size < SPLIT_SIZE:
            return _masking.joined(head, 4, payload, key)
        header = _masking.joined(head, 4, b"", key)
    else:
        _keep_memory(size.bit_length())  # of which a text was encoded, for one
        extended = size.to_bytes(8, "big")
        header = _masking.joined(first << 8 | second | 127, 2, extended, -1)
        if masked:
            header += key.to_bytes(4, "little")
    if not masked:
        return header, payload
    beginning = _masking.masked(payload, 0, min(size, PIECE_SIZE), key)
    if size <= PIECE_SIZE:
        return header, beginning
    return header, beginning, payload, key


# ---------------------------------------------------------------------------
# Bytes to messages
# ---------------------------------------------------------------------------


class Decoder:
    """Turns the bytes of one direction of a connection into messages.

    ``masked`` says whether frames must be masked, as a client's must, or must
    not, as a server's (section 5.1). ``max_size`` limits a message, in bytes;
    None doesn't. ``trace`` is called with each frame: its opcode, the beginning
    of its payload, the payload's size, FIN.
    """

    __slots__ = (
        "_extensions",
        "_fin",
        "_key",
        "_left",
        "_length",
        "_limit",
        "_masked",
        "_max_size",
        "_message",
        "_missing",
        "_opcode",
        "_raw",
        "_reserved",
        "_seen",
        "_trace",
        "_transform",
        "deflate",
    )

    def __init__(
        self,
        *,
        masked: bool,
        max_size: int | None,
        trace: Trace | None = None,
    ) -> None:
        self._masked = masked
        self._max_size = max_size
        self._limit = _MAX_LENGTH if max_size is None else min(max_size, _MAX_LENGTH)
        self._trace = trace
        self._extensions: Sequence[Extension] = ()
        self.deflate: PerMessageDeflate | None = None
        self._left = b""  # the beginning of a header or of a control frame
        # The frame whose payload is incomplete.
        self._missing = 0  # bytes of it that haven't come
        self._length = 0
        self._opcode = 0
        self._fin = False
        self._key = 0  # rotated so that it starts at the next byte; 0 masks nothing
        self._seen = b""  # the beginning of its payload, for the trace
        self._transform = False  # it is for the extensions, once complete:
        self._reserved = 0  # with these bits of its first byte
        self._raw: io.BytesIO | None = None  # and this much of its payload
        # The message whose frames are incomplete.
        self._message: PartialMessage | None = None

    def extend(self, extensions: Sequence[Extension]) -> None:
        """Let frames go through these extensions, which are in their order."""
        self._extensions = extensions
        # Compression alone, by far the most common, leaves most frames as they
        # are; what else an extension wants to see can't be known.
        if len(extensions) == 1 and isinstance(extensions[0], PerMessageDeflate):
            self.deflate = extensions[0]

    def feed(self, data: bytes) -> list[Item]:
        """Parse ``data`` and return what it completed, in order.

        A message is a str or bytes, a control frame an (opcode, payload) pair.
        A close frame or a ProtocolError is the last item: nothing after it is
        looked at, and nothing more may be fed.
        """
        items: list[Item] = []
        if type(data) is not bytes:  # a stream of the user's may have others
            data = bytes(data)
        if self._left:
            data = self._left + data
            self._left = b""
        position = 0
        try:
            if self._missing:
                position = self._add_payload(data, 0, items)
            if not self._missing:
                self._parse(data, position, items)
        except ProtocolError as exc:
            items.append(exc)
        return items

    def _parse(self, data: bytes, position: int, items: list[Item]) -> None:
        """Parse the frames that begin at ``position`` of ``data``."""
        #  0                   1                   2                   3
        #  F R R R  opcode(4)  M  length(7)  extended length (0, 16 or 64)
        #  masking key (0 or 32)  payload
        masked = self._masked
        end = len(data)
        while end - position >= 2:
            first = data[position]
            second = data[position + 1]
            # Data frames without reserved bits need no closer look.
            if first & 0x7C or first & 0x03 == 0x03 or (second >= 0x80) != masked:
                self._check_header(first, second)
            start = position + 2
            length = second & 0x7F
            if length >= 126:
                start += 2 if length == 126 else 8
                if end < start:
                    break
                length = self._extended_length(data, position + 2, start)
            if first & 0x08:
                if end - start < length + (4 if masked else 0):
                    break
                position = self._add_control(data, start, first, length, items)
                if first & 0x0F == CLOSE:
                    return
                continue
            # Before the payload is waited for, so that a message too big is
            # refused by its header.
            transform = self._is_for_extensions(first) if self._extensions else False
            if (
                self._message is not None
                or not first & 0x0F
                or length > self._limit
                or transform
            ):
                self._check_data(first, length, transform)
            if masked:
                if end - start < 4:
                    break
                self._key = _masking.key_at(data, start)
                start += 4
            if (
                not first & 0x80
                or not first & 0x0F
                or length > end - start
                or transform
            ):
                self._begin(first, length, transform)
                position = self._add_payload(data, start, items)
                if self._missing:
                    return
                continue
            # A whole message in one frame.
            position = start + length
            if self._trace is not None:
                payload = _masking.masked(data, start, position, self._key)
                self._trace(first & 0x0F, payload, length, True)
            if first & 0x0F != TEXT:
                items.append(_masking.masked(data, start, position, self._key))
                continue
            try:
                if masked:
                    items.append(
                        _masking.masked(data, start, position, self._key).decode()
                    )
                else:  # compiled, this decodes without copying first
                    items.append(data[start:position].decode())
            except UnicodeDecodeError as exc:
                raise invalid_utf8(exc, 0) from exc
        if position < end:
            self._left = data[position:]

    def _extended_length(self, data: bytes, start: int, stop: int) -> int:
        """Read a length of 2 or 8 bytes (section 5.2)."""
        if stop - start == 2:
            length = data[start] << 8 | data[start + 1]
            if length >= 126:
                return length
        else:
            length = int.from_bytes(data[start:stop], "big")
            if length > _MAX_LENGTH:
                raise ProtocolError(
                    "frame length: expected less than 2**63; the top bit is set"
                )
            if length >= 0x10000:
                return length
        raise ProtocolError(
            f"frame length: expected the shortest encoding; "
            f"got {stop - start} bytes for {length}"
        )

    def _check_header(self, first: int, second: int) -> None:
        """Check the first two bytes of a frame (section 5.2)."""
        if first & 0x70 and not self._extensions:
            raise ProtocolError("reserved bits are set; no extension was negotiated")
        opcode = first & 0x0F
        if opcode not in OPCODE_NAMES:
            raise ProtocolError(f"unknown opcode {opcode:#x}")
        if self._masked != (second >= 0x80):
            # Section 5.1
            raise ProtocolError(
                "frame of a client is not masked"
                if self._masked
                else "frame of a server is masked"
            )
        if opcode & 0x08:
            # Section 5.5
            if not first & 0x80:
                raise ProtocolError(f"{OPCODE_NAMES[opcode]} frame is fragmented")
            if second & 0x7F > MAX_CONTROL_PAYLOAD:
                raise ProtocolError(
                    f"{OPCODE_NAMES[opcode]} frame: expected a payload of at most "
                    f"{MAX_CONTROL_PAYLOAD} bytes"
                )

    def _is_for_extensions(self, first: int) -> bool:
        """Tell whether a data frame with this first byte concerns extensions."""
        if self.deflate is None or first & 0x70:
            return True
        return first & 0x0F == CONT and self.deflate.decoding

    def _check_data(self, first: int, length: int, transform: bool) -> None:
        """Check a data frame against the message it belongs to (section 5.4)."""
        message = self._message
        if first & 0x0F:
            if message is not None:
                raise ProtocolError(
                    "new message in the middle of a fragmented one; expected a "
                    "continuation frame"
                )
            before = 0
        else:
            if message is None:
                raise ProtocolError("continuation frame without a message to continue")
            before = message.size
            if (
                message.short_fragments >= MAX_SHORT_FRAGMENTS
                and length < SHORT_FRAGMENT
            ):
                raise PayloadTooBig(
                    f"message with more than {MAX_SHORT_FRAGMENTS} fragments of less "
                    f"than {SHORT_FRAGMENT} bytes",
                    CloseCode.MESSAGE_TOO_BIG,
                )
        if length > self._limit - before:
            self._check_size(before, length, transform)

    def _check_size(self, before: int, length: int, transform: bool) -> None:
        size = before + length
        # What an extension made can be larger than what it is of: by an eighth
        # and a bit where zlib compresses with little memory, in vain.
        slack = size // 4 + 64 if transform else 0
        if self._max_size is not None and size > self._max_size + slack:
            raise PayloadTooBig(
                f"message of {size} bytes or more exceeds max_size, "
                f"{self._max_size} bytes",
                CloseCode.MESSAGE_TOO_BIG,
            )

    def _begin(self, first: int, length: int, transform: bool) -> None:
        """Begin a frame that is incomplete, or a fragment."""
        if self._message is None:
            self._message = PartialMessage(first & 0x0F == TEXT)
        message = self._message
        self._opcode = first & 0x0F
        self._fin = first & 0x80 != 0
        self._transform = transform
        if transform:
            self._reserved = first & 0x70
            self._raw = io.BytesIO()
        if length < SHORT_FRAGMENT:
            message.short_fragments += 1
        self._length = self._missing = length
        if length >= _LARGE:
            _keep_memory(length.bit_length())
            # Text is decoded as it comes.
            if not (message.is_text or transform or message.discarded):
                message.make_room(length)

    def space(self) -> memoryview | None:
        """Return where bytes can be put in place of being fed; then call filled().

        None while nothing large is under way. Release it before: a message in whose
        memory somebody may write is copied.
        """
        return None if self._message is None else self._message.room()

    def filled(self, count: int) -> list[Item]:
        """Take in so many bytes that were put into the space, as feed() does."""
        assert self._message is not None
        items: list[Item] = []
        self._message.unmask(count, self._key)
        self._add_filled(count, items)
        return items

    def _add_filled(self, count: int, items: list[Item]) -> None:
        """Add to the message what is in its room, unmasked, of a large payload."""
        message = self._message
        assert message is not None
        self._progress(count)
        if self._trace is not None:
            self._trace_payload(message.peek(min(count, TRACED)))
        message.filled(count)
        if self._missing and not message.has_room:
            message.make_room(self._missing)
        if self._fin and not self._missing:
            self._complete(items)

    def _progress(self, size: int) -> None:
        """Take note that so much of the frame under way has come."""
        key, shift = self._key, 8 * (size & 3)
        self._key = (key >> shift | key << 32 - shift) & 0xFFFFFFFF
        self._missing -= size

    def _trace_payload(self, chunk: bytes) -> None:
        assert self._trace is not None
        self._seen += chunk[: TRACED - len(self._seen)]
        if not self._missing:
            self._trace(self._opcode, self._seen, self._length, self._fin)
            self._seen = b""

    def _add_payload(self, data: bytes, start: int, items: list[Item]) -> int:
        """Add to the frame under way what came of it; return where that ends."""
        message = self._message
        assert message is not None
        stop = start + min(self._missing, len(data) - start)
        while message.has_room:
            if start == stop:
                return stop
            count = message.copy(data, start, stop, self._key)
            self._add_filled(count, items)
            start += count
            if not self._missing:
                return stop
        chunk = _masking.masked(data, start, stop, self._key)
        self._progress(stop - start)
        if self._raw is not None:
            self._raw.write(chunk)
            if self._missing:
                return stop
            raw, self._raw = self._raw.getvalue(), None
            chunk = self._transformed(self._opcode, raw, self._fin, self._reserved)
            self._length = len(chunk)
        ends = self._fin and not self._missing
        message.add(chunk, ends)
        if self._trace is not None:
            self._trace_payload(chunk)
        if ends:
            self._complete(items)
        return stop

    def _transformed(
        self, opcode: int, payload: bytes, fin: bool, reserved: int
    ) -> bytes:
        """Return what the extensions make of a frame's payload."""
        size = 0 if self._message is None else self._message.size
        left = None
        if self._max_size is not None and not opcode & 0x08:
            left = self._max_size - size
        frame = Frame(
            opcode,
            payload,
            fin,
            reserved & 0x40 != 0,
            reserved & 0x20 != 0,
            reserved & 0x10 != 0,
        )
        for extension in reversed(self._extensions):
            frame = extension.decode(frame, max_size=left)
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            # Section 5.2
            raise ProtocolError("reserved bits are set that no extension uses")
        if left is not None and len(frame.data) > left:
            # One that doesn't look at max_size, or leaves the frame as it is.
            raise PayloadTooBig(
                f"message of {size + len(frame.data)} bytes or more exceeds "
                f"max_size, {self._max_size} bytes",
                CloseCode.MESSAGE_TOO_BIG,
            )
        return bytes(frame.data)

    def _complete(self, items: list[Item]) -> None:
        """Hand over the message whose last frame is complete."""
        message, self._message = self._message, None
        assert message is not None
        if not message.discarded:
            items.append(message.take())

    def _add_control(
        self, data: bytes, start: int, first: int, length: int, items: list[Item]
    ) -> int:
        """Add a control frame, which is complete; return where it ends."""
        key = 0
        if self._masked:
            key = _masking.key_at(data, start)
            start += 4
        stop = start + length
        payload = _masking.masked(data, start, stop, key)
        opcode = first & 0x0F
        if self._extensions and (self.deflate is None or first & 0x70):
            payload = self._transformed(opcode, payload, True, first & 0x70)
        if self._trace is not None:
            self._trace(opcode, payload, len(payload), True)
        items.append((opcode, payload))
        return stop

    # -- The message under construction, for those who read it piece by piece --

    @property
    def in_message(self) -> bool:
        """Whether a message has begun and isn't complete."""
        return self._message is not None

    @property
    def partial_size(self) -> int:
        """How many bytes of the message under construction wait to be taken."""
        message = self._message
        return 0 if message is None or message.discarded else message.waiting

    def take_partial(self) -> str | bytes:
        """Take what came of the message under construction; may be empty.

        What is left of it is the item that feed() returns when it completes.
        """
        assert self._message is not None
        return self._message.take()

    def discard_partial(self) -> None:
        """Forget the message under construction, if any, and what is still to come."""
        if self._message is not None:
            self._message.discard()

    def _expected(self) -> str:
        """Say what the bytes that are left are the beginning of."""
        if len(self._left) == 1:
            return "2 bytes, at least, of a frame's header"
        first, second = self._left[:2]
        length = second & 0x7F
        size = 2 + {126: 2, 127: 8}.get(length, 0) + (4 if self._masked else 0)
        if first & 0x08:
            return f"{size + length} bytes of a {OPCODE_NAMES[first & 0x0F]} frame"
        return f"{size} bytes of a frame's header"

    def where(self) -> str:
        """Say where in a frame the stream stands, for the error when it ends."""
        if self._missing:
            return (
                f"after {self._length - self._missing} of the {self._length} bytes "
                f"of a frame's payload"
            )
        if self._left:
            return f"after {len(self._left)} of the {self._expected()}"
        if self._message is not None:
            return "between two fragments of a message"
        return "between two messages"
