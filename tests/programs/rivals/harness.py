"""What the scenarios share: how they are listed, judged and bounded.

A scenario returns a few words for the table when all is well, and calls wrong()
otherwise. wrong() ends the process on the spot: unwinding would run the library's
own clean-up, which may be the very thing that hangs.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import NoReturn

import trio

from tests.programs.rivals.adapters import Handler, Library, Options
from tests.programs.rivals.wire import Wire

QUIET = Options()
KEEPALIVE = Options(ping_interval=0.3, ping_timeout=0.3, close_timeout=0.5)
MIB = 1 << 20


Run = Callable[[Library], Awaitable[str]]


@dataclass(frozen=True)
class Scenario:
    key: str
    title: str
    run: Run


class Scenarios(dict[str, Scenario]):
    """The scenarios of one module."""

    def add(self, key: str, title: str) -> Callable[[Run], Run]:
        def register(run: Run) -> Run:
            self[key] = Scenario(key, title, run)
            return run

        return register


def verdict(ok: bool, text: str) -> NoReturn:
    print(json.dumps({"ok": ok, "text": text}), flush=True)
    os._exit(0)


def wrong(text: str) -> NoReturn:
    verdict(False, text)


@contextlib.contextmanager
def limit(seconds: float, text: str) -> Iterator[None]:
    """Call wrong(text) unless the block ends in time.

    A thread and not a cancel scope: the user's code isn't cancelled, and no code
    of the library's can keep the verdict waiting.
    """
    timer = threading.Timer(seconds, wrong, [text])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextlib.asynccontextmanager
async def library_server(
    library: Library, handler: Handler, options: Options = QUIET
) -> AsyncIterator[int]:
    """Run the library's server and yield its port. That it ends is wrong."""

    async def run(task_status: trio.TaskStatus[int]) -> None:
        try:
            await library.serve(handler, options, task_status=task_status)
        except* Exception as group:  # noqa: BLE001 - wrong() doesn't return
            error: BaseException = group
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            wrong(f"the whole server dies of {type(error).__name__}")

    async with trio.open_nursery() as nursery:
        yield await nursery.start(run)
        nursery.cancel_scope.cancel()


async def close_seen(wire: Wire) -> str:
    """What the library said in the end; its Close frame is answered."""
    seen = await wire.ending()
    if seen.startswith("Close"):
        await wire.answer_close()
    return seen


async def never_reads(wire: Wire) -> None:
    await trio.sleep_forever()
