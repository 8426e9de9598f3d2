"""Where a Unix socket may be."""

from __future__ import annotations

import pathlib

import pytest


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "socket"
