# cython: annotation_typing=False
"""How much is done in a row before others have their turn; see ``budget``."""

from __future__ import annotations

from time import perf_counter

from . import threads

CALLS = 64
SECONDS = 0.001


class CallCounter:
    """Counts calls until it is time to let others run."""

    __slots__ = ("calls", "limit", "seconds", "thread", "until")

    def __init__(self, limit: int = CALLS) -> None:
        self.limit = limit
        self.calls = 0
        # perf_counter() and not trio's clock: a MockClock stands still.
        self.until = 0.0
        self.seconds = SECONDS  # how long a step of a task may be
        self.thread = threads.get_ident()

    def spend(self) -> bool:
        """Count a call; return whether it has to let others run.

        Raises what check_thread() raises.
        """
        if threads.get_ident() != self.thread:
            self.check_thread()
        self.calls += 1
        return self.calls >= self.limit or perf_counter() >= self.until

    def check_thread(self) -> None:
        """Raise RuntimeError in another thread, where a call would work by luck."""
        if threads.get_ident() != self.thread:
            raise RuntimeError(
                "a connection was used outside its trio run; in another thread, call "
                "its methods by trio.from_thread.run() or trio.from_thread.run_sync()"
            )

    def renew(self) -> None:
        """Count anew: other tasks have just had their turn."""
        self.calls = 0
        self.until = perf_counter() + self.seconds
