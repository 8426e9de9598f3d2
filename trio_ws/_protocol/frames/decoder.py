# cython: annotation_typing=False, nonecheck=True
"""Bytes to messages: the hot path (RFC 6455, section 5).

:class:`Decoder` parses everything it is given in one call. A whole message in
one frame, by far the most common, becomes a str or bytes at once; only the
rest goes through a :class:`PartialMessage`. That, and the frame whose payload is
still incomplete, are the state, so that feeding byte by byte costs no more than
feeding all at once: nothing is ever scanned twice.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Final

from ..closing import CloseCode
from ..errors import PayloadTooBig, ProtocolError
from ..extensions.base import Extension, Frame, decode_frame
from ..extensions.deflate import PerMessageDeflate
from ..limits import DEFAULT_LIMITS, setting
from ..opcodes import CLOSE, CONT, SHORT_FRAGMENT, TEXT
from . import masking
from .header import MAX_LENGTH, check_header, expected, extended_length
from .memory import keep_memory
from .partial import PartialMessage, decoded, invalid_utf8
from .text import MESSAGE_OVERHEAD

# The trace of a frame that comes in pieces shows this many bytes of it.
TRACED: Final = 100

# A payload of at least so much is received where it will stay.
_LARGE: Final = 32 * 1024

Control = tuple[int, bytes]
Item = str | bytes | Control | Exception
Trace = Callable[[int, bytes, int, bool], None]


class Decoder:
    """Turns the bytes of one direction of a connection into messages.

    ``masked`` says whether frames must be masked, as a client's must, or must
    not, as a server's (section 5.1). ``max_size`` limits a message, in bytes;
    None doesn't. ``trace`` is called with each frame: its opcode, the beginning
    of its payload, the payload's size, FIN.
    """

    __slots__ = (
        "_at",
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
        "frame_limit",
        "max_short_fragments",
        "room",
        "stopped",
    )

    def __init__(
        self, *, masked: bool, max_size: int | None, trace: Trace | None = None
    ) -> None:
        self._masked = masked
        self._max_size = max_size
        self._limit = MAX_LENGTH if max_size is None else min(max_size, MAX_LENGTH)
        self._trace = trace
        self.max_short_fragments = DEFAULT_LIMITS.short_fragments
        self._extensions: Sequence[Extension] = ()
        self.deflate: PerMessageDeflate | None = None
        # What is left to be parsed, from _at on: the beginning of a header or of a
        # control frame; or more, where parsing has stopped before the end.
        self._left = b""
        self._at = 0
        self.stopped = False
        # It stops after so many frames, or once messages took more than so many bytes.
        self.frame_limit = MAX_LENGTH
        self.room = MAX_LENGTH
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
        if len(extensions) == 1 and type(extensions[0]) is PerMessageDeflate:
            self.deflate = extensions[0]

    def feed(self, data: bytes) -> list[Item]:
        """Parse ``data`` and return what it completed, in order.

        A message is a str or bytes, a control frame an (opcode, payload) pair.
        A close frame or a ProtocolError is the last item: nothing after it is
        looked at, and nothing more may be fed.

        Parsing stops, where ``stopped`` is true then, after ``frame_limit`` frames or
        once messages have taken up ``room``: go_on() parses what is left.
        """
        if type(data) is not bytes:  # a stream of the user's may have others
            data = bytes(data)
        if self._left:
            data = self._left[self._at :] + data
            self._left = b""
        return self._feed(data, 0)

    def go_on(self) -> list[Item]:
        """Parse more of what was fed, as feed() does."""
        data, self._left = self._left, b""
        return self._feed(data, self._at)

    def _feed(self, data: bytes, position: int) -> list[Item]:
        items: list[Item] = []
        self.stopped = False
        try:
            if self._missing:
                position = self._add_payload(data, position, items)
            if not self._missing:
                self._parse(data, position, items)
        except Exception as exc:  # noqa: BLE001 - the last item, behind what came before
            items.append(exc)
        return items

    def _parse(self, data: bytes, position: int, items: list[Item]) -> None:
        """Parse the frames that begin at ``position`` of ``data``."""
        #  0                   1                   2                   3
        #  F R R R  opcode(4)  M  length(7)  extended length (0, 16 or 64)
        #  masking key (0 or 32)  payload
        masked = self._masked
        end = len(data)
        frames = self.frame_limit
        while end - position >= 2:
            if not frames or self.room < 0:
                self.stopped = True
                break
            frames -= 1
            first = data[position]
            second = data[position + 1]
            # Data frames without reserved bits need no closer look.
            if first & 0x7C or first & 0x03 == 0x03 or (second >= 0x80) != masked:
                check_header(first, second, masked, bool(self._extensions))
            start = position + 2
            length = second & 0x7F
            if length >= 126:
                start += 2 if length == 126 else 8
                if end < start:
                    break
                length = extended_length(data, position + 2, start)
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
            if self._message is not None or not first & 0x0F or length > self._limit:
                self._check_data(first, length, transform)
            if masked:
                if end - start < 4:
                    break
                self._key = masking.key_at(data, start)
                start += 4
            whole = first & 0x80 != 0 and first & 0x0F != 0 and length <= end - start
            if whole and transform and self.deflate is not None and not first & 0x30:
                position = start + length
                self._add_deflated(data, start, position, first, items)
                continue
            if transform or not whole:
                self._begin(first, length, transform)
                position = self._add_payload(data, start, items)
                if self._missing:
                    return
                continue
            # A whole message in one frame.
            position = start + length
            self.room -= length + MESSAGE_OVERHEAD
            if self._trace is not None:
                payload = masking.masked(data, start, position, self._key)
                self._trace(first & 0x0F, payload, length, True)
            if first & 0x0F != TEXT:
                items.append(masking.masked(data, start, position, self._key))
                continue
            try:
                if masked:
                    items.append(
                        masking.masked(data, start, position, self._key).decode()
                    )
                else:  # compiled, this decodes without copying first
                    items.append(data[start:position].decode())
            except UnicodeDecodeError as exc:
                raise invalid_utf8(exc, 0) from exc
        if position < end:
            # Of what is parsed soon no copy is made.
            self._at = position if self.stopped else 0
            self._left = data if self.stopped else data[position:]

    def _add_deflated(
        self, data: bytes, start: int, stop: int, first: int, items: list[Item]
    ) -> None:
        """Add a whole message that is compressed, which is all that was done to it."""
        assert self.deflate is not None
        payload = masking.masked(data, start, stop, self._key)
        payload = self.deflate.inflate_message(payload, self._max_size)
        self.room -= len(payload) + MESSAGE_OVERHEAD
        if self._trace is not None:
            self._trace(first & 0x0F, payload, len(payload), True)
        items.append(decoded(payload) if first & 0x0F == TEXT else payload)

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
                message.short_fragments >= self.max_short_fragments
                and length < SHORT_FRAGMENT
            ):
                raise PayloadTooBig(
                    f"message with more than {self.max_short_fragments} fragments of "
                    f"less than {SHORT_FRAGMENT} bytes {setting('short_fragments')}",
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
            keep_memory(length.bit_length())
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
        """Count what came of the frame under way, and rotate its key."""
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
        chunk = masking.masked(data, start, stop, self._key)
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
        bits = [reserved & bit != 0 for bit in (0x40, 0x20, 0x10)]
        return decode_frame(
            self._extensions,
            Frame(opcode, payload, fin, *bits),
            max_size=None if opcode & 0x08 else self._max_size,
            before=0 if self._message is None else self._message.size,
        )

    def _complete(self, items: list[Item]) -> None:
        """Hand over the message whose last frame is complete."""
        message, self._message = self._message, None
        assert message is not None
        if not message.discarded:
            self.room -= message.size + MESSAGE_OVERHEAD
            items.append(message.finish())

    def _add_control(
        self, data: bytes, start: int, first: int, length: int, items: list[Item]
    ) -> int:
        """Add a control frame, which is complete; return where it ends."""
        key = 0
        if self._masked:
            key = masking.key_at(data, start)
            start += 4
        stop = start + length
        payload = masking.masked(data, start, stop, key)
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

    def where(self) -> str:
        """Say where in a frame the stream stands, for the error when it ends."""
        if self._missing:
            return (
                f"after {self._length - self._missing} of the {self._length} bytes "
                f"of a frame's payload"
            )
        if self.stopped:
            return f"with {len(self._left) - self._at} bytes more than were looked at"
        if self._left:
            return (
                f"after {len(self._left)} of the {expected(self._left, self._masked)}"
            )
        if self._message is not None:
            return "between two fragments of a message"
        return "between two messages"
