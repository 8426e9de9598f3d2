"""What stops a program: signals of process managers and of terminals."""

from __future__ import annotations

import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager

import trio
from trio.lowlevel import RunVar

from .._connection.groups import run_in_nursery
from .._endpoint.identity import AnyLogger

if sys.platform == "win32":  # which has no SIGTERM that a program can catch
    STOP_SIGNALS = signal.SIGINT, signal.SIGBREAK
else:
    STOP_SIGNALS = signal.SIGINT, signal.SIGTERM

# Handlers of a signal must be taken back in the reverse order; calls end in any.
_waited_for: RunVar[frozenset[int]] = RunVar("trio_ws stop signals", frozenset())


async def stop_on_signal(
    signals: Sequence[int],
    stop: Callable[[], Awaitable[None]],
    done: trio.Event,
    logger: AnyLogger,
) -> None:
    """Call ``stop`` on the first signal, cancel it on the second; wait for ``done``.

    Raises TypeError or ValueError for what is no signal that can be caught,
    RuntimeError in another thread than Python's main one, and while another call waits
    for one of them.
    """
    _check(signals)
    with _alone(set(signals)), trio.open_signal_receiver(*signals) as received:

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


def _check(signals: Sequence[object]) -> None:
    caught = signal.valid_signals()
    if sys.platform != "win32":
        caught = caught - {signal.SIGKILL, signal.SIGSTOP}
    for one in signals:
        if not isinstance(one, int) or isinstance(one, bool):
            raise TypeError(f"signals: expected ints, as signal.SIGINT; got {one!r}")
        if one not in caught:
            raise ValueError(f"signals: expected ones that can be caught; got {one!r}")


@contextmanager
def _alone(signals: set[int]) -> Iterator[None]:
    taken = _waited_for.get()
    if both := taken & signals:
        names = ", ".join(sorted(map(_name, both)))
        raise RuntimeError(
            f"aclose_on_signal() waits for {names} already; to stop several servers, "
            "wait for it yourself, with trio.open_signal_receiver(), and call aclose() "
            "of each"
        )
    _waited_for.set(taken | signals)
    try:
        yield
    finally:
        _waited_for.set(_waited_for.get() - signals)


def _name(number: int) -> str:
    """Return the name of a signal; those of real time have none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
