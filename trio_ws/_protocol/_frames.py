"""The words of RFC 6455: opcodes, close codes, and how a log shows a frame."""

from __future__ import annotations

import dataclasses
import enum

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

# Fragments are joined as they come, so what their number can cost is time:
# this many of one message may be too short to be worth a frame of their own.
SHORT_FRAGMENT = 16
MAX_SHORT_FRAGMENTS = 4096

# A payload of at least this size isn't copied behind its header.
SPLIT_SIZE = 16 * 1024

# What is larger is masked as it goes out, in pieces of this size: each is still in the
# processor's cache when the socket takes it, and the same memory serves them all.
PIECE_SIZE = 128 * 1024


class CloseCode(enum.IntEnum):
    """Close codes (RFC 6455, section 7.4, and the IANA registry)."""

    NORMAL_CLOSURE = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    # 1004 is reserved
    NO_STATUS_RCVD = 1005
    ABNORMAL_CLOSURE = 1006
    INVALID_DATA = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    MANDATORY_EXTENSION = 1010
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_GATEWAY = 1014
    TLS_HANDSHAKE = 1015


_EXPLANATIONS = {
    1000: "OK",
    1001: "going away",
    1002: "protocol error",
    1003: "unsupported data",
    1005: "no status received [internal]",
    1006: "abnormal closure [internal]",
    1007: "invalid frame payload data",
    1008: "policy violation",
    1009: "message too big",
    1010: "mandatory extension",
    1011: "internal error",
    1012: "service restart",
    1013: "try again later",
    1014: "bad gateway",
    1015: "TLS handshake failure [internal]",
}

# What a close frame may carry (RFC 6455, section 7.4.1): 1005, 1006 and 1015
# only ever stand for what was not on the wire; 3000 and up is the users'.
_SENDABLE_CODES = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015)})

# A peer that closed with one of these did so in good order.
OK_CODES = frozenset({1000, 1001, 1005})


def is_sendable(code: int) -> bool:
    """Tell whether a close frame may carry this code."""
    return code in _SENDABLE_CODES or 3000 <= code < 5000


@dataclasses.dataclass(frozen=True, slots=True)
class Close:
    """The code and the reason of a close frame."""

    code: int
    reason: str = ""

    def __str__(self) -> str:
        if 3000 <= self.code < 4000:
            explanation = "registered"
        elif 4000 <= self.code < 5000:
            explanation = "private use"
        else:
            explanation = _EXPLANATIONS.get(self.code, "unknown")
        text = f"{self.code} ({explanation})"
        return f"{text} {escape(self.reason)}" if self.reason else text


def close_payload(code: int, reason: str) -> bytes:
    """Make the payload of a close frame.

    Raises ValueError for a code that must not be sent and for a reason of more
    than 123 bytes, TypeError for other types.
    """
    for name, value, kind in (("code", code, int), ("reason", reason, str)):
        if not isinstance(value, kind):
            raise TypeError(
                f"close {name}: expected {kind.__name__}; got {type(value).__name__}"
            )
    if not is_sendable(code):
        raise ValueError(
            f"close code: expected 1000 to 1003, 1007 to 1014 or 3000 to 4999; "
            f"got {code}"
        )
    if any(char in reason for char in "\r\n\0"):
        raise ValueError(f"close reason: expected no CR, LF or NUL; got {reason!r}")
    data = reason.encode()
    if len(data) > MAX_CONTROL_PAYLOAD - 2:
        raise ValueError(
            f"close reason: expected at most {MAX_CONTROL_PAYLOAD - 2} bytes of "
            f"UTF-8; got {len(data)}"
        )
    return code.to_bytes(2, "big") + data


def escape(text: str) -> str:
    """Make a peer's text safe for a log or an exception: no control characters."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode()
        for char in text
    )


_SHOWN = 60  # bytes of a payload that a log line shows


def describe(opcode: int, payload: bytes, size: int, fin: bool) -> str:
    """Describe a frame for a log: opcode, the start of its payload, its size."""
    if opcode == CLOSE and len(payload) >= 2:
        code = int.from_bytes(payload[:2], "big")
        shown = str(Close(code, payload[2:].decode(errors="backslashreplace")))
    else:
        start = payload[:_SHOWN]
        text = start.decode("ascii", "replace")
        shown = repr(text) if text.isprintable() and start.isascii() else start.hex(" ")
        shown += "..." if size > _SHOWN else ""
    plural = "" if size == 1 else "s"
    more = "" if fin else ", continued"
    return f"{OPCODE_NAMES[opcode]} {shown} [{size} byte{plural}{more}]"
