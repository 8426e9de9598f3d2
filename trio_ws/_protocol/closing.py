"""The closing handshake of RFC 6455 (sections 5.5.1 and 7): a table, rules, codes.

The table doesn't know which side it plays: both do the same. What stands in it
is allowed and says what the state becomes; a missing entry is an error of
whoever did it, the caller's when sending, a protocol violation when receiving.
From OPEN to FINISHING leads no event, but that this side wants to close.
In the states of DEAF, whatever the peer still sends is discarded unparsed, so
receiving has no entries there.
"""

from __future__ import annotations

import dataclasses
import enum

from .errors import ProtocolError
from .escaping import escape
from .opcodes import MAX_CONTROL_PAYLOAD


class State(enum.IntEnum):
    """The state of a connection, as RFC 6455 names them."""

    CONNECTING, OPEN, CLOSING, CLOSED = range(4)


class Phase(enum.Enum):
    """Where the closing handshake stands."""

    CONNECTING = enum.auto()  # the opening handshake isn't done: nothing is allowed
    OPEN = enum.auto()  # data flows both ways
    FINISHING = enum.auto()  # ours is to follow a message of ours that isn't whole yet
    CLOSE_SENT = enum.auto()  # our close frame is queued; the peer may still send
    CLOSE_RECEIVED = enum.auto()  # the peer's came; ours has to follow
    CLOSE_DONE = enum.auto()  # both; what is left is the end of the stream
    FAILED = enum.auto()  # lost or given up; final
    CLOSED = enum.auto()  # both close frames and the end of the stream; final

    __hash__ = object.__hash__  # Enum's own is in Python, that of its name


class Event(enum.Enum):
    """What either side can do to the closing handshake."""

    SEND_DATA = enum.auto()
    SEND_CONTROL = enum.auto()  # ping, pong
    SEND_CLOSE = enum.auto()
    RECV_DATA = enum.auto()
    RECV_CONTROL = enum.auto()
    RECV_CLOSE = enum.auto()
    EOF = enum.auto()
    FAIL = enum.auto()

    __hash__ = object.__hash__


CONNECTING = Phase.CONNECTING
OPEN = Phase.OPEN
FINISHING = Phase.FINISHING
CLOSE_SENT = Phase.CLOSE_SENT
CLOSE_RECEIVED = Phase.CLOSE_RECEIVED
CLOSE_DONE = Phase.CLOSE_DONE
FAILED = Phase.FAILED
CLOSED = Phase.CLOSED

TABLE: dict[tuple[Phase, Event], Phase] = {
    (OPEN, Event.SEND_DATA): OPEN,
    (OPEN, Event.SEND_CONTROL): OPEN,
    (OPEN, Event.RECV_DATA): OPEN,
    (OPEN, Event.RECV_CONTROL): OPEN,
    (OPEN, Event.SEND_CLOSE): CLOSE_SENT,
    (OPEN, Event.RECV_CLOSE): CLOSE_RECEIVED,
    (OPEN, Event.EOF): FAILED,
    (OPEN, Event.FAIL): FAILED,
    (FINISHING, Event.SEND_DATA): FINISHING,
    (FINISHING, Event.SEND_CLOSE): CLOSE_SENT,
    (FINISHING, Event.RECV_DATA): FINISHING,
    (FINISHING, Event.RECV_CONTROL): FINISHING,
    (FINISHING, Event.RECV_CLOSE): CLOSE_RECEIVED,
    (FINISHING, Event.EOF): FAILED,
    (FINISHING, Event.FAIL): FAILED,
    (CLOSE_SENT, Event.RECV_DATA): CLOSE_SENT,
    (CLOSE_SENT, Event.RECV_CONTROL): CLOSE_SENT,
    (CLOSE_SENT, Event.RECV_CLOSE): CLOSE_DONE,
    (CLOSE_SENT, Event.EOF): FAILED,
    (CLOSE_SENT, Event.FAIL): FAILED,
    (CLOSE_RECEIVED, Event.SEND_CLOSE): CLOSE_DONE,
    (CLOSE_RECEIVED, Event.EOF): FAILED,
    (CLOSE_RECEIVED, Event.FAIL): FAILED,
    (CLOSE_DONE, Event.EOF): CLOSED,
    (CLOSE_DONE, Event.FAIL): FAILED,
}

