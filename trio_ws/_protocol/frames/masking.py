"""What of the hot path C does in a way of its own.

The compiled codec takes these functions from ``masking.pxd``, where they work
on memory; here is the fastest that Python has, CPython and PyPy.
"""

from __future__ import annotations

import functools
import sys
from array import array
from typing import Final

# What reads and writes memory through a view, byte by byte, costs PyPy several times
# what a copy does.
IN_PLACE: Final = sys.implementation.name != "pypy"

# The type of the array's items that are PyPy's own integers: a machine word.
_WORD: Final = "l"
_WORD_SIZE: Final = array(_WORD).itemsize

_LONG_DATA: Final = 2048

# What is read and written a dozen times had better stay in the cache.
_PART: Final = 64 * 1024


def key_at(data: bytes, position: int) -> int:
    """Return the masking key that stands at ``position``."""
    return int.from_bytes(data[position : position + 4], "little")


def masked_as_a_whole(data: bytes, start: int, stop: int, key: int) -> bytes:
    """Do what masked() does with few operations on many bytes, for CPython.

    One XOR of two long integers for short data, a table look-up for each quarter
    of long data.
    """
    if not key:
        return data[start:stop]
    size = stop - start
    if size < _LONG_DATA:
        words = (size + 3) // 4
        number = int.from_bytes(data[start:stop], "little") ^ _ones(words) * key
        # The mask may go beyond the end by up to three bytes.
        return number.to_bytes(4 * words, "little")[:size]
    tables = [_xor_table(key >> shift & 0xFF) for shift in (0, 8, 16, 24)]
    parts: list[bytearray] = []
    with memoryview(data) as view:
        for at in range(start, stop, _PART):
            part = bytearray(view[at : min(at + _PART, stop)])
            for i, table in enumerate(tables):
                part[i::4] = part[i::4].translate(table)
            parts.append(part)
    return b"".join(parts)


def masked_by_words(data: bytes, start: int, stop: int, key: int) -> bytes:
    """Do what masked() does in a loop, for PyPy, which compiles it."""
    if not key:
        return data[start:stop]
    size = stop - start
    words = array(_WORD, data[start:stop] + bytes(-size % _WORD_SIZE))
    mask = array(_WORD, key.to_bytes(4, "little") * (_WORD_SIZE // 4))[0]
    for i in range(len(words)):
        words[i] ^= mask
    result = words.tobytes()[:size]
    # Or it keeps its memory till the collector runs: 64 KiB cost half more.
    del words[:]
    return result


# XORs a part of ``data``, between ``start`` and ``stop``, with the bytes of ``key``,
# over and over (RFC 6455, section 5.3). The lowest byte of the key is the first. 0
# leaves the bytes as they are.
masked = masked_as_a_whole if IN_PLACE else masked_by_words


def blank(size: int) -> bytes:
    """Return so many bytes, of any value, that are about to be overwritten."""
    return bytes(size)


def copy(
    target: memoryview, at: int, data: bytes, start: int, stop: int, key: int
) -> None:
    """Put a masked part of ``data`` into ``target``."""
    target[at : at + stop - start] = masked(data, start, stop, key)


def mask(target: memoryview, start: int, stop: int, key: int) -> None:
    """Mask a part of ``target`` where it is."""
    if key:
        copy(target, start, bytes(target[start:stop]), 0, stop - start, key)


@functools.cache
def _ones(words: int) -> int:
    """Return a number that makes a mask of so many words, times a key."""
    return int.from_bytes(b"\1\0\0\0" * words, "little")


@functools.cache
def _xor_table(byte: int) -> bytes:
    return bytes(byte ^ other for other in range(256))


def joined(head: int, count: int, payload: bytes, key: int) -> bytes:
    """Return ``head`` in ``count`` bytes and ``payload``, in one piece.

    A key that isn't negative goes between them, and over the payload.
    """
    if key < 0:
        return head.to_bytes(count, "big") + payload
    return (
        head.to_bytes(count, "big")
        + key.to_bytes(4, "little")
        + masked(payload, 0, len(payload), key)
    )
