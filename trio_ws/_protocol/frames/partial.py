# cython: annotation_typing=False, nonecheck=True
"""A message that is under construction: its bytes come in more than one piece."""

from __future__ import annotations

import codecs
import io
from typing import Final

from ..closing import CloseCode
from ..errors import ProtocolError
from . import masking, text
from .masking import IN_PLACE

# Room is made for so much of a large payload, since the peer alone says that it will
# come, and given out a bit at a time.
_LARGEST_ROOM: Final = 16 * 1024 * 1024
_AT_ONCE: Final = 256 * 1024

# Parts that are shorter are joined as they come, up to so much at a time.
_SMALL_PART: Final = 1024
_JOINED: Final = 64 * 1024


def invalid_utf8(exc: UnicodeDecodeError, offset: int) -> ProtocolError:
    # RFC 6455, section 8.1
    error = ProtocolError(
        f"invalid UTF-8 in text: {exc.reason} at position {offset + exc.start}",
        CloseCode.INVALID_DATA,
    )
    error.__cause__ = exc
    return error


def decoded(payload: bytes) -> str | text.WideText:
    """Decode text, but for what is wide; raise ProtocolError if it isn't UTF-8."""
    try:
        message = payload.decode()
    except UnicodeDecodeError as exc:
        raise invalid_utf8(exc, 0) from exc
    # Of ASCII, which has as many characters as bytes, none is wide.
    if len(message) < len(payload) and text.is_wide(message, len(payload)):
        return text.WideText(payload)
    return message


class PartialMessage:
    """What came of a message, in order, and wasn't taken yet.

    A piece is added, or it is put into *room*: memory that becomes part of the message
    as it is, so that a large payload is never copied.
    """

    __slots__ = (
        "_buffer",
        "_filled",
        "_parts",
        "_pending",
        "_room",
        "_small_parts",
        "discarded",
        "is_text",
        "short_fragments",
        "size",
        "waiting",
    )

    def __init__(self, is_text: bool) -> None:
        self.is_text = is_text
        self.discarded = False  # nobody wants it, nor what is still to come of it
        self.size = 0  # of what its frames held so far, in bytes
        self.short_fragments = 0
        self.waiting = 0  # how much of it wasn't taken, in bytes:
        # Of text, those that are wide are bytes.
        self._parts: list[str | bytes] = []
        self._small_parts: io.StringIO | io.BytesIO | None = None  # behind those
        self._pending = b""  # behind those, the beginning of a character
        # Memory that is given up without a copy, it as what can be written to, and
        # how much of it is filled.
        self._buffer: io.BytesIO | None = None
        self._room: memoryview | None = None
        self._filled = 0

    def __del__(self) -> None:
        # The garbage collector may come to the buffer before its view, and complain.
        self._leave_room()

    # -- Piece by piece ------------------------------------------------------

    def add(self, piece: bytes, last: bool) -> None:
        """Add a piece. Raises ProtocolError for text that isn't UTF-8.

        Text is decoded as it comes: what is wrong with it is known as soon as it is
        here, not when the message is complete (Autobahn's cases 6.4.*).
        """
        part: str | bytes = piece
        self.waiting += len(piece)
        if self.is_text:
            before = len(self._pending)
            if before:
                piece = self._pending + piece
            try:
                part, used = codecs.utf_8_decode(piece, "strict", last)
            except UnicodeDecodeError as exc:
                raise invalid_utf8(exc, self.size - before) from exc
            self._pending = piece[used:]
            self.size -= before
        self.size += len(piece)
        if self.discarded:
            return
        if len(part) >= _SMALL_PART:
            self._join_small_parts()
            if type(part) is str and text.is_wide(part, used):
                part = piece[:used]
            self._parts.append(part)
        else:
            if self._small_parts is None:
                self._small_parts = (
                    io.StringIO(newline="") if self.is_text else io.BytesIO()
                )
            self._small_parts.write(part)  # type: ignore[arg-type]  # of its kind
            if self._small_parts.tell() >= _JOINED:
                self._join_small_parts()

    def _join_small_parts(self) -> None:
        if self._small_parts is None:
            return
        part = self._small_parts.getvalue()
        self._small_parts = None
        if type(part) is str and not part.isascii():
            encoded = part.encode()
            if text.is_wide(part, len(encoded)):
                part = encoded
        self._parts.append(part)

    # -- Into room -----------------------------------------------------------

    def make_room(self, size: int) -> None:
        """Make room, if that's of use, for the first of the bytes that are to come."""
        if not IN_PLACE:
            return
        try:
            self._buffer = io.BytesIO(masking.blank(min(size, _LARGEST_ROOM)))
        except MemoryError:  # pragma: no cover - takes a limit of the process
            return  # what comes may be less than was promised
        self._room = self._buffer.getbuffer()
        self._filled = 0

    def _leave_room(self) -> None:
        if self._room is not None:
            self._room.release()
        self._buffer = self._room = None

    @property
    def has_room(self) -> bool:
        """Whether what comes is to be put into room, and not added."""
        return self._room is not None

    def room(self) -> memoryview | None:
        """Return where the next bytes can be put.

        Release it before they count as filled(): a message in whose memory somebody
        may write is copied.
        """
        if self._room is None:
            return None
        return self._room[self._filled : self._filled + _AT_ONCE]

    def unmask(self, count: int, key: int) -> None:
        """Unmask so many bytes that were put there."""
        assert self._room is not None
        if not 0 < count <= len(self._room) - self._filled:
            raise ValueError("count: expected what fits into the space")
        masking.mask(self._room, self._filled, self._filled + count, key)

    def copy(self, data: bytes, start: int, stop: int, key: int) -> int:
        """Put masked data there, unmasked, as much as there is room for; return it."""
        assert self._room is not None
        size = min(stop - start, len(self._room) - self._filled)
        masking.copy(self._room, self._filled, data, start, start + size, key)
        return size

    def peek(self, count: int) -> bytes:
        """Return the first bytes of what was put there."""
        assert self._room is not None
        return bytes(self._room[self._filled : self._filled + count])

    def filled(self, count: int) -> None:
        """Add so many bytes that were put there."""
        assert self._room is not None
        assert self._buffer is not None
        self._filled += count
        self.size += count
        self.waiting += count
        if self._filled == len(self._room):
            buffer = self._buffer
            self._leave_room()
            self._join_small_parts()
            self._parts.append(buffer.getvalue())

    # -- What came -----------------------------------------------------------

    def take(self) -> str | bytes:
        """Take what came and wasn't taken; it may be empty."""
        self._join_small_parts()
        parts, self._parts = self._parts, []
        self.waiting = len(self._pending)
        if self._room is not None:
            # What comes now is taken as it comes.
            parts.append(bytes(self._room[: self._filled]))
            self._leave_room()
        if self.is_text:
            return "".join(
                part if type(part) is str else part.decode()  # type: ignore[union-attr]
                for part in parts
            )
        return b"".join(parts)  # type: ignore[arg-type]  # of its kind

    def finish(self) -> str | bytes:
        """Take the message, which is complete; text that is wide as WideText."""
        if self.is_text and any(type(part) is bytes for part in self._parts):
            self._join_small_parts()
            return text.WideText(
                b"".join(
                    part if type(part) is bytes else part.encode()  # type: ignore[union-attr]
                    for part in self._parts
                )
            )
        return self.take()

    def discard(self) -> None:
        """Forget what came, and what is still to come."""
        self.discarded = True
        self._parts, self._small_parts = [], None
        self._leave_room()