UNCLOSED = frozenset({OPEN, FINISHING})  # a close frame may be sent
DEAF = frozenset({CLOSE_RECEIVED, CLOSE_DONE, FAILED, CLOSED})
FINAL = frozenset({FAILED, CLOSED})


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
    """The ``code`` and the ``reason`` of a close frame."""

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


# -- What section 7.1 asks of the end of a connection -------------------------


def in_order(rcvd: Close | None, sent: Close | None) -> bool:
    """Whether both close frames say that all is well.

    Section 7.1.4 calls a connection "closed cleanly" once both frames went their
    way; whether it was closed for a good reason is for their codes to say.
    """
    return (
        rcvd is not None
        and sent is not None
        and rcvd.code in OK_CODES
        and sent.code in OK_CODES
    )


def ends_tcp(phase: Phase, *, client: bool) -> bool:
    """Whether this side ends its stream once all is written.

    Section 7.1.1: "The underlying TCP connection, in most normal cases, SHOULD be
    closed first by the server, so that it holds the TIME_WAIT state and not the
    client". Section 7.1.7: whoever fails the connection closes it.
    """
    return phase is FAILED or (phase is CLOSE_DONE and not client)


def listens_on(phase: Phase, cause: BaseException | None) -> bool:
    """Whether there is reason to read on after this side has ended its stream.

    Section 5.5.1: after both close frames "the server MUST close the underlying TCP
    connection immediately". Only a peer that broke the protocol may still send, and
    is listened to for a while, so that no reset destroys the close frame that tells
    it why; not one given up for its silence.
    """
    return phase is FAILED and not isinstance(cause, TimeoutError)


def connection_close(phase: Phase, rcvd: Close | None) -> Close | None:
    """Return the close code and reason of the connection; None while it is open.

    Sections 7.1.5 and 7.1.6: those of the peer's close frame, 1005 if it had no code,
    1006 if none came.
    """
    if rcvd is None and phase in FINAL:
        return Close(CloseCode.ABNORMAL_CLOSURE.value)
    return rcvd


def reads_no_more(rcvd: Close | None) -> bool:
    """Tell whether the peer has closed in good order."""
    return rcvd is not None and rcvd.code in OK_CODES


# -- Close frames -------------------------------------------------------------


def close_reason(text: str) -> str:
    """Return as much of a text as fits into a close frame."""
    return text.encode()[: MAX_CONTROL_PAYLOAD - 2].decode(errors="ignore")


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


def close_or_none(payload: bytes) -> Close | None:
    """Parse the payload of a close frame; None for what no close frame may carry."""
    try:
        return parse_close(payload)
    except ProtocolError:
        return None


def parse_close(payload: bytes) -> Close:
    """Parse the payload of a close frame (RFC 6455, section 5.5.1).

    Raises ProtocolError for what no close frame may carry.
    """
    if not payload:
        return Close(CloseCode.NO_STATUS_RCVD)
    if len(payload) == 1:
        raise ProtocolError(
            "CLOSE frame: expected a payload of 0 or at least 2 bytes; got 1"
        )
    code = int.from_bytes(payload[:2], "big")
    if not is_sendable(code):
        # Section 7.4
        raise ProtocolError(f"CLOSE frame: code {code} must not be sent")
    try:
        return Close(code, payload[2:].decode())
    except UnicodeDecodeError as exc:
        raise ProtocolError(
            f"CLOSE frame: invalid UTF-8 in the reason: {exc.reason}",
            CloseCode.INVALID_DATA,
        ) from exc
