"""The opcodes and their names."""

from __future__ import annotations

from trio_ws._protocol.opcodes import (
    BINARY,
    CLOSE,
    CONT,
    OPCODE_NAMES,
    PING,
    PONG,
    TEXT,
)


def test_opcodes() -> None:
    # RFC 6455, section 5.2
    assert OPCODE_NAMES == {
        0: "CONT",
        1: "TEXT",
        2: "BINARY",
        8: "CLOSE",
        9: "PING",
        10: "PONG",
    }
    assert tuple(OPCODE_NAMES) == (CONT, TEXT, BINARY, CLOSE, PING, PONG)
