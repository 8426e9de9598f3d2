"""The soak test runs; see ``make soak`` for long."""

from __future__ import annotations

import random

import pytest

from tests.programs import soak


@pytest.mark.realtime(seconds=1)
@pytest.mark.parametrize("secured", [False, True])
async def test_one_connection(secured: bool) -> None:
    messages, _ = await soak.one_round(random.Random(1), secured)
    assert messages > 0
