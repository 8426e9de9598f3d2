"""What a peer must not send, as a table, with what is said of each."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from tests.peers import wire
from tests.peers.wire import BINARY, CLOSE, CONT, KEY, PING, PONG, TEXT
from tests.protocol.frames.decoding import BAD_TEXT, SHORT_ONES, frame, key
from trio_ws._protocol.opcodes import SHORT_FRAGMENT

# CPython's decoder waits for the third byte of a surrogate.
SURROGATE_KNOWN_AT = 4 if sys.implementation.name == "cpython" else 3


def violation(
    name: str,
    stream: bytes,
    reason: str,
    *,
    known_at: int | None = None,
    code: int = 1002,
    masked: bool = False,
    max_size: int | None = None,
) -> Any:
    """Describe a violation, to be found with the byte ``known_at``."""
    at = len(stream) if known_at is None else known_at
    return pytest.param(masked, max_size, stream, at, code, reason, id=name)


UNKNOWN_OPCODES = [3, 4, 5, 6, 7, 11, 12, 13, 14, 15]

TOO_SHORT = "frame length: expected the shortest encoding; got {} bytes for {}"


VIOLATIONS = [
    violation(
        "unmasked frame of a client",
        frame(TEXT, b"hello"),
        "frame of a client is not masked",
        known_at=2,
        masked=True,
    ),
    violation(
        "masked frame of a server",
        frame(TEXT, b"hello", masked=True),
        "frame of a server is masked",
        known_at=2,
    ),
    violation(
        "unmasked ping of a client",
        frame(PING),
        "frame of a client is not masked",
        known_at=2,
        masked=True,
    ),
    *(
        violation(
            f"reserved bits {rsv:03b}, opcode {opcode:#x}",
            wire.frame(opcode, b"a", rsv=rsv),
            "reserved bits are set; no extension was negotiated",
            known_at=2,
        )
        for rsv, opcode in [
            *((rsv, TEXT) for rsv in range(1, 8)),
            *((4, opcode) for opcode in (CONT, BINARY, CLOSE, PING, PONG)),
        ]
    ),
    *(
        violation(
            f"opcode {opcode:#x}, {'' if fin else 'not '}final",
            wire.frame(opcode, b"payload", fin=fin, extended=8),
            f"unknown opcode {opcode:#x}",
            known_at=2,
        )
        for opcode in UNKNOWN_OPCODES
        for fin in (True, False)
    ),
    *(
        violation(
            f"fragmented {name}",
            frame(opcode, b"ab", fin=False),
            f"{name} frame is fragmented",
            known_at=2,
        )
        for opcode, name in ((CLOSE, "CLOSE"), (PING, "PING"), (PONG, "PONG"))
    ),
    *(
        violation(
            f"{name} of {length} bytes",
            wire.header(opcode, length),
            f"{name} frame: expected a payload of at most 125 bytes",
            known_at=2,
        )
        for opcode, name in ((CLOSE, "CLOSE"), (PING, "PING"), (PONG, "PONG"))
        for length in (126, 65536)
    ),
    violation(
        "stray continuation",
        frame(CONT, b"ab", fin=False),
        "continuation frame without a message to continue",
        known_at=2,
    ),
    violation(
        "stray final continuation",
        frame(CONT, b"ab"),
        "continuation frame without a message to continue",
        known_at=2,
    ),
    *(
        violation(
            f"new message ({opcode}, final: {fin}) in a fragmented one",
            frame(TEXT, b"a", fin=False) + frame(opcode, b"b", fin=fin),
            "new message in the middle of a fragmented one; "
            "expected a continuation frame",
            known_at=5,
        )
        for opcode in (TEXT, BINARY)
        for fin in (True, False)
    ),
    *(
        violation(
            f"length {length:#x}",
            wire.header(BINARY, length, extended=8),
            "frame length: expected less than 2**63; the top bit is set",
        )
        for length in (2**63, 2**64 - 1)
    ),
    *(
        violation(
            f"{length} in {extended} bytes",
            wire.header(BINARY, length, extended=extended) + b"a",
            TOO_SHORT.format(extended, length),
            known_at=2 + extended,
        )
        for length, extended in [(0, 2), (125, 2), (0, 8), (125, 8), (126, 8)]
    ),
    violation(
        "65535 in 8 bytes",
        wire.header(BINARY, 65535, extended=8),
        TOO_SHORT.format(8, 65535),
    ),
    violation(
        "5 in 2 bytes, masked",
        wire.header(BINARY, 5, extended=2, key=KEY),
        TOO_SHORT.format(2, 5),
        known_at=4,
        masked=True,
    ),
    # Section 8.1; known with the first byte that no UTF-8 can have there.
    *(
        violation(
            f"invalid UTF-8 {payload!r}, {'masked' if masked else 'unmasked'}",
            frame(TEXT, payload, masked=masked),
            BAD_TEXT.format(reason, position),
            known_at=2 + 4 * masked + bad,
            code=1007,
            masked=masked,
        )
        for payload, reason, position, bad in [
            (b"ab\xffcd", "invalid start byte", 2, 3),
            (b"ab\x80cd", "invalid start byte", 2, 3),
            (b"\xc0\xafcd", "invalid start byte", 0, 1),
            (b"\xe0\x80cd", "invalid continuation byte", 0, 2),
            (b"a\xed\xa0\x80d", "invalid continuation byte", 1, SURROGATE_KNOWN_AT),
            (b"\xf4\x90\x80\x80", "invalid continuation byte", 0, 2),
            (b"\xf5aaa", "invalid start byte", 0, 1),
            (b"\xe2\x82(", "invalid continuation byte", 0, 3),
            (b"ab\xe2\x82", "unexpected end of data", 2, 4),
            (b"\xc3", "unexpected end of data", 0, 1),
        ]
        for masked in (False, True)
    ),
    violation(
        "invalid UTF-8 in the second fragment",
        frame(TEXT, b"abc", fin=False) + frame(CONT, b"d\xffe"),
        BAD_TEXT.format("invalid start byte", 4),
        known_at=9,
        code=1007,
    ),
    violation(
        "invalid UTF-8 across two fragments",
        frame(TEXT, b"abc\xe2", fin=False) + frame(CONT, b"\x82(e"),
        BAD_TEXT.format("invalid continuation byte", 3),
        known_at=10,
        code=1007,
    ),
    violation(
        "a character that the last fragment leaves incomplete",
        frame(TEXT, b"abc\xe2", fin=False) + frame(CONT, b"\x82"),
        BAD_TEXT.format("unexpected end of data", 3),
        code=1007,
    ),
    violation(
        "a character that an empty last fragment leaves incomplete",
        frame(TEXT, b"\xf0\x9f", fin=False) + frame(CONT),
        BAD_TEXT.format("unexpected end of data", 0),
        code=1007,
    ),
    *(
        violation(
            f"too big: {size} bytes, masked: {masked}",
            wire.header(BINARY, size, key=key(masked)),
            f"message of {size} bytes or more exceeds max_size, 100 bytes",
            # By the header alone, even before the masking key.
            known_at=len(wire.header(BINARY, size)),
            code=1009,
            masked=masked,
            max_size=100,
        )
        for size in (101, 126, 65536, 2**63 - 1)
        for masked in (False, True)
    ),
    violation(
        "too big: the sum of the fragments",
        frame(BINARY, b"x" * 60, fin=False)
        + frame(PING, b"p" * 100)
        + frame(CONT, b"x" * 40, fin=False)
        + wire.header(CONT, 1),
        "message of 101 bytes or more exceeds max_size, 100 bytes",
        code=1009,
        max_size=100,
    ),
    violation(
        "too big: what is still to come of the fragments",
        frame(TEXT, b"x", fin=False) + wire.header(CONT, 100, fin=False),
        "message of 101 bytes or more exceeds max_size, 100 bytes",
        code=1009,
        max_size=100,
    ),
    violation(
        "too big: nothing is allowed",
        frame(BINARY, b"x"),
        "message of 1 bytes or more exceeds max_size, 0 bytes",
        known_at=2,
        code=1009,
        max_size=0,
    ),
    *(
        violation(
            f"too many short fragments, the last of {length} bytes, final: {fin}",
            SHORT_ONES + wire.header(CONT, length, fin=fin),
            "message with more than 4096 fragments of less than 16 bytes "
            "(limits=Limits(short_fragments=...))",
            code=1009,
        )
        for length in (0, SHORT_FRAGMENT - 1)
        for fin in (False, True)
    ),
]
