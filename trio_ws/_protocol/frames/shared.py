# cython: annotation_typing=False
"""Frames that many connections share: built once, and compressed once."""

from __future__ import annotations

from ..extensions.deflate import PerMessageDeflate
from .encoder import encode
from .outbox import Encoded


def encode_shared(
    opcode: int,
    payload: bytes,
    deflate: PerMessageDeflate | None,
    cache: dict[int, Encoded],
) -> Encoded:
    """Build the frame of a server's message to many, or take it from ``cache``.

    Section 7.1.1 of RFC 7692 lets a message refer to earlier ones, but one that goes
    to all can refer to none; and what comes after it can't refer to what came before.
    """
    bits = 0 if deflate is None else deflate.bits_for(payload)
    if bits not in cache:
        data = deflate.compressed_alone(payload) if deflate and bits else payload
        if len(data) < len(payload):
            cache[bits] = encode(opcode, data, True, masked=False, reserved=0x40)
        else:
            cache[bits] = encode(opcode, payload, True, masked=False)
    if deflate is not None and bits:
        deflate.forget()
    return cache[bits]
