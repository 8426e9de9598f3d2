"""Schedule points: seldom enough to be cheap, often enough to be fair."""

from __future__ import annotations

import itertools
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable
from types import FrameType

import pytest
import trio
import trio.testing

from trio_ws import ServerConnection, connect, open_server
from trio_ws._endpoint import budget as _budget
from trio_ws._endpoint import counter as _counter
from trio_ws._endpoint.budget import Budget, current_budget, set_limit
from trio_ws._endpoint.counter import CALLS
from trio_ws.testing import open_pair


class Steps(trio.abc.Instrument):
    """Counts how often the task that made it is scheduled."""

    def __init__(self) -> None:
        self._task = trio.lowlevel.current_task()
        self.count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += task is self._task


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What perf_counter() says: a machine's speed decides nothing here."""
    now = [1000.0]
    for module in (_budget, _counter):
        monkeypatch.setattr(module, "perf_counter", lambda: now[0])
    return now


async def schedule_points(calls: int, call: Callable[[], Awaitable[object]]) -> int:
    steps = Steps()
    trio.lowlevel.add_instrument(steps)
    for _ in range(calls):
        await call()
    trio.lowlevel.remove_instrument(steps)
    return steps.count


async def test_every_64th_call_is_a_schedule_point(now: list[float]) -> None:
    budget = Budget()
    assert (
        await schedule_points(1, budget.checkpoint) == 1
    )  # nobody knows what was before
    assert await schedule_points(CALLS - 1, budget.checkpoint) == 0
    assert await schedule_points(1, budget.checkpoint) == 1
    assert await schedule_points(10 * CALLS, budget.checkpoint) == 10


async def test_the_first_call_after_a_millisecond_is_one(now: list[float]) -> None:
    budget = Budget()
    await budget.checkpoint()
    now[0] += 0.0009
    assert await schedule_points(1, budget.checkpoint) == 0
    now[0] += 0.0001
    assert await schedule_points(1, budget.checkpoint) == 1
    assert await schedule_points(1, budget.checkpoint) == 0


async def test_a_call_that_waited_starts_the_count_anew(now: list[float]) -> None:
    budget = Budget()
    await budget.checkpoint()
    assert await schedule_points(CALLS - 1, budget.checkpoint) == 0
    budget.renew()
    assert await schedule_points(CALLS - 1, budget.checkpoint) == 0


async def test_many_with_long_steps_share_a_turn_of_the_loop(now: list[float]) -> None:
    budget = Budget()
    steps = [0] * 20
    gaps: list[float] = []

    async def works(which: int) -> None:
        while True:
            await budget.yield_()
            now[0] += 0.0016  # to inflate a message of 1 MiB
            steps[which] += 1

    async with trio.open_nursery() as nursery:
        for which in range(len(steps)):
            nursery.start_soon(works, which)
        for _ in range(1000):
            before = now[0]
            await trio.lowlevel.checkpoint()
            gaps.append(now[0] - before)
        nursery.cancel_scope.cancel()
    # The first turns aside: nobody knows yet.
    assert max(gaps[2:]) < 0.01
    assert sum(gaps) / len(gaps) > 0.002
    assert min(steps) > sum(steps) / len(steps) / 2


async def test_who_waits_in_line_can_be_cancelled(now: list[float]) -> None:
    budget = Budget()
    done: list[str] = []

    async def works(name: str, scope: trio.CancelScope) -> None:
        with scope:
            await budget.yield_()
            now[0] += 0.006
            await budget.yield_()
            done.append(name)

    scopes = {name: trio.CancelScope() for name in "abcd"}
    async with trio.open_nursery() as nursery:
        for name, scope in scopes.items():
            nursery.start_soon(works, name, scope)
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
        for name in "bc":
            scopes[name].cancel()
    assert sorted(done) == ["a", "d"]


async def test_every_call_is_a_cancellation_point(now: list[float]) -> None:
    budget = Budget()
    await budget.checkpoint()
    for _ in range(3):
        with trio.CancelScope() as scope:
            scope.cancel()
            await budget.checkpoint()
        assert scope.cancelled_caught


async def test_one_counter_a_run() -> None:
    assert current_budget() is current_budget()
    before = set_limit(1)
    assert before == CALLS
    assert await schedule_points(5, current_budget().checkpoint) == 5
    assert set_limit(before) == 1


def test_runs_have_counters_of_their_own() -> None:
    async def budget() -> Budget:
        return current_budget()

    assert trio.run(budget) is not trio.run(budget)


