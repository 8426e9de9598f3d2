"""Schedule points: seldom enough to be cheap, often enough to be fair."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from trio_ws import _pace
from trio_ws._pace import CALLS, Pacer, current_pacer, set_limit
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
    monkeypatch.setattr(_pace, "perf_counter", lambda: now[0])
    return now


async def schedule_points(calls: int, call: Callable[[], Awaitable[object]]) -> int:
    steps = Steps()
    trio.lowlevel.add_instrument(steps)
    for _ in range(calls):
        await call()
    trio.lowlevel.remove_instrument(steps)
    return steps.count


async def test_every_64th_call_is_a_schedule_point(now: list[float]) -> None:
    pacer = Pacer()
    assert await schedule_points(1, pacer.step) == 1  # nobody knows what was before
    assert await schedule_points(CALLS - 1, pacer.step) == 0
    assert await schedule_points(1, pacer.step) == 1
    assert await schedule_points(10 * CALLS, pacer.step) == 10


async def test_the_first_call_after_a_millisecond_is_one(now: list[float]) -> None:
    pacer = Pacer()
    await pacer.step()
    now[0] += 0.0009
    assert await schedule_points(1, pacer.step) == 0
    now[0] += 0.0001
    assert await schedule_points(1, pacer.step) == 1
    assert await schedule_points(1, pacer.step) == 0


async def test_a_call_that_waited_starts_the_count_anew(now: list[float]) -> None:
    pacer = Pacer()
    await pacer.step()
    assert await schedule_points(CALLS - 1, pacer.step) == 0
    pacer.waited()
    assert await schedule_points(CALLS - 1, pacer.step) == 0


async def test_every_call_is_a_cancellation_point(now: list[float]) -> None:
    pacer = Pacer()
    await pacer.step()
    for _ in range(3):
        with trio.CancelScope() as scope:
            scope.cancel()
            await pacer.step()
        assert scope.cancelled_caught


async def test_one_counter_a_run() -> None:
    assert current_pacer() is current_pacer()
    before = set_limit(1)
    assert before == CALLS
    assert await schedule_points(5, current_pacer().step) == 5
    assert set_limit(before) == 1


def test_runs_have_counters_of_their_own() -> None:
    async def pacer() -> Pacer:
        return current_pacer()

    assert trio.run(pacer) is not trio.run(pacer)


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
