"""How a connection ended, who has seen it, and the clock that starts then."""

from __future__ import annotations

import copy
import enum
from inspect import CORO_CLOSED, getcoroutinestate
from math import inf

import trio
from trio.lowlevel import enable_ki_protection

from .._protocol.closing import CONNECTING, FAILED, UNCLOSED, in_order
from .._protocol.engine import Engine
from .errors import ConnectionClosed, ConnectionClosedError, ConnectionClosedOK
from .identity import Identity
from .options import Options

# A clock of 0 seconds cancels after so many turns of the loop: a call that waits has
# to be woken, perhaps by another, before it can say that the connection is lost.
_TURNS_TO_TELL = 4


class LossClock:
    """Cancels the user's side some time after the end of the connection."""

    __slots__ = ("_nursery", "_runs", "_scope")

    def __init__(self, scope: trio.CancelScope, nursery: trio.Nursery) -> None:
        self._scope = scope
        self._nursery = nursery
        self._runs = False  # with 0 seconds, so that it counts turns of the loop

    def start(self, grace: float | None, turns: int) -> None:
        """Cancel after ``grace`` seconds; never if it is None.

        If it is 0, after so many ``turns`` of the loop more than anybody needs to be
        told.
        """
        if grace == 0:
            self._runs = True
            self._nursery.start_soon(
                self._cancel_user_side, turns, name="trio_ws clock"
            )
        elif grace is not None:
            self._scope.deadline = trio.current_time() + grace

    @enable_ki_protection
    def stop(self) -> None:
        """Give the user's side all the time it wants."""
        self._scope.deadline = inf
        self._runs = False

    @property
    def has_cancelled(self) -> bool:
        """Whether the user's side was cancelled by it."""
        return self._scope.cancelled_caught

    @enable_ki_protection
    async def _cancel_user_side(self, turns: int) -> None:
        for _ in range(_TURNS_TO_TELL + turns):
            await trio.lowlevel.cancel_shielded_checkpoint()
        if self._runs:
            self._scope.cancel()


class Seen(enum.IntEnum):
    """Who was given the exception of a loss, by a call on the connection."""

    NOBODY = 0
    TASK = 1  # a task of the user's that isn't the body's
    BODY = 2  # the body's task


class Ending:
    """What calls and the scope have to know of the end of a connection."""

    __slots__ = (
        "_engine",
        "_identity",
        "_lost_data_seen",
        "_options",
        "aclosed",
        "body_task",
        "broke",
        "clock",
        "leaving",
        "seen_by",
    )

    def __init__(self, engine: Engine, options: Options, identity: Identity) -> None:
        self._engine = engine
        self._options = options
        self._identity = identity
        self.aclosed = False  # by the user: no clock runs, the scope raises nothing
        self.leaving = False  # the user's side has ended
        self.broke = False  # it was lost before either side wanted to close
        self.seen_by = Seen.NOBODY
        self._lost_data_seen = False
        self.body_task: trio.lowlevel.Task | None = None
        self.clock: LossClock | None = None

    @property
    def abandoned(self) -> bool:
        """Whether the body's task has ended without leaving the block.

        As of a generator that outlives the task that has begun it.
        """
        task = self.body_task
        return task is not None and getcoroutinestate(task.coro) == CORO_CLOSED

    @property
    def lost(self) -> bool:
        """Whether the connection ended, not in good order nor by the user."""
        engine = self._engine
        return not (
            engine.phase in UNCLOSED
            or self.aclosed
            or in_order(engine.rcvd, engine.sent)
        )

    @enable_ki_protection
    def begin(self, waiting: int) -> None:
        """Start the clock, if this end has one; ``waiting`` tasks wait to be told."""
        engine = self._engine
        self.broke = engine.phase is FAILED and isinstance(
            engine.cause, (OSError, EOFError)
        )
        if self.clock is not None and not (self.aclosed or self.leaving):
            options = self._options
            grace = options.loss_grace if self.lost else options.close_grace
            self.clock.start(grace, waiting)

    @enable_ki_protection
    def begin_again(self) -> None:
        """Start the clock for tasks that go on after a body that has seen the loss."""
        if self.lost and self.seen_by is Seen.BODY and self.clock is not None:
            self.clock.start(self._options.loss_grace, 0)

    def closed(self) -> ConnectionClosed:
        """Make the exception for a call that finds the connection closed.

        The one place where the user's code gets to know of a loss.
        """
        engine = self._engine
        if engine.phase is CONNECTING:
            raise RuntimeError("connection isn't open yet: its response isn't sent")
        if self.lost:
            self._note_seen()
            return self.error()
        exc = ConnectionClosedOK(engine.rcvd, engine.sent, engine.rcvd_then_sent)
        exc.connection = self._identity.connection
        return exc

    @enable_ki_protection
    def _note_seen(self) -> None:
        if trio.lowlevel.current_task() is self.body_task:
            self.seen_by = Seen.BODY
            # The body knows: what it does now takes as long as it takes.
            if self.clock is not None:
                self.clock.stop()
        else:
            self.seen_by = max(self.seen_by, Seen.TASK)

    def error(self) -> ConnectionClosedError:
        """Make the exception for a loss."""
        engine = self._engine
        exc = ConnectionClosedError(engine.rcvd, engine.sent, engine.rcvd_then_sent)
        exc.connection = self._identity.connection
        exc.__cause__ = engine.cause
        return exc

    @enable_ki_protection
    def aclose(self) -> None:
        """Note that the user closes the connection."""
        if self.lost and self.seen_by is not Seen.NOBODY:
            self._lost_data_seen = True
        self.aclosed = True
        if self.clock is not None:
            self.clock.stop()

    def leave(self) -> None:
        """Let go, once the scope is left, of what may refer to the connection.

        So a connection that nobody holds is freed at once. The traceback of a cause
        has frames that hold the connection; what raised it, perhaps a user's iterable,
        needs it whole, so a copy goes without.
        """
        self.clock = self.body_task = None
        cause = self._engine.cause
        if cause is not None and cause.__traceback__ is not None:
            self._engine.cause = _without_traceback(cause)

    def raise_for_lost_data(self) -> None:
        """Tell who closes of data that was accepted and is lost, once."""
        if self._engine.lost_data and not self._lost_data_seen:
            self._lost_data_seen = True
            raise self.error()


def _without_traceback(exc: BaseException) -> BaseException:
    try:
        return copy.copy(exc)
    except Exception:  # noqa: BLE001 - whatever the constructor of a user's says
        return RuntimeError(f"{type(exc).__name__}: {exc}")
