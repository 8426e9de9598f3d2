"""Bytes to messages and back: the hot path (RFC 6455, section 5).

:class:`Decoder` parses everything it is given in one call. A whole message in
one frame, by far the most common, becomes a str or bytes at once; only the
rest goes through the message under construction. The state is two small
records, the frame whose payload is still incomplete and the message whose
fragments are, so that feeding byte by byte costs no more than feeding all at
once: nothing is ever scanned twice.
"""

from __future__ import annotations

import codecs
import functools
import os
from collections.abc import Callable, Sequence
from typing import Final

from ._deflate import PerMessageDeflate
from ._errors import PayloadTooBig, ProtocolError
from ._extensions import Extension, Frame
from ._frames import CLOSE, CONT, MAX_CONTROL_PAYLOAD, OPCODE_NAMES, TEXT, CloseCode
from ._outbox import Encoded

# Fragments are joined as they come, so what their number can cost is time:
# this many of one message may be too short to be worth a frame of their own.
SHORT_FRAGMENT: Final = 16
MAX_SHORT_FRAGMENTS: Final = 4096

# A payload of at least this size isn't copied behind its header.
SPLIT_SIZE: Final = 16 * 1024

# The trace of a frame that comes in pieces shows this many bytes of it.
TRACED: Final = 100

Control = tuple[int, bytes]
Item = str | bytes | Control | ProtocolError
Trace = Callable[[int, bytes, int, bool], None]

# ---------------------------------------------------------------------------
# Masking (RFC 6455, section 5.3)
# ---------------------------------------------------------------------------

_KEYS_AT_ONCE: Final = 1024
_keys: list[bytes] = []


def _new_key() -> bytes:
    # RFC 6455, section 5.3: "derived from a strong source of entropy". One
    # system call a thousand keys instead of one a key.
    try:
        return _keys.pop()
    except IndexError:
        pool = os.urandom(4 * _KEYS_AT_ONCE)
        _keys.extend(pool[i : i + 4] for i in range(4, len(pool), 4))
        return pool[:4]


if hasattr(os, "register_at_fork"):  # pragma: no branch - POSIX alone has fork
    # A child must not mask with the keys that its parent will use.
    os.register_at_fork(after_in_child=_keys.clear)


