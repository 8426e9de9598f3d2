"""An asyncio loop in a thread, driven from trio."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

import trio

T = TypeVar("T")


class AsyncioThread:
    """``with AsyncioThread() as thread: await thread.run(coroutine)``.

    Leaving it fails for what asyncio would have logged: an exception nobody
    took, a callback that failed, a task left over.
    """

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._problems: list[str] = []
        # Closed at the end, also by a test that failed half-way.
        self.resources: list[Callable[[], Awaitable[object]]] = []
        self._loop.set_exception_handler(
            lambda _, context: self._problems.append(repr(context))
        )
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._wind_up(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        if exc is None:
            assert self._problems == []

    async def _wind_up(self) -> None:
        for close in self.resources:
            await close()
        # Transports end on the turn after the one in which they were closed.
        for _ in range(3):
            await asyncio.sleep(0)
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        self._problems.extend(f"left over: {task!r}" for task in tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._loop.shutdown_asyncgens()

    async def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine of asyncio; a cancellation in trio cancels it."""
        token = trio.lowlevel.current_trio_token()
        done = trio.Event()
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        future.add_done_callback(lambda _: _tell(token, done))
        try:
            await done.wait()
        except trio.Cancelled:
            future.cancel()
            raise
        return future.result()


def _tell(token: trio.lowlevel.TrioToken, done: trio.Event) -> None:
    try:
        token.run_sync_soon(done.set)
    except trio.RunFinishedError:
        pass  # cancelled, and trio was faster
