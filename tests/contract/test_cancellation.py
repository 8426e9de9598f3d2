"""Each public coroutine, cancelled at each moment at which it can be."""

from __future__ import annotations

import functools
import inspect
import os
from contextlib import nullcontext

import pytest

import trio_ws
import trio_ws.testing
from tests.contract.moments import Moments, sweep
from tests.contract.operations import RECEIVING, ROWS, Row, run_operation
from tests.contract.scopes import BLOCKS, Block
from tests.leaks import descriptors
from tests.platforms import needs_posix
from trio_ws.testing import full_checkpoints

pytestmark = pytest.mark.sweep

SIDES = pytest.mark.parametrize("client", [True, False], ids=["client", "server"])


def of_rows(*transports: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        ("row", "transport"),
        [
            pytest.param(row, transport, id=f"{row.name}-{transport}")
            for row in ROWS
            for transport in row.transports
            if transport in transports
        ],
    )


@SIDES
@pytest.mark.parametrize("full", [True, False], ids=["full", "amortised"])
@of_rows("memory", "lockstep")
def test_operation(row: Row, transport: str, client: bool, full: bool) -> None:
    scenario = functools.partial(
        run_operation, row, transport, client=client, full=full
    )
    # Without the switch some calls have no schedule point at all.
    assert sweep(scenario, mock_clock=True) > (1 if full else 0)


@pytest.mark.usefixtures("each_way")
@SIDES
@of_rows("tcp", "tls")
def test_operation_on_sockets(row: Row, transport: str, client: bool) -> None:
    scenario = functools.partial(
        run_operation, row, transport, client=client, full=True
    )
    assert sweep(scenario, mock_clock=False) > 1


@pytest.mark.usefixtures("each_way")
@pytest.mark.usefixtures("all_is_quick")
@SIDES
@pytest.mark.parametrize(
    ("row", "transport"),
    [
        pytest.param(row, transport, id=f"{row.name}-{transport}")
        for row in ROWS
        if "tcp" in row.transports
        for transport in (("tcp", "tls") if row in RECEIVING else ("tcp",))
    ],
)
def test_operation_where_receivers_read(row: Row, transport: str, client: bool) -> None:
    scenario = functools.partial(
        run_operation, row, transport, client=client, full=True, quick=True
    )
    # The peer waits for a nap's end, in real time, to get rid of a large message.
    stride = 10 if row.name == "recv-large" else 1
    assert sweep(scenario, mock_clock=False, stride=stride) > 1


@pytest.mark.parametrize(
    ("block", "full"),
    [
        pytest.param(block, full, id=f"{block.name}-{'full' if full else 'amortised'}")
        for block in BLOCKS
        for full in (True, False)
        if full or block.amortised
    ],
)
def test_block(block: Block, full: bool) -> None:
    async def scenario(moments: Moments) -> None:
        with full_checkpoints() if full else nullcontext():
            await block.run(moments)

    assert sweep(scenario, mock_clock=block.mock_clock) > 10


# -- Nothing is forgotten ----------------------------------------------------


def public_coroutines() -> set[str]:
    """Return the names of all public coroutines, methods as Class.method.

    Those that a class has from one that is public too are named there.
    """
    found = set()
    for module in (trio_ws, trio_ws.testing):
        for name in module.__all__:
            thing = getattr(module, name)
            if inspect.iscoroutinefunction(inspect.unwrap(thing)):
                found.add(name)
            elif inspect.isclass(thing):
                for attribute, value in inspect.getmembers(thing, is_coroutine):
                    public = not attribute.startswith("_") or attribute.endswith("__")
                    if public and not inherited(thing, attribute, value):
                        found.add(f"{name}.{attribute}")
    return found


def is_coroutine(value: object) -> bool:
    return inspect.iscoroutinefunction(value) or inspect.isasyncgenfunction(value)


def inherited(kind: type, attribute: str, value: object) -> bool:
    return any(
        getattr(base, attribute, None) is value
        for base in kind.__mro__[1:]
        if base.__name__ in trio_ws.__all__
    )


def test_every_public_coroutine_is_swept() -> None:
    covers = [row.covers for row in ROWS] + [block.covers for block in BLOCKS]
    assert public_coroutines() == {name for names in covers for name in names}


@needs_posix
def test_descriptors_are_counted() -> None:
    before = descriptors()
    with open(os.devnull):
        assert len(descriptors() - before) == 1
