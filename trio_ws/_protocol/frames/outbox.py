# cython: annotation_typing=False, nonecheck=True
"""What waits for the socket, in the order in which it goes out.

First the frame under way, of which the socket has taken a part: nothing may
come between its halves, or the stream is torn. Then control frames, so that a
ping or a pong never waits behind megabytes of data (RFC 6455, section 5.4:
they may stand between fragments). Then data, with an orderly close frame as
the last of it. Nothing here is ever taken back but by :meth:`Outbox.drop` and, once
the stream is broken, :meth:`Outbox.discard`.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from . import masking
from .memory import PIECE_SIZE

# Answers to pings that may wait.
MAX_PONGS = 16

# A frame is one buffer; or two, header and payload, where copying a large payload
# behind its header would cost more than a second buffer does; or header, the first
# piece, the payload that it is of, and the key for the rest.
Encoded = bytes | tuple[bytes, bytes] | tuple[bytes, bytes, bytes, int]

# Shared where nothing waits, and never added to: an empty deque of its own would
# take 760 bytes of each connection, and most frames are written past the outbox.
_NOTHING: Final[deque[Encoded]] = deque()


def frame_size(frame: Encoded) -> int:
    """Return the size of a frame on the wire, in bytes."""
    if isinstance(frame, bytes):
        return len(frame)
    return len(frame[0]) + len(frame[1] if len(frame) == 2 else frame[2])


class Outbox:
    """Frames that the socket hasn't taken yet."""

    __slots__ = (
        "_control",
        "_data",
        "_data_frame",
        "_pongs",
        "_rest",
        "_under_way",
        "batch_limit",
        "bytes_written",
        "size",
    )

    def __init__(self) -> None:
        self._under_way: list[memoryview] = []
        # A payload of that frame, from where on it is still to be masked, its key.
        self._rest: tuple[bytes, int, int] | None = None
        self._data_frame: Encoded | None = None  # that under way, unless it is control
        self._control: list[bytes] = []
        self._pongs: list[bytes] = []
        self._data: deque[Encoded] = _NOTHING
        self.size = 0  # bytes that wait
        self.bytes_written = 0  # bytes that the socket took, ever
        # Above 0, a flusher is about to write, and up to so many bytes may wait for it.
        self.batch_limit = 0

    def push(self, frame: Encoded) -> None:
        """Queue a data frame, or the close frame that ends the data."""
        if not self._data:
            self._data = deque()
        self._data.append(frame)
        self.size += frame_size(frame)

    def push_control(self, frame: bytes) -> None:
        """Queue a control frame ahead of all data."""
        self._control.append(frame)
        self.size += len(frame)

    def put_pong(self, frame: bytes) -> None:
        """Queue the answer to a ping, in place of the oldest of too many.

        RFC 6455, section 5.5.3: of several pings, answering only the most
        recent one is enough. So a flood of pings costs little memory. A few
        are answered one by one, which some peers count on.
        """
        if len(self._pongs) == MAX_PONGS:
            self.size -= len(self._pongs.pop(0))
        self._pongs.append(frame)
        self.size += len(frame)

    @property
    def pongs_full(self) -> bool:
        """Whether further pongs take the place of those that wait."""
        return len(self._pongs) == MAX_PONGS

    def waits(self, frame: bytes) -> bool:
        """Tell whether no byte of this control frame has gone out yet."""
        if any(frame is other for other in self._control):
            return True
        # A close frame in good order is the last of the data.
        return bool(self._data) and self._data[-1] is frame

    def holds_data(self, close_frame: bytes | None) -> bool:
        """Tell whether data waits, besides the close frame that ends it."""
        if self._data_frame is not None and self._data_frame is not close_frame:
            return True
        return len(self._data) > 1 or (
            len(self._data) == 1 and self._data[0] is not close_frame
        )

    def discard(self) -> None:
        """Forget all, also the frame under way: nothing goes out any more."""
        self._under_way.clear()
        self._data_frame = self._rest = None
        self.drop()

    def drop(self) -> None:
        """Forget all but the frame under way."""
        self._control.clear()
        self._pongs.clear()
        self.drop_data()

    def drop_data(self) -> None:
        """Forget all data but that of the frame under way."""
        self._data = _NOTHING
        self.size = sum(map(len, self._under_way))
        self.size += sum(map(len, self._control)) + sum(map(len, self._pongs))
        if self._rest is not None:
            self.size += len(self._rest[0]) - self._rest[1]

    def next_buffers(self, limit: int) -> list[bytes | memoryview]:
        """Return the next buffers to write, at least one frame where one waits.

        More are added while together they stay below ``limit`` bytes. Nothing
        is removed: tell :meth:`consume` how many bytes were taken.
        """
        buffers: list[bytes | memoryview] = []
        total = 0
        for part in self._under_way:
            buffers.append(part)
            total += len(part)
        if self._rest is not None:
            return buffers
        for control in self._control:
            if buffers and total + len(control) > limit:
                return buffers
            buffers.append(control)
            total += len(control)
        buffers.extend(self._pongs)
        for frame in self._data:
            size = frame_size(frame)
            if buffers and total + size > limit:
                break
            if isinstance(frame, bytes):
                buffers.append(frame)
            else:
                buffers += frame[:2]
                if len(frame) > 2:
                    break
            total += size
        return buffers

    def consume(self, count: int) -> None:
        """Forget ``count`` bytes that next_buffers() gave and the socket took."""
        self.bytes_written += count
        self.size -= count
        if not self.size:  # of many small frames, one by one would cost more
            self.discard()
            return
        parts = self._under_way
        while count:
            if not parts:
                parts += map(memoryview, self._next())
            if count < len(parts[0]):
                parts[0] = parts[0][count:]
                return
            count -= len(parts.pop(0))
            if not parts and self._rest is not None:
                self._mask_piece()
        if not parts:
            self._data_frame = None

    def _mask_piece(self) -> None:
        assert self._rest is not None
        payload, start, key = self._rest
        stop = min(start + PIECE_SIZE, len(payload))
        # The key begins anew with each piece, since four divides their size.
        self._under_way.append(memoryview(masking.masked(payload, start, stop, key)))
        self._rest = (payload, stop, key) if stop < len(payload) else None

    def _next(self) -> tuple[bytes, ...]:
        self._data_frame = None
        if self._control:
            return (self._control.pop(0),)
        if self._pongs:
            return (self._pongs.pop(0),)
        self._data_frame = frame = self._data.popleft()
        if isinstance(frame, bytes):
            return (frame,)
        if len(frame) > 2:
            self._rest = frame[2], len(frame[1]), frame[3]
        return frame[:2]
