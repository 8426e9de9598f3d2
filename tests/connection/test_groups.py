"""What leaves a nursery comes down to as little as possible."""

from __future__ import annotations

from typing import NoReturn

import pytest
import trio

from trio_ws._connection.groups import aexit, collapse, raise_as_is


class Loss(Exception):
    """Stands for the loss of the connection."""


class UserError(Exception):
    """An error of the user's own."""


def loss_in(exc: BaseException) -> Loss | None:
    return exc if isinstance(exc, Loss) else None


def group(*members: BaseException) -> BaseExceptionGroup[BaseException]:
    """Make what a nursery raises; its traceback is told from others' by a line."""
    try:
        raise BaseExceptionGroup("a nursery's", members)
    except BaseExceptionGroup as raised:
        return raised


async def cancelled() -> trio.Cancelled:
    """Return a Cancelled; only trio can make one."""
    caught: trio.Cancelled | None = None
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled as exc:
            caught = exc
            raise
    assert caught is not None
    return caught


LOSS, OTHER_LOSS = Loss("first"), Loss("second")
MINE, OTHER = UserError("mine"), UserError("other")
INTERRUPT, EXIT = KeyboardInterrupt(), SystemExit(1)
GROUP = ExceptionGroup("the user's", [MINE, LOSS])


@pytest.mark.parametrize(
    ("members", "body", "result"),
    [
        # One is raised bare.
        ([MINE], None, MINE),
        ([LOSS], None, LOSS),
        ([GROUP], None, GROUP),
        # Interrupts win, the first of them.
        ([MINE, INTERRUPT], MINE, INTERRUPT),
        ([LOSS, EXIT, MINE], None, EXIT),
        ([INTERRUPT, EXIT], EXIT, INTERRUPT),
        # Errors of the user's before losses.
        ([LOSS, MINE], LOSS, MINE),
        ([LOSS, GROUP, OTHER_LOSS], LOSS, GROUP),
        # Of several losses the body's own, else the first.
        ([LOSS, OTHER_LOSS], OTHER_LOSS, OTHER_LOSS),
        ([LOSS, OTHER_LOSS], None, LOSS),
        ([LOSS, OTHER_LOSS], MINE, LOSS),
    ],
)
def test_reduced(
    members: list[BaseException], body: BaseException | None, result: BaseException
) -> None:
    assert collapse(group(*members), body, loss_in) is result


async def test_cancelled_is_dropped_if_anything_else_remains() -> None:
    first, second = await cancelled(), await cancelled()
    assert collapse(group(first, LOSS), first, loss_in) is LOSS
    assert collapse(group(first, MINE), first, loss_in) is MINE
    assert collapse(group(first, INTERRUPT), first, loss_in) is INTERRUPT
    assert collapse(group(first, second), second, loss_in) is second
    assert collapse(group(first, second), None, loss_in) is first


async def test_several_errors_are_a_group_without_the_rest() -> None:
    error = group(await cancelled(), MINE, LOSS, GROUP, OTHER)
    result = collapse(error, MINE, loss_in)
    assert type(result) is ExceptionGroup
    assert result.exceptions == (MINE, GROUP, OTHER)
    assert result.message == error.message
    assert result.__traceback__ is error.__traceback__ is not None


def test_what_is_no_group_is_left_alone() -> None:
    assert collapse(MINE, None, loss_in) is MINE
    assert collapse(LOSS, MINE, loss_in) is LOSS


def test_without_a_loss_to_look_for_every_error_is_the_users() -> None:
    result = collapse(group(LOSS, MINE), None)
    assert isinstance(result, ExceptionGroup)
    assert result.exceptions == (LOSS, MINE)


def copy(original: BaseExceptionGroup[BaseException]) -> BaseException:
    """Copy a group, the groups in it, too, as leaving a cancelled scope does."""
    return original.derive(
        [
            copy(member) if isinstance(member, BaseExceptionGroup) else member
            for member in original.exceptions
        ]
    )


NESTED = ExceptionGroup("outer", [GROUP, OTHER])


@pytest.mark.parametrize("body", [GROUP, NESTED], ids=["flat", "nested"])
def test_copy_of_the_bodys_group_is_the_bodys_group(
    body: ExceptionGroup[Exception],
) -> None:
    assert collapse(group(copy(body)), body, loss_in) is body
    result = collapse(group(OTHER, copy(body)), body, loss_in)
    assert isinstance(result, ExceptionGroup)
    assert result.exceptions[1] is body


@pytest.mark.parametrize(
    "body",
    [
        MINE,
        ExceptionGroup("shorter", [MINE]),
        ExceptionGroup("longer", [MINE, LOSS, OTHER]),
        ExceptionGroup("other", [MINE, OTHER_LOSS]),
        ExceptionGroup("deeper", [MINE, ExceptionGroup("", [LOSS])]),
    ],
    ids=str,
)
def test_other_group_is_no_copy_of_the_bodys(body: BaseException) -> None:
    assert collapse(group(GROUP), body, loss_in) is GROUP


class Block:
    """A block that is left in one way."""

    def __init__(
        self, *, suppresses: bool = False, raises: BaseException | None = None
    ) -> None:
        self._suppresses = suppresses
        self._raises = raises
        self.left_with: tuple[object, ...] = ()

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, *details: object) -> bool:
        self.left_with = details
        if self._raises is not None:
            raise self._raises
        return self._suppresses


async def test_exit_of() -> None:
    for exc in (None, MINE):
        details = (type(exc), exc, exc.__traceback__) if exc else (None, None, None)
        for suppresses in (True, False):
            block = Block(suppresses=suppresses)
            assert await aexit(block, exc) is (None if suppresses else exc)
            assert block.left_with == details
        block = Block(raises=OTHER)
        assert await aexit(block, exc) is OTHER


@pytest.mark.parametrize("context", [None, OTHER])
@pytest.mark.parametrize("handling", [False, True])
def test_raise_as_is_keeps_the_context(
    handling: bool, context: BaseException | None
) -> None:
    exc = UserError()
    exc.__context__ = context

    def act() -> NoReturn:
        if not handling:
            raise_as_is(exc)
        try:
            raise LookupError
        except LookupError:
            raise_as_is(exc)

    with pytest.raises(UserError) as caught:
        act()
    assert caught.value is exc
    assert exc.__context__ is context
