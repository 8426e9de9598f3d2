"""What the parts of an endpoint know of it, and what they tell it."""

from __future__ import annotations

import enum
from typing import Protocol


class EndpointState(enum.IntEnum):
    """How far the end of a connection has come. It only goes forward.

    RUNNING -> CLOSING: the closing handshake begins, or the connection fails.
    CLOSING -> HALF_CLOSED: all is written, and it is for this side to end TCP.
    any -> STOPPED: nothing more is read. -> CLOSED: the transport is closed.
    """

    RUNNING = 0
    CLOSING = 1
    HALF_CLOSED = 2
    STOPPED = 3
    CLOSED = 4


RUNNING = EndpointState.RUNNING
CLOSING = EndpointState.CLOSING
HALF_CLOSED = EndpointState.HALF_CLOSED
STOPPED = EndpointState.STOPPED
CLOSED = EndpointState.CLOSED


class Host(Protocol):
    """An endpoint, as its parts see it."""

    @property
    def state(self) -> EndpointState:
        """How far its end has come."""

    def changed(self) -> None:
        """Act on what a step of the engine brought."""

    def lost(self, exc: OSError) -> None:
        """Act on an error of the transport."""

    def write_failed(self, exc: OSError) -> None:
        """Act on an error that writing met with."""

    def after_flush(self) -> None:
        """Act on there being nothing to write, after the end of the connection."""

    def fail(self, code: int, reason: str, cause: BaseException | None) -> None:
        """Give the connection up."""

    def died(self, exc: Exception) -> None:
        """Give the connection up for what raised in a task of ours."""


class NoHost:
    """What stands in a part before its endpoint runs and after it is closed.

    So nothing of a closed connection refers to what refers to it: it is freed at
    once, and not by the garbage collector.
    """

    state = CLOSED

    def changed(self) -> None:
        """Do nothing."""

    def lost(self, exc: OSError) -> None:
        """Do nothing."""

    def write_failed(self, exc: OSError) -> None:
        """Do nothing."""

    def after_flush(self) -> None:
        """Do nothing."""

    def fail(self, code: int, reason: str, cause: BaseException | None) -> None:
        """Do nothing."""

    def died(self, exc: Exception) -> None:
        """Do nothing."""


NO_HOST = NoHost()
