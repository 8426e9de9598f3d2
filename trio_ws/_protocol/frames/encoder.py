# cython: annotation_typing=False, nonecheck=True
"""Messages to bytes: frames as they go out (RFC 6455, section 5.2)."""

from __future__ import annotations

import os
import struct
from typing import Final

from . import masking
from .memory import PIECE_SIZE, SPLIT_SIZE, keep_memory
from .outbox import Encoded

# Masking keys are made so many at a time.
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
        return masking.joined(first << 8 | second | size, 2, payload, key)
    if size < 0x10000:
        head = (first << 8 | second | 126) << 16 | size
        if size < SPLIT_SIZE:
            return masking.joined(head, 4, payload, key)
        header = masking.joined(head, 4, b"", key)
    else:
        keep_memory(size.bit_length())  # of which a text was encoded, for one
        extended = size.to_bytes(8, "big")
        header = masking.joined(first << 8 | second | 127, 2, extended, -1)
        if masked:
            header += key.to_bytes(4, "little")
    if not masked:
        return header, payload
    beginning = masking.masked(payload, 0, min(size, PIECE_SIZE), key)
    if size <= PIECE_SIZE:
        return header, beginning
    return header, beginning, payload, key
