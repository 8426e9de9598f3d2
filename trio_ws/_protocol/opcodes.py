"""Opcodes, and what their frames may hold (RFC 6455, sections 5.2 and 5.5)."""

from __future__ import annotations

# Opcodes (RFC 6455, section 5.2) are plain integers: the codec compares them
# for every frame, and an enum member costs an attribute look-up each time.
CONT = 0x0
TEXT = 0x1
BINARY = 0x2
CLOSE = 0x8
PING = 0x9
PONG = 0xA

OPCODE_NAMES = {
    CONT: "CONT",
    TEXT: "TEXT",
    BINARY: "BINARY",
    CLOSE: "CLOSE",
    PING: "PING",
    PONG: "PONG",
}

# RFC 6455, section 5.5: "All control frames MUST have a payload length of 125
# bytes or less".
MAX_CONTROL_PAYLOAD = 125

# No header is longer (section 5.2).
MAX_HEADER = 14

# Fragments are joined as they come, so what their number can cost is time: how many of
# one message may be too short to be worth a frame of their own is limited.
SHORT_FRAGMENT = 16
