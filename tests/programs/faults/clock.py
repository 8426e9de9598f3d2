"""A clock that jumps when it is told to, as after a machine has slept."""

from __future__ import annotations

from time import perf_counter

import trio


class JumpingClock(trio.abc.Clock):
    """Real time, and what has been jumped over."""

    def __init__(self) -> None:
        self._jumped = 0.0

    def jump(self, seconds: float) -> None:
        """Go on so many seconds later."""
        self._jumped += seconds

    def start_clock(self) -> None:
        """Do nothing: it goes."""

    def current_time(self) -> float:
        """Return the time, in seconds since some moment."""
        return perf_counter() + self._jumped

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Return how long to sleep until then."""
        return deadline - self.current_time()


JUMPING = JumpingClock()
