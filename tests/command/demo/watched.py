"""A lane that runs while a block does, and what it has told."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_ws._command.demo.lane import Lane


class Watched:
    def __init__(self) -> None:
        self.told: list[tuple[str, str, str, str]] = []
        self.lane = Lane(lambda *what: self.told.append(what))

    def of(self, side: str, kind: str) -> list[str]:
        """What a side has told of this kind."""
        return [text for s, k, text, _ in self.told if (s, k) == (side, kind)]

    @property
    def log(self) -> list[str]:
        """The first lines of what the server has logged, without whose they are."""
        return [
            re.sub(r"[0-9a-f]{8} \S+:\d+ ", "", text.partition("\n")[0])
            for text in self.of("server", "log")
        ]


async def until(
    condition: Callable[[], bool], clock: MockClock | None = None, step: float = 0
) -> None:
    """Wait for what comes of bytes on their way; with a clock, that goes on."""
    for _ in range(2000):
        await wait_all_tasks_blocked(0.01)
        if condition():
            return
        if clock is not None:
            clock.jump(step)
    raise AssertionError("it doesn't come")


async def turned(condition: Callable[[], bool]) -> None:
    """Wait for what comes while tasks never stop."""
    while not condition():
        await trio.lowlevel.checkpoint()


@asynccontextmanager
async def watched() -> AsyncIterator[Watched]:
    """Open a lane; cancel what is left of it in the end."""
    result = Watched()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(result.lane.run)
        await until(lambda: "messages" in result.lane.snapshot())
        yield result
        nursery.cancel_scope.cancel()
