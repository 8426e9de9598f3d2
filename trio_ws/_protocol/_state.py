"""The closing handshake of RFC 6455 (sections 5.5.1 and 7) as a table.

The table doesn't know which side it plays: both do the same. What stands in it
is allowed and says what the state becomes; a missing entry is an error of
whoever did it, the caller's when sending, a protocol violation when receiving.
In the states of DEAF, whatever the peer still sends is discarded unparsed, so
receiving has no entries there.
"""

from __future__ import annotations

import enum


class State(enum.IntEnum):
    """The state of a connection, as RFC 6455 names them."""

    CONNECTING, OPEN, CLOSING, CLOSED = range(4)


class Phase(enum.Enum):
    """Where the closing handshake stands."""

    CONNECTING = enum.auto()  # the opening handshake isn't done: nothing is allowed
    OPEN = enum.auto()  # data flows both ways
    CLOSE_SENT = enum.auto()  # our close frame is queued; the peer may still send
    CLOSE_RECEIVED = enum.auto()  # the peer's came; ours has to follow
    CLOSE_DONE = enum.auto()  # both; what is left is the end of the stream
    FAILED = enum.auto()  # lost or given up; final
    CLOSED = enum.auto()  # both close frames and the end of the stream; final


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


CONNECTING = Phase.CONNECTING
OPEN = Phase.OPEN
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

DEAF = frozenset({CLOSE_RECEIVED, CLOSE_DONE, FAILED, CLOSED})
FINAL = frozenset({FAILED, CLOSED})