async def test_receiving_what_is_there_is_fair(now: list[float]) -> None:
    async with open_pair(client_options={"max_queue": None}) as (client, server):
        for i in range(500):
            await server.send(str(i))
        await trio.testing.wait_all_tasks_blocked()
        assert await schedule_points(500, client.recv) in range(500 // CALLS, 9)


async def test_sending_what_is_taken_at_once_is_fair(now: list[float]) -> None:
    async with open_pair(
        client_options={"write_limit": 2**20}, server_options={"max_queue": None}
    ) as (client, _):
        count = await schedule_points(500, lambda: client.send("x"))
        assert count in range(500 // CALLS, 9)


async def test_pongs_are_fair(now: list[float]) -> None:
    async with open_pair() as (client, _):
        assert await schedule_points(500, client.pong) in range(500 // CALLS, 9)


async def test_two_connections_share_one_counter(now: list[float]) -> None:
    # A task that sends to many in turn must give way as often as one that
    # sends to one.
    async with open_pair() as (first, _), open_pair() as (second, _):

        async def both() -> None:
            await first.send("x")
            await second.send("x")

        assert await schedule_points(320, both) in range(640 // CALLS, 12)


async def test_another_task_has_its_turns(now: list[float]) -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with open_pair() as (client, server), trio.open_nursery() as nursery:
        await server.send("x")
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(other)
        for _ in range(20):
            before = turns
            # Of two tasks that can run, either may be the first.
            for _ in range(2 * CALLS):
                await client.send("x")
            assert turns > before
        nursery.cancel_scope.cancel()


class InterruptAt:
    """Traces Budget.yield_(); its ``at``-th line is interrupted by Control-C."""

    def __init__(self, at: int) -> None:
        self._left = at
        self.interrupted = False

    def __call__(self, frame: FrameType, event: str, _: object) -> object:
        if frame.f_code is Budget.yield_.__code__ and event == "line":
            self._left -= 1
            if self._left < 0 and not self.interrupted:
                self.interrupted = True
                signal.raise_signal(signal.SIGINT)
        return self


def broken_off(exc: BaseException) -> bool:
    """Tell whether Budget.yield_() was left elsewhere than where it waits."""
    if isinstance(exc, BaseExceptionGroup):
        return any(map(broken_off, exc.exceptions))
    codes = [frame.f_code for frame, _ in traceback.walk_tb(exc.__traceback__)]
    ours = (Budget.yield_.__code__, Budget._rest.__code__)
    waits = (ours[1], trio.lowlevel.checkpoint.__code__, trio.Lock.__aenter__.__code__)
    return any(
        code in ours and behind not in waits
        for code, behind in itertools.pairwise([*codes, None])
    )


@pytest.mark.parametrize("late", [False, True])
def test_an_interrupt_leaves_the_counter_whole(
    late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Control-C in one of two tasks that rest in the same turn of the loop, or of which
    # each is late and waits in line.
    times = itertools.count(step=1 if late else 0)
    monkeypatch.setattr(_budget, "perf_counter", lambda: next(times))
    caught: list[BaseException] = []

    async def rest(budget: Budget) -> None:
        for _ in range(3):
            await budget.yield_()

    async def main(trace: InterruptAt) -> None:
        budget = Budget()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rest, budget)
            await trio.lowlevel.checkpoint()
            before = sys.gettrace()  # of coverage
            sys.settrace(trace)  # type: ignore[arg-type]
            try:
                await rest(budget)
            except KeyboardInterrupt as exc:
                caught.append(exc)
                await rest(budget)
            finally:
                sys.settrace(before)

    for at in itertools.count():
        trace = InterruptAt(at)
        try:
            trio.run(main, trace)
        except (KeyboardInterrupt, BaseExceptionGroup) as exc:
            caught.append(exc)  # when the body is over, or all is
        if not trace.interrupted:
            break
    assert len(caught) == at
    assert at > 10  # lines, of several calls
    assert not any(map(broken_off, caught))
    groups = [exc for exc in caught if isinstance(exc, BaseExceptionGroup)]
    assert not any(group.split(KeyboardInterrupt)[1] for group in groups)


class LongestStep(trio.abc.Instrument):
    """Counts the calls that a task makes before another has its turn."""

    def __init__(self) -> None:
        self._calls = self.longest = self.total = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._calls = 0

    def called(self) -> None:
        self._calls += 1
        self.total += 1
        self.longest = max(self.longest, self._calls)


@pytest.mark.parametrize("connections", [1, 50])
@pytest.mark.parametrize("way", ["send", "recv", "iterate"])
async def test_a_firehose_gives_way_every_64_calls(
    way: str, connections: int, now: list[float]
) -> None:
    # Over sockets, and enough that the reader, receivers and writers all take part.
    steps = LongestStep()
    count = 20_000 // connections
    ended = 0

    async def pour(ws: ServerConnection) -> None:
        if way == "send":
            for _ in range(count):
                await ws.recv()
        else:
            for _ in range(count):
                await ws.send(b"x" * 20)
        await ws.wait_closed()

    async def drink(uri: str) -> None:
        nonlocal ended
        async with connect(uri, ping_interval=None) as ws:
            if way == "send":
                for _ in range(count):
                    await ws.send(b"x" * 20)
                    steps.called()
            elif way == "recv":
                for _ in range(count):
                    await ws.recv()
                    steps.called()
            else:
                left = count
                async for _ in ws:
                    steps.called()
                    left -= 1
                    if not left:
                        break
        ended += 1

    # A slow machine may take longer than a pong may.
    async with open_server(
        pour, 0, host="127.0.0.1", loss_grace=None, ping_interval=None
    ) as server:
        trio.lowlevel.add_instrument(steps)
        async with trio.open_nursery() as drinkers:
            for _ in range(connections):
                drinkers.start_soon(drink, f"ws://127.0.0.1:{server.port}/")
        trio.lowlevel.remove_instrument(steps)
    assert ended == connections
    assert steps.total == count * connections
    assert 1 < steps.longest <= CALLS


async def test_many_large_writes_and_nobody_who_waits() -> None:
    # A server that only broadcasts does nothing else, for months.
    budget = current_budget()
    budget.calls = 2**31 - 1
    budget.wrote_much()
    assert budget.calls > 2**31
    assert budget.spend()
