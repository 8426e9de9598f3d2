"""Blocks of each kind, what their peers are told, and how they are left."""

from __future__ import annotations

import gc
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    contextmanager,
    nullcontext,
)
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from tests.peers.wsproto_peer import open_against_peer
from trio_ws import ServerConnection, reconnect, serve
from trio_ws.testing import open_pair

# Before, a task that ends in a block passes unseen, and its nurseries go on.
TRIO_GIVES_UP = tuple(map(int, trio.__version__.split(".")[:2])) >= (0, 31)

Block = AbstractAsyncContextManager[Any]

ALL = ["connect", "accept", "attempt", "open_pair"]


class Subject:
    """A block of each kind, and what its peer was told."""

    def __init__(self, block: Block, told: Callable[[], Awaitable[int | None]]) -> None:
        self.block = block
        self.told = told
        self.ends: list[Any] = []  # ours, once it is entered

    @property
    def ws(self) -> Any:
        return self.ends[0]

    async def enter(self) -> Any:
        entered = await self.block.__aenter__()
        self.ends = list(entered) if isinstance(entered, tuple) else [entered]
        return self.ws

    async def generator(self) -> AsyncGenerator[Any, None]:
        async with self.block as entered:
            self.ends = list(entered) if isinstance(entered, tuple) else [entered]
            yield self.ws

    async def leave(self) -> None:
        await self.block.__aexit__(None, None, None)


async def subject(kind: str, nursery: trio.Nursery) -> Subject:
    if kind == "attempt":
        return await attempt(nursery)
    if kind == "open_pair":

        async def told_by_the_server() -> int | None:
            code: int | None = made.ws.close_code
            return code

        made = Subject(open_pair(), told_by_the_server)
        return made
    block, _, peer = open_against_peer(client=kind == "connect")
    nursery.start_soon(peer.run)

    async def told() -> int | None:
        await trio.testing.wait_all_tasks_blocked()
        return peer.close_code

    return Subject(block, told)


async def attempt(nursery: trio.Nursery) -> Subject:
    codes: list[int | None] = []
    ended = trio.Event()

    async def handler(ws: ServerConnection) -> None:
        async for _ in ws:
            pass
        codes.append(ws.close_code)
        ended.set()

    async def told() -> int | None:
        await ended.wait()
        return codes[0]

    server = await nursery.start(partial(serve, handler, 0, host="127.0.0.1"))
    attempts = reconnect(f"ws://127.0.0.1:{server.port}/")
    return Subject(await anext(attempts), told)


async def raised_elsewhere(call: Callable[[], Awaitable[object]]) -> RuntimeError:
    """Return what a call raises in another task."""

    async def elsewhere() -> None:
        with pytest.raises(RuntimeError) as caught:
            await call()
        errors.append(caught.value)

    errors: list[RuntimeError] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(elsewhere)
    return errors[0]


def check_text(error: BaseException, entered_in: str, left_in: str) -> None:
    text = str(error)
    assert f"entered in the task {entered_in}" in text
    assert f"left in the task {left_in}" in text
    assert "contextlib.aclosing()" in text
    assert "trio.as_safe_channel" in text


def drop_garbage() -> None:
    """Have what was dropped noticed, on a Python without reference counts, too."""
    gc.collect()


@contextmanager
def dropped_generators(caplog: pytest.LogCaptureFixture) -> Iterator[list[Any]]:
    """Collect what generators raise that trio finishes, which says so by itself."""
    raised: list[Any] = []
    with pytest.warns(ResourceWarning, match="Async generator .* garbage collected"):
        yield raised
    for record in caplog.records:
        if record.name == "trio.async_generator_errors":
            assert record.exc_info
            raised.append(record.exc_info[1])


CORRUPTED = pytest.RaisesExc(RuntimeError, match="Nursery stack corrupted")


def corrupts() -> AbstractContextManager[object]:
    """Expect what trio says where a task has ended in a block."""
    return pytest.RaisesGroup(CORRUPTED) if TRIO_GIVES_UP else nullcontext()
