"""What messages take in memory; text that would take much more than its UTF-8.

CPython keeps a str in 1, 2 or 4 bytes a character, by its widest one: a single emoji
makes four bytes of each letter. Such a text waits as what came, and is decoded again
when somebody takes it. The compiled code has memory_size() in ``text.pxd``.
"""

from __future__ import annotations

import sys

# Shorter text isn't worth it.
_SHORT = 1024

# What a str that isn't ASCII takes besides its characters and their end. Not measured
# by one letter below 256: CPython has a single str of each, which may hold its UTF-8.
_NEW = b"\xe9\xe9".decode("latin-1")
_HEADER = sys.getsizeof(_NEW) - 3 if sys.implementation.name == "cpython" else 0


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
    if count == 1 and message < "\u0100":
        return 1
    width = min((sys.getsizeof(message) - _HEADER) // (count + 1), 4)
    return count * width


def is_wide(text: str, size: int) -> bool:
    """Tell whether text takes much more in memory than its ``size`` in UTF-8."""
    return len(text) >= _SHORT and memory_size(text) > size + size // 4
