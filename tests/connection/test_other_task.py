"""A block that is left by another task than has entered it.

That is what becomes of an async generator around a connection that is dropped: trio
finishes it in a task of its own. The nurseries of the block can't be left there, but
the connection can be closed, and whoever is to blame be told what to do.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from functools import partial
from itertools import repeat
from typing import Any

import pytest
import trio
import trio.testing

from tests.connection.blocks import (
    ALL,
    check_text,
    corrupts,
    drop_garbage,
    dropped_generators,
    raised_elsewhere,
    subject,
)
from tests.peers.wsproto_peer import open_against_peer
from trio_ws import (
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    ServerConnection,
    State,
    connect,
    reconnect,
    serve,
)

SIDES = pytest.mark.parametrize("client", [True, False], ids=["client", "server"])

LEFT = "left already, or never entered"


# A generator that is dropped


@pytest.mark.parametrize("kind", ALL)
async def test_a_generator_is_dropped(
    kind: str, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    one = await subject(kind, nursery)

    async def drops() -> None:
        async for _ in one.generator():
            break
        drop_garbage()
        await one.ws.wait_closed()
        await trio.lowlevel.checkpoint()  # it goes on as if nothing were

    with dropped_generators(caplog) as raised:
        # But trio finds a nursery open that nobody can leave any more.
        with corrupts():
            async with trio.open_nursery() as inner:
                inner.start_soon(drops, name="drops")
        assert await one.told() == 1001
    (error,) = raised
    assert isinstance(error, RuntimeError)
    check_text(error, "drops", "close asyncgen")
    assert one.ws.state is State.CLOSED


# By hand


@pytest.mark.parametrize("kind", ALL)
async def test_another_task_leaves_the_block(kind: str, nursery: trio.Nursery) -> None:
    one = await subject(kind, nursery)
    await one.enter()
    error = await raised_elsewhere(one.leave)
    check_text(error, "", "")
    assert one.ws.state is State.CLOSED
    assert await one.told() == 1001
    for ws in one.ends:
        with pytest.raises(ConnectionClosed):
            await ws.recv()
    await one.leave()  # by the task of the block, as ever, which knows by now


@SIDES
async def test_another_task_leaves_it_twice(
    client: bool, nursery: trio.Nursery
) -> None:
    one = await subject("connect" if client else "accept", nursery)
    await one.enter()
    first = await raised_elsewhere(one.leave)
    second = await raised_elsewhere(one.leave)
    assert str(first) == str(second)
    # Nobody has told this task, which learns it as it learns of any loss.
    with pytest.raises(ConnectionClosedError):
        await one.leave()


@pytest.mark.parametrize("kind", ALL)
async def test_left_twice(kind: str, nursery: trio.Nursery) -> None:
    one = await subject(kind, nursery)
    await one.enter()
    await one.leave()
    with pytest.raises(RuntimeError, match=LEFT):
        await one.leave()
    assert LEFT in str(await raised_elsewhere(one.leave))


@pytest.mark.parametrize("kind", ALL)
async def test_never_entered(kind: str, nursery: trio.Nursery) -> None:
    one = await subject(kind, nursery)
    with pytest.raises(RuntimeError, match=LEFT):
        await one.leave()
    await one.enter()
    await one.leave()


async def test_the_error_has_the_one_of_the_block_as_its_cause(
    nursery: trio.Nursery,
) -> None:
    one = await subject("connect", nursery)
    await one.enter()
    problem = ValueError("the user's")
    call = partial(one.block.__aexit__, ValueError, problem, None)
    assert (await raised_elsewhere(call)).__cause__ is problem
    with pytest.raises(ConnectionClosedError):
        await one.leave()


async def test_blocks_of_one_object_that_others_leave(nursery: trio.Nursery) -> None:
    # Which of them is meant nobody can tell; each is closed once.
    async def handler(ws: ServerConnection) -> None:
        await ws.wait_closed()

    server = await nursery.start(partial(serve, handler, 0, host="127.0.0.1"))
    block = connect(f"ws://127.0.0.1:{server.port}/")
    connections = [await block.__aenter__() for _ in range(3)]
    leave = partial(block.__aexit__, None, None, None)
    for closed in range(1, 4):
        await raised_elsewhere(leave)
        states = [ws.state for ws in connections]
        assert states.count(State.CLOSED) == closed
    for _ in connections:
        with pytest.raises(ConnectionClosedError):
            await leave()
    with pytest.raises(RuntimeError, match=LEFT):
        await leave()


# At awkward moments


@SIDES
async def test_while_the_body_receives(client: bool, nursery: trio.Nursery) -> None:
    one = await subject("connect" if client else "accept", nursery)

    async def leave() -> None:
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(RuntimeError):
            await one.leave()

    expected = pytest.RaisesExc(ConnectionClosedError, match="sent 1001")
    with pytest.RaisesGroup(expected):
        async with trio.open_nursery() as inner:
            async with one.block as ws:
                inner.start_soon(leave)
                await ws.recv()
    assert await one.told() == 1001


@SIDES
@pytest.mark.parametrize("grace", [0, 10, None])
async def test_while_the_clock_of_a_loss_runs(
    grace: float | None,
    client: bool,
    nursery: trio.Nursery,
    autojump_clock: trio.testing.MockClock,
) -> None:
    block, stream, peer = open_against_peer(
        client=client, options={"loss_grace": grace}
    )
    nursery.start_soon(peer.run)
    ws = await block.__aenter__()
    stream.reset()
    leave = partial(block.__aexit__, None, None, None)
    while ws.state is State.OPEN:
        await trio.lowlevel.checkpoint()
    # By then the clock could cancel this task outside of the block.
    await raised_elsewhere(leave)
    await trio.sleep(100)
    with pytest.raises(ConnectionClosedError) as caught:
        await leave()
    assert isinstance(caught.value.__cause__, ConnectionResetError)


@SIDES
async def test_after_the_end(client: bool, nursery: trio.Nursery) -> None:
    block, _, peer = open_against_peer(client=client)
    nursery.start_soon(peer.run)
    ws = await block.__aenter__()
    await peer.close(1000)
    await ws.wait_closed()
    leave = partial(block.__aexit__, None, None, None)
    await raised_elsewhere(leave)
    await leave()  # as it was closed in good order
    assert peer.close_code == 1000


@SIDES
async def test_while_it_is_being_left(client: bool, nursery: trio.Nursery) -> None:
    block, _, peer = open_against_peer(client=client)
    peer.answers_close = False
    nursery.start_soon(peer.run)
    leave = partial(block.__aexit__, None, None, None)

    async def leave_too() -> None:
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(RuntimeError, match=LEFT):
            await leave()
        await peer.send_eof()

    async with trio.open_nursery() as inner:
        await block.__aenter__()
        inner.start_soon(leave_too)
        await leave()
    assert peer.close_code == 1000


@SIDES
async def test_tasks_in_the_blocks_nursery(client: bool, nursery: trio.Nursery) -> None:
    one = await subject("connect" if client else "accept", nursery)
    ws = await one.enter()

    async def receive() -> None:
        with pytest.raises(ConnectionClosedError):
            await ws.recv()
        told.set()

    told = trio.Event()
    ws.nursery.start_soon(receive)
    await trio.testing.wait_all_tasks_blocked()
    await raised_elsewhere(one.leave)
    await told.wait()
    await one.leave()  # somebody was told


# A loop over a generator that the clock cuts


def by_aclosing(generator: Callable[[], Any]) -> AbstractAsyncContextManager[Any]:
    return aclosing(generator())


def by_channel(generator: Callable[[], Any]) -> AbstractAsyncContextManager[Any]:
    return trio.as_safe_channel(generator)()


WAYS = pytest.mark.parametrize(
    "way",
    # trio has it since 0.30.
    [by_aclosing, by_channel] if hasattr(trio, "as_safe_channel") else [by_aclosing],
)
Way = Callable[[Callable[[], Any]], AbstractAsyncContextManager[Any]]


@WAYS
@SIDES
@pytest.mark.parametrize("code", [1000, 4000])
async def test_the_clock_cuts_a_loop(
    code: int,
    client: bool,
    way: Way,
    nursery: trio.Nursery,
    autojump_clock: trio.testing.MockClock,
) -> None:
    block, _, peer = open_against_peer(client=client, options={"close_grace": 10})
    nursery.start_soon(peer.run)

    async def generator() -> AsyncIterator[None]:
        async with block:
            yield

    expected = ConnectionClosedOK if code == 1000 else ConnectionClosedError
    # Without it, Cancelled would end this nursery, and nobody were told.
    with pytest.RaisesGroup(expected):
        async with trio.open_nursery() as inner:
            inner.start_soon(trio.sleep_forever)
            async with way(generator) as loop:
                async for _ in loop:
                    await peer.close(code)
                    start = trio.current_time()
                    try:
                        await trio.sleep_forever()
                    finally:
                        assert trio.current_time() - start == 10


@WAYS
async def test_the_clock_cuts_a_loop_over_an_attempt(
    way: Way, autojump_clock: trio.testing.MockClock
) -> None:
    async def handler(ws: ServerConnection) -> None:
        await ws.aclose(4000)

    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, handler, 0, host="127.0.0.1"))

        async def generator() -> AsyncIterator[Any]:
            attempts = reconnect(
                f"ws://127.0.0.1:{server.port}/",
                reconnect_delays=lambda: repeat(0.0),
            )
            async for one in attempts:
                async with one as ws:
                    yield ws

        with pytest.RaisesGroup(ConnectionClosedError):
            async with trio.open_nursery():
                async with way(generator) as loop:
                    async for ws in loop:
                        await ws.wait_closed()
                        await trio.sleep_forever()
        await server.aclose()


@WAYS
@SIDES
async def test_another_scope_cuts_a_loop(
    client: bool,
    way: Way,
    nursery: trio.Nursery,
    autojump_clock: trio.testing.MockClock,
) -> None:
    # By then the connection is lost, too, but that isn't why.
    block, _, peer = open_against_peer(client=client, options={"loss_grace": 5})
    nursery.start_soon(peer.run)

    async def generator() -> AsyncIterator[None]:
        async with block:
            yield

    with trio.move_on_after(5) as scope:
        async with way(generator) as loop:
            async for _ in loop:
                await peer.close(4000)
                await trio.sleep_forever()
    assert scope.cancelled_caught


@WAYS
@SIDES
async def test_a_loop_is_left(client: bool, way: Way, nursery: trio.Nursery) -> None:
    one = await subject("connect" if client else "accept", nursery)

    async def generator() -> AsyncIterator[None]:
        async with one.block:
            yield

    async with way(generator) as loop:
        async for _ in loop:
            break
    assert await one.told() == 1001


@WAYS
@SIDES
async def test_a_loop_is_left_once_the_connection_is_lost(
    client: bool, way: Way, nursery: trio.Nursery
) -> None:
    # Who leaves isn't interested any more.
    block, _, peer = open_against_peer(client=client)
    nursery.start_soon(peer.run)

    async def generator() -> AsyncIterator[Any]:
        async with block as ws:
            yield ws

    async with way(generator) as loop:
        async for ws in loop:
            await peer.send_eof()
            await ws.wait_closed()
            break
