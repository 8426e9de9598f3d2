"""What stops a program: signals of process managers and of terminals."""

from __future__ import annotations

import signal
import sys
from collections.abc import Awaitable, Callable, Sequence

import trio

from .._connection.groups import run_in_nursery
from .._endpoint.identity import AnyLogger

if sys.platform == "win32":  # which has no SIGTERM that a program can catch
    STOP_SIGNALS = signal.SIGINT, signal.SIGBREAK
else:
    STOP_SIGNALS = signal.SIGINT, signal.SIGTERM


async def stop_on_signal(
    signals: Sequence[int],
    stop: Callable[[], Awaitable[None]],
    done: trio.Event,
    logger: AnyLogger,
) -> None:
    """Call ``stop`` on the first signal, cancel it on the second; wait for ``done``.

    Raises RuntimeError in another thread than Python's main one.
    """
    with trio.open_signal_receiver(*signals) as received:

        async def watch(nursery: trio.Nursery) -> None:
            async def end() -> None:
                await done.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(end)
            number = await anext(received)
            logger.info("stopping on %s", _name(number))
            nursery.start_soon(stop)
            number = await anext(received)
            logger.info("stopping at once on %s", _name(number))
            nursery.cancel_scope.cancel()

        await run_in_nursery(watch)
    await done.wait()


def _name(number: int) -> str:
    """Return the name of a signal; those of real time have none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
