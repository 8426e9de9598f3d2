"""What a test may leave behind: tasks and file descriptors."""

from __future__ import annotations

import gc
import os

import trio


def living_tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living


def descriptors() -> set[str]:
    """The descriptors that this process has open; none where they are no files."""
    return set(os.listdir("/dev/fd")) if os.name == "posix" else set()


def open_descriptors() -> int:
    """How many there are of them, once what is garbage has been collected."""
    gc.collect()  # of earlier tests
    return len(descriptors())
