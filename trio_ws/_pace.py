"""Fair to others, yet cheap: a schedule point now and then, not at every call.

Each public coroutine is a cancellation point. It is a schedule point, too, if it
waits; if it doesn't (a message is there, the socket takes what is sent), only
every 64th call is, or the first one after a millisecond, counted over all
connections of a trio run. Of many tasks each has less than that millisecond.
"""

from __future__ import annotations

from time import perf_counter

import trio
from trio.lowlevel import enable_ki_protection

CALLS = 64
SECONDS = 0.001
_LARGE = 16  # calls

# Where many tasks have more to do than that, one turn of the loop, in which each has
# a step, would take as many milliseconds. So they share these; but as a switch of
# tasks isn't free, each has the least.
_TURN = 0.005
_LEAST = 0.0001


class Pacer:
    """The counter of a trio run."""

    __slots__ = ("_calls", "_limit", "_resting", "_turn", "_until", "seconds")

    def __init__(self, limit: int = CALLS) -> None:
        self._limit = limit
        self._calls = 0
        # perf_counter() and not trio's clock: a MockClock stands still.
        self._until = 0.0
        self._turn = 0  # of the loop, counted where somebody rests
        self._resting = 0  # how many tasks have rested in it
        self.seconds = SECONDS  # how long a step of a task may be

    async def step(self) -> None:
        """Be a cancellation point, and a schedule point if it is time for one."""
        if self.is_due():
            await self.rest()
        else:
            await trio.lowlevel.checkpoint_if_cancelled()

    def is_due(self) -> bool:
        """Count a call; return whether it has to rest().

        The two halves of step(), for calls that are too frequent for a coroutine
        more: what isn't due is still a cancellation point.
        """
        self._calls += 1
        return self._calls >= self._limit or perf_counter() >= self._until

    @enable_ki_protection  # a KeyboardInterrupt comes at the checkpoint or not at all
    async def rest(self) -> None:
        """Let other tasks run."""
        turn = self._turn
        self._resting += 1
        await trio.lowlevel.checkpoint()
        if self._turn == turn:
            # The first to be back: since then all who rested had their step.
            self.seconds = min(SECONDS, max(_TURN / self._resting, _LEAST))
            self._resting = 0
            self._turn += 1
        self.waited()

    def wrote_much(self) -> None:
        """Count a large write, which is as good as some calls.

        A reader in this process finds what was written in the processor's cache if
        it has its turn before there is too much of it.
        """
        self._calls += _LARGE

    def waited(self) -> None:
        """Take note that other tasks have just had their turn."""
        self._calls = 0
        self._until = perf_counter() + self.seconds


_pacer: trio.lowlevel.RunVar[Pacer] = trio.lowlevel.RunVar("trio_ws pacer")


def current_pacer() -> Pacer:
    """Return the counter of the current trio run."""
    try:
        return _pacer.get()
    except LookupError:
        pacer = Pacer()
        _pacer.set(pacer)
        return pacer


def set_limit(limit: int) -> int:
    """Set how many calls make a schedule point; return what it was."""
    pacer = current_pacer()
    before = pacer._limit
    pacer._limit = limit
    return before
