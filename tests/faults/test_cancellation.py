"""Each public coroutine, cancelled at each moment at which it can be."""

from __future__ import annotations

import functools

import pytest

from tests.faults.moments import sweep
from tests.faults.operations import ROWS, Row, run_operation

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


@SIDES
@of_rows("tcp", "tls")
def test_operation_on_sockets(row: Row, transport: str, client: bool) -> None:
    scenario = functools.partial(
        run_operation, row, transport, client=client, full=True
    )
    assert sweep(scenario, mock_clock=False) > 1
