"""What leaves a nursery of ours: one exception if one is enough (R12)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import NoReturn

import trio
from trio.lowlevel import enable_ki_protection


async def aexit(
    manager: AbstractAsyncContextManager[object], exc: BaseException | None
) -> BaseException | None:
    """Leave a block; return what it raises or lets pass."""
    try:
        if exc is None:
            await manager.__aexit__(None, None, None)
        elif not await manager.__aexit__(type(exc), exc, exc.__traceback__):
            return exc
    except BaseException as raised:  # noqa: BLE001 - raised again by the caller
        return raised
    finally:
        del exc  # no cycle with the traceback of what is raised
    return None


async def leave_nursery(
    manager: AbstractAsyncContextManager[object],
    nursery: trio.Nursery,
    exc: BaseException | None,
) -> BaseException | None:
    """Leave the block of a nursery, as aexit() does."""
    if exc is not None:
        # The nursery does so, too, but in a frame that refers to the group of what
        # its tasks raise: they would be in a cycle by way of their tracebacks.
        nursery.cancel_scope.cancel()
    try:
        return await aexit(manager, exc)
    finally:
        del exc


@enable_ki_protection
async def run_in_nursery(body: Callable[[trio.Nursery], Awaitable[None]]) -> None:
    """Run ``body`` with a nursery; raise one exception where one is enough."""
    manager = trio.open_nursery(strict_exception_groups=True)
    nursery = await manager.__aenter__()
    error = outcome = None
    try:
        await body(nursery)
    except BaseException as exc:  # noqa: BLE001 - raised below
        error = exc
    try:
        outcome = await leave_nursery(manager, nursery, error)
        if outcome is not None:
            raise_as_is(collapse(outcome, error))
    finally:
        del outcome, error  # no cycle with the traceback


def collapse(
    error: BaseException,
    body: BaseException | None,
    loss_in: Callable[[BaseException], BaseException | None] = lambda exc: None,
) -> BaseException:
    """Reduce what a nursery raised to what it comes down to.

    ``error`` is what aexit() returned, ``body`` what was raised in the body
    of the nursery. A strict nursery raises a group of its own; its members are
    what the body and the tasks raised, a group of the user's among them. In
    this order: KeyboardInterrupt and SystemExit win; errors of the user's are
    raised, as a group if there are several; then what ``loss_in`` says is a
    loss; Cancelled only if there is nothing else.
    """
    if not isinstance(error, BaseExceptionGroup):
        return error
    users: list[BaseException] = []
    losses: list[BaseException] = []
    cancelled: list[BaseException] = []
    for raised in error.exceptions:
        # A nursery passes on a copy of a group that it was left with.
        member = body if body is not None and _is_copy(raised, body) else raised
        loss = loss_in(member)
        if isinstance(member, (KeyboardInterrupt, SystemExit)):
            return member
        elif loss is not None:
            losses.append(loss)
        elif isinstance(member, trio.Cancelled):
            cancelled.append(member)
        else:
            users.append(member)
    if len(users) > 1:
        return error.derive(users).with_traceback(error.__traceback__)
    candidates = users or losses or cancelled
    return next((exc for exc in candidates if exc is body), candidates[0])


def exit_code(exc: BaseException | None, *, is_loss: bool) -> int:
    """Return the close code that tells the peer how a block was left (R11).

    ``is_loss`` says that ``exc`` is the connection's own ConnectionClosed.
    """
    if exc is None or is_loss:
        return 1000
    return 1011 if isinstance(exc, Exception) else 1001


def _is_copy(exc: BaseException, original: BaseException) -> bool:
    """Tell whether ``exc`` is ``original`` or holds the same as it."""
    if not isinstance(exc, BaseExceptionGroup):
        return exc is original
    return (
        isinstance(original, BaseExceptionGroup)
        and len(exc.exceptions) == len(original.exceptions)
        and all(map(_is_copy, exc.exceptions, original.exceptions))
    )


def split_errors(exc: BaseException) -> tuple[Exception | None, BaseException | None]:
    """Part errors from what is none: Cancelled, KeyboardInterrupt, SystemExit.

    A nursery of the user's that is cancelled raises both in one group.
    """
    if isinstance(exc, BaseExceptionGroup):
        return exc.split(Exception)
    return (exc, None) if isinstance(exc, Exception) else (None, exc)


def finish_aexit(outcome: BaseException | None, exc: BaseException | None) -> bool:
    """Say for an __aexit__ that was given ``exc`` what leaves the block.

    Return whether that is nothing; False lets ``exc`` itself pass, so that its
    traceback shows no frame of ours. Anything else is raised here.
    """
    if outcome is None:
        return True
    if outcome is exc:
        return False
    try:
        raise_as_is(outcome)
    finally:
        del outcome, exc  # no cycle with the traceback


def raise_as_is(exc: BaseException) -> NoReturn:
    """Raise an exception with the context it has: Python would set it anew."""
    context = exc.__context__
    try:
        raise exc
    finally:
        exc.__context__ = context
        del exc, context  # no cycle with the traceback


def wrong_task(what: str, entered_in: trio.lowlevel.Task | None) -> RuntimeError:
    """Make the error for a block that isn't left by the task that has entered it."""
    if entered_in is None:
        return RuntimeError(f"{what} was left already, or never entered")
    return RuntimeError(
        f"{what} was entered in the task {entered_in.name} and left in the task "
        f"{trio.lowlevel.current_task().name}; expected the same one. An async "
        f"generator that is dropped is finished in a task of trio's own: loop over it "
        f"within contextlib.aclosing(), or decorate it with trio.as_safe_channel. "
        f"What the block had opened is closed."
    )
