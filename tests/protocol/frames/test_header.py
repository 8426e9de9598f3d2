"""What may begin a frame."""

from __future__ import annotations

import itertools

from tests.peers.wire import BINARY, CLOSE, PING, PONG, TEXT
from tests.protocol.frames.decoding import decoder
from trio_ws._protocol.errors import ProtocolError


def test_every_first_two_bytes() -> None:
    """What may begin a frame between two messages, by a rule of its own."""
    for first, second in itertools.product(range(256), range(256)):
        opcode = first & 15
        legal = (
            first & 0x70 == 0
            and second < 128
            and (
                opcode in (TEXT, BINARY)
                or (opcode in (CLOSE, PING, PONG) and first >= 128 and second < 126)
            )
        )
        # Some rules are those of the frame and the message together, which are
        # checked once the length is there.
        extended = b"\x01" + bytes(7) if second & 127 >= 126 else b""
        items = decoder().feed(bytes([first, second]) + extended)
        assert bool(items and isinstance(items[-1], ProtocolError)) == (not legal)
