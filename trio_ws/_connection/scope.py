"""The scope of a connection: what it owns, how a loss ends it, what leaves it.

    service nursery            reader, flusher: shielded, ended by us
      cancel scope of ours     its deadline is the clock of a loss
        ws.nursery             the user's tasks
          the body

Leaving goes the other way, one step at a time: ws.nursery (waits for the user's
tasks), our cancel scope (absorbs our own cancellation and tells it from any
other), the normal form of what was raised, the closing handshake, the service
nursery, the exception that the block raises or not.

We never cancel ws.nursery's own scope: its exit couldn't be told from that of
a task that failed.
"""

from __future__ import annotations

import logging
from math import inf
from types import TracebackType

import trio
from trio.lowlevel import enable_ki_protection

from .._endpoint.ending import LossClock, Seen
from .._endpoint.endpoint import Endpoint
from .._endpoint.errors import ConnectionClosed, ConnectionClosedOK
from .._endpoint.host import CLOSED
from .._endpoint.log import log_or_print
from .._protocol.closing import OPEN, in_order
from .connection import Connection
from .groups import (
    aexit,
    collapse,
    exit_code,
    finish_aexit,
    leave_nursery,
    wrong_task,
)
from .sides import ServerConnection


class ConnectionScope:
    """The block in which a connection lives."""

    __slots__ = (
        "_clock",
        "_closed_by_exit",
        "_connection",
        "_ending",
        "_endpoint",
        "_service",
        "_user",
        "_user_scope",
        "outermost",
        "raised_exit_error",
    )

    def __init__(self, connection: Connection, endpoint: Endpoint) -> None:
        self._connection = connection
        self._endpoint = endpoint
        self._ending = endpoint.ending
        self._closed_by_exit = False  # leaving the block closed the connection
        # What the scope itself raised, for a server that logs it differently.
        self.raised_exit_error = False

    def is_of_this_task(self) -> bool:
        """Whether the current task is that of the body."""
        return trio.lowlevel.current_task() is self._ending.body_task

    @property
    def is_open(self) -> bool:
        """Whether the connection isn't closed."""
        return self._endpoint.state is not CLOSED

    # -- The block -----------------------------------------------------------

    @enable_ki_protection
    async def __aenter__(self) -> None:
        self._ending.body_task = trio.lowlevel.current_task()
        try:
            self._service = trio.open_nursery(strict_exception_groups=True)
            service = await self._service.__aenter__()
        except BaseException:
            await self._endpoint.fail_to_enter()
            raise
        self.outermost = service.cancel_scope
        try:
            await self._enter_user_side(service)
        except BaseException as exc:
            # For want of memory, perhaps: what is open is left in good order.
            self._ending.leaving = True
            self.outermost.cancel()
            await self._endpoint.fail_to_enter()
            await aexit(self._service, exc)
            raise

    async def _enter_user_side(self, service: trio.Nursery) -> None:
        self._user_scope = trio.CancelScope()
        self._clock = LossClock(self._user_scope, service)
        self._ending.clock = self._clock
        self._user_scope.__enter__()
        try:
            self._user = trio.open_nursery(strict_exception_groups=True)
            self._connection.nursery = await self._user.__aenter__()
            try:
                self._endpoint.start(service)
                self._endpoint.changed()
            except BaseException as exc:
                await aexit(self._user, exc)
                raise
        except BaseException as exc:
            self._user_scope.__exit__(type(exc), exc, exc.__traceback__)
            raise

    @enable_ki_protection
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        connection = self._connection
        ending = self._ending
        if not self.is_of_this_task():
            try:
                await self._close_elsewhere()
                raise wrong_task("the block of a connection", ending.body_task) from exc
            finally:
                del exc, traceback
        if connection.nursery.child_tasks:
            ending.begin_again()
        outcome = error = None
        try:
            outcome = await self._leave(exc)
            try:
                await self._close(outcome)
            except BaseException as closing:  # noqa: BLE001 - becomes the outcome
                # Cancelled or KeyboardInterrupt: the connection is closed all the same.
                if outcome is None or not isinstance(closing, trio.Cancelled):
                    outcome = closing
            # What the service tasks raised is added: KeyboardInterrupt, or a bug of
            # ours, which must not pass unseen, nor hide an error of the user's.
            error = await aexit(self._service, outcome)
            if error is not None:
                outcome = collapse(error, outcome, self.loss_in)
            elif outcome is not None:
                return True  # Cancelled, by way of our outermost scope
            if outcome is None:
                outcome = self._exit_error()
                self.raised_exit_error = outcome is not None
            elif self._has_cut_a_loop(outcome):
                outcome = self._ending.closed()
            return finish_aexit(outcome, exc)
        finally:
            # No cycle by way of a traceback: its frames hold this one, too.
            del outcome, error, exc, traceback
            ending.leave()
            self._log_closed()

    def _log_closed(self) -> None:
        identity = self._endpoint.identity
        server = isinstance(self._connection, ServerConnection)
        if server and identity.logger.isEnabledFor(logging.INFO):
            how = str(self._ending.error())
            log_or_print(identity.log, logging.INFO, "connection closed: %s", how)

    async def _close_elsewhere(self) -> None:
        """Close the connection, not its nurseries, which another task has opened."""
        self._ending.leaving = True  # no clock may cancel that task
        if self._ending.body_task is not None:
            self._clock.stop()
            await self._endpoint.goodbye(1001, "")

    async def _leave(self, exc: BaseException | None) -> BaseException | None:
        """Leave the user's side; return what remains of what was raised there."""
        outcome = error = None
        try:
            error = await leave_nursery(self._user, self._connection.nursery, exc)
            try:
                if error is None:
                    self._user_scope.__exit__(None, None, None)
                elif self._user_scope.__exit__(type(error), error, error.__traceback__):
                    error = None
            except BaseException as remaining:  # noqa: BLE001 - becomes the outcome
                error = remaining
            if error is None:
                return None
            outcome = collapse(error, exc, self.loss_in)
            if exc is None and isinstance(outcome, ConnectionClosedOK):
                # The body has ended normally: a task that found the connection
                # closed in good order is done, too.
                return None if self.loss_in(outcome) else outcome
            return outcome
        finally:
            del outcome, error, exc  # as above

    def loss_in(self, exc: BaseException) -> ConnectionClosed | None:
        """Return this connection's ConnectionClosed if ``exc`` is nothing else.

        Of several in a group the first that is an error.
        """
        if isinstance(exc, ConnectionClosed):
            return exc if exc.connection is self._connection else None
        if isinstance(exc, BaseExceptionGroup):
            found = [self.loss_in(member) for member in exc.exceptions]
            if None not in found:
                return min(found, key=_is_ok)
        return None

    async def _close(self, outcome: BaseException | None) -> None:
        """Say to the peer how the block ended (R11)."""
        endpoint = self._endpoint
        self._ending.leaving = True
        self._closed_by_exit = endpoint.engine.phase is OPEN
        is_loss = outcome is not None and self.loss_in(outcome) is not None
        code = exit_code(outcome, is_loss=is_loss)
        if outcome is None or isinstance(outcome, Exception):
            await endpoint.aclose(code, "")
        else:
            await endpoint.goodbye(code, "")

    def _exit_error(self) -> ConnectionClosed | None:
        """Return what the scope has to raise for a loss that the user missed.

        The first line that is true decides:

            the body has seen it                             nothing
            the user closed, and the clock cancelled nobody  nothing
            leaving closed it, and all data was written      nothing
            leaving closed it                                the error
            it was closed in good order                      nothing
            a task has seen it, the clock cancelled nobody   nothing
            otherwise                                        the error

        An aclose() of a block that the clock has cancelled, as in a finally, comes too
        late to be why the connection ended. Once all that was accepted has reached the
        socket, how the peer takes it that the block is left is no error.
        """
        ending, engine = self._ending, self._endpoint.engine
        cancelled = self._clock.has_cancelled
        if ending.seen_by is Seen.BODY or (ending.aclosed and not cancelled):
            return None
        if self._closed_by_exit:
            return ending.error() if engine.lost_data else None
        if in_order(engine.rcvd, engine.sent) or (
            ending.seen_by is Seen.TASK and not cancelled
        ):
            return None
        return ending.error()

    def _has_cut_a_loop(self, outcome: BaseException) -> bool:
        """Whether the clock has cut a loop over a generator that the block is in.

        Then Cancelled has passed outside of the block, where nobody will catch it, and
        aclosing() ends the generator, which can say that the connection is closed.
        """
        return (
            isinstance(outcome, GeneratorExit)
            and self._user_scope.cancel_called
            and trio.current_effective_deadline() > -inf
        )


def _is_ok(exc: ConnectionClosed | None) -> bool:
    return isinstance(exc, ConnectionClosedOK)
