"""Exceptions that derive from trio's, too: code written for trio catches them."""

from __future__ import annotations

import trio

from .._protocol.closing import Close
from .._protocol.errors import WebSocketException
from .elsewhere import CLOSED, Hinting


class ConnectionClosed(
    Hinting, WebSocketException, trio.BrokenResourceError, elsewhere=CLOSED
):
    """The connection is closed.

    ``rcvd`` and ``sent`` are the close frames, with ``code`` and ``reason``,
    or None where there was none; ``rcvd_then_sent`` tells which of two was
    first. ``connection`` is the one that is closed, None in a copy that was
    pickled. ``__cause__`` says why: the OSError of a reset, the EOFError of a
    stream that ended, the TimeoutError of a keepalive, the ProtocolError of a
    violation.
    """

    def __init__(
        self,
        rcvd: Close | None,
        sent: Close | None,
        rcvd_then_sent: bool | None = None,
    ) -> None:
        self.rcvd = rcvd
        self.sent = sent
        self.rcvd_then_sent = rcvd_then_sent
        self.connection: object = None
        super().__init__(rcvd, sent, rcvd_then_sent)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), self.args  # a connection can't be pickled

    def __str__(self) -> str:
        if self.rcvd is None:
            if self.sent is None:
                return "no close frame received or sent"
            return f"sent {self.sent}; no close frame received"
        if self.sent is None:
            return f"received {self.rcvd}; no close frame sent"
        if self.rcvd_then_sent:
            return f"received {self.rcvd}; then sent {self.sent}"
        return f"sent {self.sent}; then received {self.rcvd}"


class ConnectionClosedOK(ConnectionClosed, trio.EndOfChannel):
    """The connection was closed in good order, or by this side's aclose().

    In good order is: with code 1000 (OK), 1001 (going away) or none.
    """


class ConnectionClosedError(ConnectionClosed):
    """The connection was lost, failed, or closed with a code that is an error."""


class ConcurrencyError(WebSocketException, trio.BusyResourceError):
    """Two tasks do at once what only one can: receive, or ping with one payload."""


class OpenTimeoutError(WebSocketException, TimeoutError, trio.TooSlowError):
    """``open_timeout`` ran out before the connection was open."""
