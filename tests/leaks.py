"""What a test may leave behind: tasks and file descriptors."""

from __future__ import annotations

import gc
import os

import trio


def living_tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living


def open_descriptors() -> int:
    """How many descriptors this process has open; 0 where the system doesn't tell."""
    if os.name != "posix":
        return 0
    gc.collect()  # of earlier tests
    return len(os.listdir("/dev/fd"))
