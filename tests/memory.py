"""What objects take in memory, and when they are freed, as CPython has it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

MEASURED = sys.implementation.name == "cpython"

if TYPE_CHECKING or MEASURED:
    import tracemalloc
else:
    tracemalloc = None

__all__ = ["MEASURED", "counts_references", "measures_memory", "tracemalloc"]

measures_memory = pytest.mark.cpython("it measures memory with tracemalloc")
counts_references = pytest.mark.cpython("objects are freed with their last reference")
