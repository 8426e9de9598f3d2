"""The block of open_pair() ends, whatever tasks it leaves in the nurseries."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from tests.leaks import living_tasks
from trio_ws import Connection, ConnectionClosedError, ConnectionClosedOK, State
from trio_ws._connection.scope import ConnectionScope
from trio_ws.testing import open_pair

if TYPE_CHECKING:
    from trio.testing import MockClock

Task = Callable[[Connection], Awaitable[None]]


async def nothing(_: Connection) -> None:
    pass


async def iterate(ws: Connection) -> None:
    async for _ in ws:
        pass


async def echo(ws: Connection) -> None:
    async for message in ws:
        await ws.send(message)


async def receive(ws: Connection) -> None:
    await ws.recv()


async def beat(ws: Connection) -> None:
    while True:
        await trio.sleep(30)
        await ws.send("beat")


async def never_ends(_: Connection) -> None:
    await trio.sleep_forever()


TASKS: list[Task] = [nothing, iterate, echo, receive, beat, never_ends]

# Which two end, and when; the others wait for each other, or for ever.
END: dict[tuple[Task, Task], float] = {
    (nothing, nothing): 0,
    (nothing, iterate): 0,
    (nothing, echo): 0,
    (nothing, receive): 0,
    (nothing, beat): 30,
    (receive, beat): 60,  # which notices at its second beat that it is alone
}


@pytest.mark.parametrize("client_task", TASKS)
@pytest.mark.parametrize("server_task", TASKS)
async def test_each_pair_of_tasks_comes_to_an_end(
    client_task: Task, server_task: Task, autojump_clock: MockClock
) -> None:
    before = living_tasks()
    pair = open_pair()
    raised: Exception | None = None
    client, server = await pair.__aenter__()
    client.nursery.start_soon(client_task, client)
    server.nursery.start_soon(server_task, server)
    try:
        await pair.__aexit__(None, None, None)
    except RuntimeError as exc:
        raised = exc
    end = END.get((client_task, server_task), END.get((server_task, client_task), 90))
    assert trio.current_time() == end
    assert (raised is not None) == (end == 90)
    assert client.state is server.state is State.CLOSED
    assert living_tasks() == before
    if end != 90:
        assert client.close_code == 1000


async def test_what_is_late_is_named(autojump_clock: MockClock) -> None:
    with pytest.raises(RuntimeError) as caught:
        await leave_behind(iterate, iterate)
    assert str(caught.value) == (
        "open_pair(): 90 s after the end of its block these tasks still ran, and were "
        f"cancelled: {__name__}.iterate in client.nursery, {__name__}.iterate in "
        "server.nursery. Close a side for which the other waits, with aclose(), or "
        "cancel what never ends."
    )
    assert caught.value.__context__ is None


async def leave_behind(client_task: Task, server_task: Task) -> None:
    async with open_pair() as (client, server):
        client.nursery.start_soon(client_task, client)
        server.nursery.start_soon(server_task, server)


async def test_what_the_server_has_received_is_answered() -> None:
    done: list[str] = []

    async def answer(ws: Connection) -> None:
        async for message in ws:
            await trio.lowlevel.checkpoint()
            await ws.send(message)
            done.append(str(message))

    async with open_pair() as (client, server):
        server.nursery.start_soon(answer, server)
        for number in range(10):
            await client.send(str(number))
    assert done == list(map(str, range(10)))


async def test_tasks_have_time(autojump_clock: MockClock) -> None:
    """The last of a side's tasks is what the other side is closed after."""
    got: list[str | bytes] = []

    async def talk(ws: Connection) -> None:
        for _ in range(3):
            await trio.sleep(20)
            await ws.send("x")
            got.append(await ws.recv())

    async with open_pair() as (client, server):
        server.nursery.start_soon(echo, server)
        client.nursery.start_soon(talk, client)
        client.nursery.start_soon(trio.sleep, 10)
    assert got == ["x"] * 3
    assert trio.current_time() == 60


async def test_a_body_that_raises_waits_for_no_task(autojump_clock: MockClock) -> None:
    async def body() -> None:
        async with open_pair() as (client, server):
            client.nursery.start_soon(iterate, client)
            server.nursery.start_soon(iterate, server)
            raise KeyError

    with pytest.raises(KeyError) as caught:
        await body()
    assert caught.value.__context__ is None
    assert trio.current_time() == 0


