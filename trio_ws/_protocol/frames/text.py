"""What messages take in memory; text that would take much more than its UTF-8.

CPython keeps a str in 1, 2 or 4 bytes a character, by its widest one: a single emoji
makes four bytes of each letter. Such a text waits as what came, and is decoded again
when somebody takes it. The compiled code has memory_size() in ``text.pxd``.
"""

from __future__ import annotations

import sys

# Shorter text isn't worth it.
_SHORT = 1024

# What a str that isn't ASCII takes besides its characters, an empty one included.
_HEADER = sys.getsizeof("\xe9") - 2 if sys.implementation.name == "cpython" else 0


# What a message takes besides its bytes: the header of an object, a place in a queue.
MESSAGE_OVERHEAD = 64


class WideText(bytes):
    """Text in UTF-8 that was decoded once, so that it is known to be right."""

    __slots__ = ()


def memory_size(message: str | bytes) -> int:
    """Return what a message takes in memory, its header left out, in bytes."""
    if isinstance(message, bytes) or message.isascii():
        return len(message)
    if not _HEADER:  # pragma: no cover - PyPy
        return len(message.encode())  # which is how PyPy keeps it
    count = len(message)
    width = min((sys.getsizeof(message) - _HEADER) // (count + 1), 4)
    return count * width


def is_wide(text: str, size: int) -> bool:
    """Tell whether text takes much more in memory than its ``size`` in UTF-8."""
    return len(text) >= _SHORT and memory_size(text) > size + size // 4
