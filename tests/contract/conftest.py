"""What the tests of the contract share."""

from __future__ import annotations

import math

import pytest

from trio_ws._endpoint import reader


@pytest.fixture
def all_is_quick(receivers_read_soon: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let receivers read, however slowly the machine passes messages on."""
    monkeypatch.setattr(reader, "_QUICK", math.inf)
