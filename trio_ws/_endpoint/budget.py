"""Fair to others, yet cheap: a schedule point now and then, not at every call.

Each public coroutine is a cancellation point. It is a schedule point, too, if it
waits; if it doesn't (a message is there, the socket takes what is sent), only
every 64th call is, or the first one after a millisecond, counted over all
connections of a trio run. Of many tasks each has less than that millisecond; and
where even the least that each can do takes long, as to inflate a message, they
do it in several turns of the loop, first come, first served.
"""

from __future__ import annotations

from math import inf
from time import perf_counter

import trio
from trio.lowlevel import enable_ki_protection

from .counter import CALLS, SECONDS, CallCounter

_LARGE = 16  # calls

# Where many tasks have more than a millisecond of work each, one turn of the loop would
# take that many milliseconds. So all of them share _TURN, in seconds; but since
# switching tasks isn't free, none gets less than _LEAST. Who is late in a turn that has
# lasted longer waits for another. An echo takes up to three turns: to be read, unless a
# poller does so before the turn's tasks, to be received, and since trio shuffles.
_TURN = 0.0025
_LEAST = 0.0001


class Budget(CallCounter):
    """The counter of a trio run."""

    __slots__ = ("_began", "_line", "_resting", "_turn", "long_step")

    def __init__(self, limit: int = CALLS) -> None:
        super().__init__(limit)
        self._turn = 0  # of the loop, counted where somebody rests
        self._resting = 0  # how many tasks have rested in it
        self._began = -inf  # when the first of them was back
        self._line = trio.Lock()  # of those who were late
        # Somebody's step was longer than is fair: before others take one that may be
        # as long, they rest.
        self.long_step = False

    async def checkpoint(self) -> None:
        """Be a cancellation point, and a schedule point if it is time for one.

        spend() and yield_() are its halves, for calls that are too frequent for a
        coroutine more: what isn't due is still a cancellation point.
        """
        if self.spend() or self.long_step:
            await self.yield_()
        else:
            await trio.lowlevel.checkpoint_if_cancelled()

    @enable_ki_protection  # a KeyboardInterrupt comes at the checkpoint or not at all
    async def yield_(self) -> None:
        """Let other tasks run."""
        await self._rest()
        if self._late():
            async with self._line:
                if self._late():
                    await self._rest()
        self.renew()

    async def _rest(self) -> None:
        turn = self._turn
        self._resting += 1
        await trio.lowlevel.checkpoint()
        if self._turn == turn:
            # The first to be back: since then all who rested had their step.
            self.seconds = min(SECONDS, max(_TURN / self._resting, _LEAST))
            self._resting = 0
            self._turn += 1
            self._began = perf_counter()
            self.long_step = False

    def _late(self) -> bool:
        return perf_counter() - self._began > _TURN

    def wrote_much(self) -> None:
        """Count a large write, which is as good as some calls.

        A reader in this process finds what was written in the processor's cache if
        it has its turn before there is too much of it.
        """
        self.calls += _LARGE


_budget: trio.lowlevel.RunVar[Budget] = trio.lowlevel.RunVar("trio_ws budget")


def current_budget() -> Budget:
    """Return the counter of the current trio run."""
    try:
        return _budget.get()
    except LookupError:
        budget = Budget()
        _budget.set(budget)
        return budget


def check_run(budget: Budget | None, call: str, of: str = "connection") -> Budget:
    """Raise RuntimeError unless this is the trio run of ``budget``; of any if None.

    Return the counter of the run.

    From another thread a call works by luck, until the socket is full.
    """
    try:
        current = current_budget()
        if current is budget or budget is None:
            return current
    except RuntimeError:
        pass
    raise RuntimeError(
        f"{call}() was called outside the trio run of the {of}; in another "
        f"thread, call it by trio.from_thread.run() or trio.from_thread.run_sync()"
    ) from None


def set_limit(limit: int) -> int:
    """Set how many calls make a schedule point; return what it was."""
    budget = current_budget()
    before = budget.limit
    budget.limit = limit
    return before
