"""Reruns a scenario with a cancellation at each moment at which one can come.

What can cancel a task is another task, a deadline or the kernel, and trio runs
those between two steps of tasks. So the moments are, exactly: before the
operation begins; after each step of any task while it is under way; and, since
I/O and deadlines are processed between batches of steps, before the first step
of each batch. A trio.abc.Instrument is called right there, and CancelScope.cancel()
takes effect at once: a task that waits is woken with Cancelled before anything
else can wake it, a task that was woken already goes on and meets the cancellation
at its next checkpoint. The k-th schedule point of the operation's own task is one
of these moments, once as it goes to sleep and once as it wakes up.

checkpoint_if_cancelled() isn't a schedule point: nobody can cancel in it. It is
reached by a cancellation that came before the call, or between a wake-up and it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Self

import trio
import trio.testing

from tests.leaks import descriptors

Scenario = Callable[["Moments"], Awaitable[None]]

# Virtual seconds under MockClock, where it costs nothing; real ones, in which
# only a hang ends, over sockets.
PATIENCE = 600.0
REAL_PATIENCE = 30.0


class Moments(trio.abc.Instrument):
    """Counts the moments of an operation, and acts at one of them.

    ``with moments.watch(act):`` around the operation; moment 0 is before it.
    """

    def __init__(self, at: int) -> None:
        self.at = at
        self.passed = 0
        self.fired = False
        self._act: Callable[[], object] | None = None
        self._new_batch = False

    def watch(self, act: Callable[[], object]) -> Self:
        self._act = act
        return self

    def __enter__(self) -> None:
        if self.at == 0:
            self._fire()

    def __exit__(self, *_: object) -> None:
        self._act = None

    def after_io_wait(self, timeout: float) -> None:
        self._new_batch = True

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._new_batch:
            self._new_batch = False
            self._pass()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self._pass()

    def _pass(self) -> None:
        if self._act is not None:
            self.passed += 1
            if self.passed == self.at:
                self._fire()

    def _fire(self) -> None:
        assert self._act is not None
        self._act()
        self.fired = True


def sweep(scenario: Scenario, *, mock_clock: bool, stride: int = 1) -> int:
    """Run a scenario for each moment until one comes after its end.

    After each run no task and no descriptor may be left. Return how many
    moments there were.
    """
    at = 0
    while True:
        moments = Moments(at)
        before = descriptors()
        try:
            trio.run(
                _run,
                scenario,
                moments,
                PATIENCE if mock_clock else REAL_PATIENCE,
                clock=trio.testing.MockClock(autojump_threshold=0)
                if mock_clock
                else None,
                instruments=[moments],
                strict_exception_groups=True,
            )
            left = descriptors() - before
            assert not left, f"descriptors left open: {left}"
        except Exception as exc:
            exc.add_note(f"with the cancellation at moment {at}")
            raise
        if not moments.fired:
            assert moments.passed < at, "the instrument was disabled"
            return at
        at += stride


async def _run(scenario: Scenario, moments: Moments, patience: float) -> None:
    living = trio.lowlevel.current_statistics().tasks_living
    with trio.fail_after(patience):
        await scenario(moments)
    left = trio.lowlevel.current_statistics().tasks_living - living
    assert not left, f"{left} tasks are left"
