"""Decoders, and frames for them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.peers import wire
from tests.peers.wire import CONT, KEY, TEXT
from trio_ws._protocol.errors import ProtocolError
from trio_ws._protocol.frames.decoder import Decoder, Item
from trio_ws._protocol.limits import DEFAULT_LIMITS as MOST

BOTH = pytest.mark.parametrize("masked", [False, True], ids=["server", "client"])


def decoder(
    *, masked: bool = False, max_size: int | None = None, trace: Any = None
) -> Decoder:
    return Decoder(masked=masked, max_size=max_size, trace=trace)


def key(masked: bool) -> bytes | None:
    return KEY if masked else None


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, masked: bool = False
) -> bytes:
    return wire.frame(opcode, payload, fin=fin, key=key(masked))


def feed_bytes(target: Decoder, data: bytes) -> list[Item]:
    """Feed byte by byte, up to what must be the last item."""
    items: list[Item] = []
    for byte in data:
        items += target.feed(bytes([byte]))
        if items and isinstance(items[-1], ProtocolError):
            break
    return items


BAD_TEXT = "invalid UTF-8 in text: {} at position {}"
SHORT_ONES = b"".join(
    [
        frame(TEXT, fin=False),
        frame(CONT, fin=False) * (MOST.short_fragments - 1),
    ]
)