@pytest.mark.parametrize("side", [0, 1])
async def test_a_task_that_raises(side: int, autojump_clock: MockClock) -> None:
    async def fail() -> None:
        await trio.sleep(1)
        raise KeyError("mine")

    async def body() -> None:
        async with open_pair() as pair:
            for ws in pair:
                ws.nursery.start_soon(iterate, ws)
            pair[side].nursery.start_soon(fail)

    with pytest.raises(KeyError) as caught:
        await body()
    assert caught.value.__context__ is None
    assert trio.current_time() == 1


async def test_a_task_that_raises_when_it_is_cancelled_for_being_late(
    autojump_clock: MockClock,
) -> None:
    async def fail(_: Connection) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise KeyError("mine")

    with pytest.raises(KeyError):
        await leave_behind(iterate, fail)
    assert trio.current_time() == 90


async def test_cancelled_while_it_waits_for_tasks(autojump_clock: MockClock) -> None:
    with trio.move_on_after(5) as scope:
        async with open_pair() as (client, server):
            client.nursery.start_soon(iterate, client)
            server.nursery.start_soon(iterate, server)
    assert scope.cancelled_caught
    assert trio.current_time() == 5
    assert (client.close_code, server.close_code) == (1001, 1006)


@pytest.mark.parametrize("first", [0, 1])
async def test_either_side_may_close_first(
    first: int, autojump_clock: MockClock
) -> None:
    async with open_pair() as pair:
        for ws in pair:
            ws.nursery.start_soon(iterate, ws)
        await pair[first].aclose()
        with pytest.raises(ConnectionClosedOK):
            await pair[1 - first].recv()
    assert trio.current_time() == 0


async def test_a_task_that_finds_its_side_closed() -> None:
    """A ConnectionClosedOK of a task ends nothing if the body has ended."""
    told: list[Exception] = []

    async def note(ws: Connection) -> None:
        try:
            await ws.recv()
        except ConnectionClosedOK as exc:
            told.append(exc)
            raise

    async with open_pair() as (client, _):
        client.nursery.start_soon(note, client)
    assert len(told) == 1


async def test_left_in_another_task() -> None:
    async def leave() -> None:
        with pytest.raises(RuntimeError, match="expected the same one"):
            await pair.__aexit__(None, None, None)

    async with trio.open_nursery() as nursery:
        pair = open_pair()
        client, server = await pair.__aenter__()
        nursery.start_soon(leave)
        await client.wait_closed()
        await server.wait_closed()
        with pytest.raises(ConnectionClosedError, match="going away"):
            await pair.__aexit__(None, None, None)


@pytest.mark.parametrize("entered", [0, 1])
async def test_a_scope_that_cannot_be_entered(
    entered: int, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    enter = ConnectionScope.__aenter__
    calls: list[ConnectionScope] = []

    async def enter_some(scope: ConnectionScope) -> None:
        calls.append(scope)
        if len(calls) > entered:
            raise MemoryError
        await enter(scope)

    before = living_tasks()
    streams = trio.testing.memory_stream_pair()
    pair = open_pair(streams=streams)
    monkeypatch.setattr(ConnectionScope, "__aenter__", enter_some)
    with pytest.raises(MemoryError):
        await pair.__aenter__()
    assert living_tasks() == before
    with pytest.raises(trio.ClosedResourceError):
        await streams[1].send_all(b"x")
    if entered:
        assert not calls[0].is_open


async def test_closing_has_the_time_that_it_was_given(
    autojump_clock: MockClock,
) -> None:
    """Which is none of a task's: here nothing passes any more."""
    streams = trio.testing.memory_stream_pair()
    async with open_pair(
        {"close_timeout": 100, "ping_interval": None}, {"close_timeout": 100}, streams
    ) as (client, server):
        for stream in streams:
            stream.send_stream.send_all_hook = None
            stream.send_stream.close_hook = None
    assert trio.current_time() == 200
    assert (client.close_code, server.close_code) == (1006, 1006)


async def test_a_pair_that_was_never_entered() -> None:
    pair = open_pair()
    with pytest.raises(RuntimeError, match="was left already, or never entered"):
        await pair.__aexit__(None, None, None)
