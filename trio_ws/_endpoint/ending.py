"""How a connection ended, who has been told, and the clock that starts then."""

from __future__ import annotations

from math import inf
from typing import Protocol

import trio
from trio.lowlevel import enable_ki_protection

from .._protocol.closing import CONNECTING, OK_CODES, OPEN
from .._protocol.engine import Engine
from .errors import ConnectionClosed, ConnectionClosedError, ConnectionClosedOK
from .options import Options

# A clock of 0 seconds cuts after so many turns of the loop: a call that waits has to be
# woken, perhaps by another, before it can say that the connection is lost.
_TURNS_TO_TELL = 4


class _Queue(Protocol):
    @property
    def waiting(self) -> int: ...


class LossClock:
    """Cancels the user's side some time after the end of the connection."""

    __slots__ = ("_cuts", "_nursery", "_scope", "_senders")

    def __init__(
        self, scope: trio.CancelScope, nursery: trio.Nursery, senders: _Queue
    ) -> None:
        self._scope = scope
        self._nursery = nursery
        self._senders = senders
        self._cuts = False  # it is one of 0 seconds

    def start(self, grace: float | None) -> None:
        if grace == 0:
            self._cuts = True
            self._nursery.start_soon(self._cut, name="trio_ws clock")
        elif grace is not None:
            self._scope.deadline = trio.current_time() + grace

    @enable_ki_protection
    def stop(self) -> None:
        """Give the user's side all the time it wants."""
        self._scope.deadline = inf
        self._cuts = False

    @property
    def has_cut(self) -> bool:
        return self._scope.cancelled_caught

    @enable_ki_protection
    async def _cut(self) -> None:
        """Cancel the user's side at once, but after whoever waits has been told."""
        # Senders that queue are woken one by the other.
        for _ in range(_TURNS_TO_TELL + self._senders.waiting):
            await trio.lowlevel.cancel_shielded_checkpoint()
        if self._cuts:
            self._scope.cancel()


class Ending:
    """What the user's side and the scope have to know of the end."""

    __slots__ = (
        "_engine",
        "_options",
        "aclosed",
        "body_task",
        "body_told",
        "child_told",
        "clock",
        "connection",
        "leaving",
        "told_of_lost_data",
    )

    def __init__(self, engine: Engine, options: Options) -> None:
        self._engine = engine
        self._options = options
        self.connection: object = None
        self.aclosed = False  # by the user: no clock, no verdict
        self.leaving = False  # the user's side has ended
        self.body_told = False
        self.child_told = False
        self.told_of_lost_data = False
        self.body_task: trio.lowlevel.Task | None = None
        self.clock: LossClock | None = None

    @property
    def in_order(self) -> bool:
        """Whether both close frames say that all is well."""
        rcvd, sent = self._engine.rcvd, self._engine.sent
        return (
            rcvd is not None
            and sent is not None
            and rcvd.code in OK_CODES
            and sent.code in OK_CODES
        )

    @property
    def lost(self) -> bool:
        """Whether the connection ended, not in good order nor by the user."""
        return not (self._engine.phase is OPEN or self.aclosed or self.in_order)

    @enable_ki_protection
    def begin(self) -> None:
        """Start the clock, if this end of the connection has one."""
        if not (self.aclosed or self.leaving or self.clock is None):
            options = self._options
            self.clock.start(options.loss_grace if self.lost else options.close_grace)

    def closed(self) -> ConnectionClosed:
        """Make the exception for a call that finds the connection closed.

        The one place where the user's code is told of a loss.
        """
        engine = self._engine
        if engine.phase is CONNECTING:
            raise RuntimeError("connection isn't open yet: its response isn't sent")
        if self.lost:
            self._tell()
            return self.error()
        exc = ConnectionClosedOK(engine.rcvd, engine.sent, engine.rcvd_then_sent)
        exc._connection = self.connection
        return exc

    @enable_ki_protection
    def _tell(self) -> None:
        if self.clock is None:
            return
        if trio.lowlevel.current_task() is self.body_task:
            self.body_told = True
            # The body knows: what it does now takes as long as it takes.
            self.clock.stop()
        else:
            self.child_told = True

    def error(self) -> ConnectionClosedError:
        """Make the exception for a loss."""
        engine = self._engine
        exc = ConnectionClosedError(engine.rcvd, engine.sent, engine.rcvd_then_sent)
        exc._connection = self.connection
        exc.__cause__ = engine.cause
        return exc

    @enable_ki_protection
    def aclose(self) -> None:
        """Take note that the user closes the connection."""
        if self.lost and (self.body_told or self.child_told):
            self.told_of_lost_data = True
        self.aclosed = True
        if self.clock is not None:
            self.clock.stop()

    def raise_for_lost_data(self) -> None:
        """Tell who closes of data that was accepted and is lost, once."""
        if self._engine.lost_data and not self.told_of_lost_data:
            self.told_of_lost_data = True
            raise self.error()