def apply_mask(data: bytes, key: bytes) -> bytes:
    """XOR ``data`` with the four bytes of ``key``, over and over."""
    # The two fastest ways that pure Python has: one XOR of two long integers
    # for short data, a table look-up for each quarter of long data.
    size = len(data)
    if size < _LONG_DATA:
        mask = (key * (size // 4 + 1))[:size]
        number = int.from_bytes(data, "little") ^ int.from_bytes(mask, "little")
        return number.to_bytes(size, "little")
    masked = bytearray(size)
    for i in range(4):
        masked[i::4] = data[i::4].translate(_xor_table(key[i]))
    return bytes(masked)


_LONG_DATA: Final = 1024


@functools.cache
def _xor_table(byte: int) -> bytes:
    return bytes(byte ^ other for other in range(256))


# ---------------------------------------------------------------------------
# Messages to bytes
# ---------------------------------------------------------------------------


def encode(
    opcode: int, payload: bytes, fin: bool, masked: bool, reserved: int = 0
) -> Encoded:
    """Build a frame; ``masked`` is what a client must do and a server must not.

    ``reserved`` are the bits that extensions use, as in the first byte.
    """
    size = len(payload)
    first = opcode | reserved | 0x80 if fin else opcode | reserved
    second = 0x80 if masked else 0
    if size < 126:
        header = bytes((first, second | size))
    elif size < 0x10000:
        header = bytes((first, second | 126, size >> 8, size & 0xFF))
    else:
        header = bytes((first, second | 127)) + size.to_bytes(8, "big")
    if masked:
        key = _new_key()
        header += key
        payload = apply_mask(payload, key)
    if size < SPLIT_SIZE:
        return header + payload
    return header, payload


# ---------------------------------------------------------------------------
# Bytes to messages
# ---------------------------------------------------------------------------


def _invalid_utf8(exc: UnicodeDecodeError, offset: int) -> ProtocolError:
    # RFC 6455, section 8.1
    error = ProtocolError(
        f"invalid UTF-8 in text: {exc.reason} at position {offset + exc.start}",
        CloseCode.INVALID_DATA,
    )
    error.__cause__ = exc
    return error


class Decoder:
    """Turns the bytes of one direction of a connection into messages.

    ``masked`` says whether frames must be masked, as a client's must, or must
    not, as a server's (section 5.1). ``max_size`` limits a message, in bytes;
    None doesn't. ``trace`` is called with each frame: its opcode, the beginning
    of its payload, the payload's size, FIN.
    """

    __slots__ = (
        "_data",
        "_discarding",
        "_extensions",
        "_fin",
        "_key",
        "_left",
        "_length",
        "_masked",
        "_max_size",
        "_message",
        "_missing",
        "_opcode",
        "_raw",
        "_reserved",
        "_seen",
        "_short_fragments",
        "_size",
        "_trace",
        "_transform",
        "_utf8",
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
        self._trace = trace
        self._extensions: Sequence[Extension] = ()
        self.deflate: PerMessageDeflate | None = None
        self._left = b""  # the beginning of a header or of a control frame
        # The frame whose payload is incomplete.
        self._missing = 0  # bytes of it that haven't come
        self._length = 0
        self._opcode = 0
        self._fin = False
        self._key = b""  # rotated so that it starts at the next byte
        self._seen = b""  # the beginning of its payload, for the trace
        self._transform = False  # it is for the extensions, once complete:
        self._reserved = 0  # with these bits of its first byte
        self._raw = bytearray()  # and this much of its payload
        # The message whose frames are incomplete.
        self._message = 0  # TEXT or BINARY; 0 between messages
        self._data = bytearray()  # what came of it and wasn't taken
        self._size = 0  # what its frames hold so far
        self._short_fragments = 0
        self._discarding = False
        self._utf8: codecs.IncrementalDecoder | None = None

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
            self._check_header(first, second)
            start = position + 2
            length = second & 0x7F
            if length >= 126:
                start += 2 if length == 126 else 8
                if end < start:
                    break
                length = int.from_bytes(data[position + 2 : start], "big")
                if length >> 63:
                    raise ProtocolError(
                        "frame length: expected less than 2**63; the top bit is set"
                    )
                if length < 126 or (length < 0x10000 and start - position == 10):
                    raise ProtocolError(
                        f"frame length: expected the shortest encoding; "
                        f"got {start - position - 2} bytes for {length}"
                    )
            if first & 0x08:
                stop = start + length + (4 if masked else 0)
                if end < stop:
                    break
                if masked:
                    key = data[start : start + 4]
                    payload = apply_mask(data[start + 4 : stop], key)
                else:
                    payload = data[start:stop]
                self._add_control(first, payload, items)
                if first & 0x0F == CLOSE:
                    return
                position = stop
                continue
            # Before the payload is waited for, so that a message too big is
            # refused by its header.
            transform = self._is_for_extensions(first)
            self._check_data(first, length, transform)
            if masked:
                if end < start + 4:
                    break
                key = data[start : start + 4]
                start += 4
            stop = start + length
            if first & 0x80 and first & 0x0F and stop <= end and not transform:
                # A whole message in one frame.
                payload = data[start:stop]
                if masked:
                    payload = apply_mask(payload, key)
                if self._trace is not None:
                    self._trace(first & 0x0F, payload, length, True)
                if first & 0x0F == TEXT:
                    try:
                        items.append(payload.decode())
                    except UnicodeDecodeError as exc:
                        raise _invalid_utf8(exc, 0) from exc
                else:
                    items.append(payload)
                position = stop
                continue
            if masked:
                self._key = key
            self._begin(first, length, transform)
            position = self._add_payload(data, start, items)
            if self._missing:
                return
        self._left = data[position:]

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
        if not self._extensions:
            return False
        if self.deflate is None or first & 0x70:
            return True
        return first & 0x0F == CONT and self.deflate.decoding

    def _check_data(self, first: int, length: int, transform: bool) -> None:
        """Check a data frame against the message it belongs to (section 5.4)."""
        if first & 0x0F:
            if self._message:
                raise ProtocolError(
                    "new message in the middle of a fragmented one; expected a "
                    "continuation frame"
                )
            size = length
        else:
            if not self._message:
                raise ProtocolError("continuation frame without a message to continue")
            size = self._size + length
        # What an extension made can be larger than what it is of: by an eighth
        # and a bit where zlib compresses with little memory, in vain.
        slack = size // 4 + 64 if transform else 0
        if self._max_size is not None and size > self._max_size + slack:
            raise PayloadTooBig(
                f"message of {size} bytes or more exceeds max_size, "
                f"{self._max_size} bytes",
                CloseCode.MESSAGE_TOO_BIG,
            )
        if self._short_fragments >= MAX_SHORT_FRAGMENTS and length < SHORT_FRAGMENT:
            raise PayloadTooBig(
                f"message with more than {MAX_SHORT_FRAGMENTS} fragments of less "
                f"than {SHORT_FRAGMENT} bytes",
                CloseCode.MESSAGE_TOO_BIG,
            )

    def _begin(self, first: int, length: int, transform: bool) -> None:
        """Begin a frame that is incomplete, or a fragment."""
        if first & 0x0F:
            self._message = first & 0x0F
            self._size = 0
            self._short_fragments = 0
            if self._message == TEXT:
                self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._opcode = first & 0x0F
        self._fin = first & 0x80 != 0
        self._transform = transform
        self._reserved = first & 0x70
        if length < SHORT_FRAGMENT:
            self._short_fragments += 1
        self._length = self._missing = length

    def _add_payload(self, data: bytes, start: int, items: list[Item]) -> int:
        """Add to the frame under way what came of it; return where that ends."""
        chunk = data[start : start + self._missing]
        size = len(chunk)
        if self._masked:
            chunk = apply_mask(chunk, self._key)
            turn = size % 4
            self._key = self._key[turn:] + self._key[:turn]
        self._missing -= size
        if self._transform:
            self._raw += chunk
            if self._missing:
                return start + size
            chunk = self._transformed(
                self._opcode, bytes(self._raw), self._fin, self._reserved
            )
            self._raw = bytearray()
            self._length = len(chunk)
        final = not self._missing and self._fin
        if self._utf8 is not None:
            # What is wrong is known as soon as it is here, not when the
            # message is complete (Autobahn's cases 6.4.*).
            pending = len(self._utf8.getstate()[0])
            try:
                self._utf8.decode(chunk, final)
            except UnicodeDecodeError as exc:
                raise _invalid_utf8(exc, self._size - pending) from exc
        self._size += len(chunk)
        if not self._discarding:
            self._data += chunk
        if self._trace is not None:
            self._seen += chunk[: TRACED - len(self._seen)]
            if not self._missing:
                self._trace(self._opcode, self._seen, self._length, self._fin)
                self._seen = b""
        if final:
            self._complete(items)
        return start + size

    def _transformed(
        self, opcode: int, payload: bytes, fin: bool, reserved: int
    ) -> bytes:
        """Return what the extensions make of a frame's payload."""
        left = None if self._max_size is None else self._max_size - self._size
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
        if left is not None and len(frame.data) > left and not opcode & 0x08:
            # One that doesn't look at max_size, or leaves the frame as it is.
            raise PayloadTooBig(
                f"message of {self._size + len(frame.data)} bytes or more exceeds "
                f"max_size, {self._max_size} bytes",
                CloseCode.MESSAGE_TOO_BIG,
            )
        return frame.data

    def _complete(self, items: list[Item]) -> None:
        """Hand over the message whose last frame is complete."""
        if self._discarding:
            self._discarding = False
        elif self._message == TEXT:
            items.append(self._data.decode())
        else:
            items.append(bytes(self._data))
        self._message = 0
        self._data = bytearray()
        self._utf8 = None
        self._short_fragments = 0

    def _add_control(self, first: int, payload: bytes, items: list[Item]) -> None:
        opcode = first & 0x0F
        if self._extensions and (self.deflate is None or first & 0x70):
            payload = self._transformed(opcode, payload, True, first & 0x70)
        if self._trace is not None:
            self._trace(opcode, payload, len(payload), True)
        items.append((opcode, payload))

    # -- The message under construction, for those who read it piece by piece --

    @property
    def in_message(self) -> bool:
        """Whether a message has begun and isn't complete."""
        return self._message != 0

    @property
    def partial_size(self) -> int:
        """How many bytes of the message under construction wait to be taken."""
        return len(self._data)

    def take_partial(self) -> str | bytes:
        """Take what came of the message under construction; may be empty.

        What is left of it is the item that feed() returns when it completes.
        """
        data = self._data
        if self._message != TEXT:
            self._data = bytearray()
            return bytes(data)
        assert self._utf8 is not None
        # A character whose bytes haven't all come stays.
        keep = len(data) - len(self._utf8.getstate()[0])
        self._data = data[keep:]
        return data[:keep].decode()

    def discard_partial(self) -> None:
        """Forget the message under construction, and what is still to come of it."""
        self._discarding = self.in_message
        self._data = bytearray()

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
        if self._message:
            return "between two fragments of a message"
        return "between two messages"
