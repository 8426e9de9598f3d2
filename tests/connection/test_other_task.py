"""A block that is left by another task than has entered it, or not at all.

That is what becomes of an async generator around a connection that is dropped: trio
finishes it in a task of its own. The nurseries of the block can't be left there, but
the connection can be closed, and whoever is to blame be told what to do.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, aclosing, contextmanager
from functools import partial
from itertools import repeat
from typing import Any

import pytest
import trio
import trio.testing

from tests.peers.sockets import answer_in_thread, tcp_pair, trio_stream
from tests.peers.stream_peer import URI
from tests.peers.wire import CLOSE, parse_stream
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
from trio_ws.testing import open_pair

Block = AbstractAsyncContextManager[Any]

ALL = ["connect", "accept", "attempt", "open_pair"]
SIDES = pytest.mark.parametrize("client", [True, False], ids=["client", "server"])

LEFT = "left already, or never entered"


class Subject:
    """A block of each kind, and what its peer was told."""

    def __init__(self, block: Block, told: Callable[[], Awaitable[int | None]]) -> None:
        self.block = block
        self.told = told
        self.ends: list[Any] = []  # ours, once it is entered

    @property
    def ws(self) -> Any:
        return self.ends[0]

    async def enter(self) -> Any:
        entered = await self.block.__aenter__()
        self.ends = list(entered) if isinstance(entered, tuple) else [entered]
        return self.ws

    async def generator(self) -> AsyncGenerator[Any, None]:
        async with self.block as entered:
            self.ends = list(entered) if isinstance(entered, tuple) else [entered]
            yield self.ws

    async def leave(self) -> None:
        await self.block.__aexit__(None, None, None)


async def subject(kind: str, nursery: trio.Nursery) -> Subject:
    if kind == "attempt":
        return await attempt(nursery)
    if kind == "open_pair":

        async def told_by_the_server() -> int | None:
            code: int | None = made.ws.close_code
            return code

        made = Subject(open_pair(), told_by_the_server)
        return made
    block, _, peer = open_against_peer(client=kind == "connect")
    nursery.start_soon(peer.run)

    async def told() -> int | None:
        await trio.testing.wait_all_tasks_blocked()
        return peer.close_code

    return Subject(block, told)


async def attempt(nursery: trio.Nursery) -> Subject:
    codes: list[int | None] = []
    ended = trio.Event()

    async def handler(ws: ServerConnection) -> None:
        async for _ in ws:
            pass
        codes.append(ws.close_code)
        ended.set()

    async def told() -> int | None:
        await ended.wait()
        return codes[0]

    server = await nursery.start(partial(serve, handler, 0, host="127.0.0.1"))
    attempts = reconnect(f"ws://127.0.0.1:{server.port}/")
    return Subject(await anext(attempts), told)


async def raised_elsewhere(call: Callable[[], Awaitable[object]]) -> RuntimeError:
    """Return what a call raises in another task."""

    async def elsewhere() -> None:
        with pytest.raises(RuntimeError) as caught:
            await call()
        errors.append(caught.value)

    errors: list[RuntimeError] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(elsewhere)
    return errors[0]


def check_text(error: BaseException, entered_in: str, left_in: str) -> None:
    text = str(error)
    assert f"entered in the task {entered_in}" in text
    assert f"left in the task {left_in}" in text
    assert "contextlib.aclosing()" in text
    assert "trio.as_safe_channel" in text


# A generator that is dropped


@contextmanager
def dropped_generators(caplog: pytest.LogCaptureFixture) -> Iterator[list[Any]]:
    """Collect what generators raise that trio finishes, which says so by itself."""
    raised: list[Any] = []
    with pytest.warns(ResourceWarning, match="Async generator .* garbage collected"):
        yield raised
    for record in caplog.records:
        if record.name == "trio.async_generator_errors":
            assert record.exc_info
            raised.append(record.exc_info[1])


CORRUPTED = pytest.RaisesExc(RuntimeError, match="Nursery stack corrupted")


@pytest.mark.parametrize("kind", ALL)
async def test_a_generator_is_dropped(
    kind: str, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    one = await subject(kind, nursery)

    async def drops() -> None:
        async for _ in one.generator():
            break
        await one.ws.wait_closed()
        await trio.lowlevel.checkpoint()  # it goes on as if nothing were

    with dropped_generators(caplog) as raised:
        # But trio finds a nursery open that nobody can leave any more.
        with pytest.RaisesGroup(CORRUPTED):
            async with trio.open_nursery() as inner:
                inner.start_soon(drops, name="drops")
        assert await one.told() == 1001
    (error,) = raised
    assert isinstance(error, RuntimeError)
    check_text(error, "drops", "close asyncgen")
    assert one.ws.state is State.CLOSED


@pytest.mark.parametrize("kind", ALL)
async def test_a_generator_outlives_the_task_that_has_begun_it(
    kind: str, nursery: trio.Nursery
) -> None:
    one = await subject(kind, nursery)

    async def begins() -> None:
        await anext(generator)

    generator = one.generator()
    with pytest.RaisesGroup(CORRUPTED):
        async with trio.open_nursery() as inner:
            inner.start_soon(begins, name="begins")
    with pytest.raises(RuntimeError) as caught:
        await generator.aclose()
    check_text(caught.value, "begins", "<test")
    assert [ws.state for ws in one.ends] == [State.CLOSED] * len(one.ends)
    # Over a stream of the user's nobody is left who could send it.
    if kind == "attempt":
        assert await one.told() == 1001


# The same as the main task ends


def codes_after(
    main: Callable[[connect], Awaitable[None]], **options: Any
) -> list[int]:
    """Run ``main`` with a connection to come; return the codes that its peer got."""
    ours, theirs = tcp_pair()
    answer_in_thread(theirs)
    with pytest.raises(RuntimeError, match="Nursery stack corrupted"):
        trio.run(main, connect(URI, stream=trio_stream(ours), **options))
    data = b""
    with theirs:
        while chunk := theirs.recv(65536):
            data += chunk
    frames = parse_stream(data, masked=True)
    return [
        int.from_bytes(frame.data[:2], "big")
        for frame in frames
        if frame.opcode == CLOSE
    ]


def test_the_main_task_drops_a_generator(caplog: pytest.LogCaptureFixture) -> None:
    async def main(block: connect) -> None:
        async def generator() -> AsyncIterator[None]:
            async with block:
                yield

        async for _ in generator():
            break

    with dropped_generators(caplog) as raised:
        assert codes_after(main) == [1001]
    assert [type(error) for error in raised] == [RuntimeError]


def test_the_main_task_leaves_a_generator_to_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main(block: connect) -> None:
        async def generator() -> AsyncIterator[None]:
            async with block:
                yield

        kept.append(generator())
        await anext(kept[0])

    kept: list[AsyncIterator[None]] = []
    assert codes_after(main) == [1001]
    (record,) = caplog.records
    assert record.exc_info
    check_text(record.exc_info[1] or AssertionError(), "", "<init>")


@pytest.mark.parametrize("ping_interval", [None, 20])
def test_the_main_task_never_leaves_a_block(ping_interval: float | None) -> None:
    async def main(block: connect) -> None:
        await block.__aenter__()

    assert codes_after(main, ping_interval=ping_interval) == [1001]


def test_a_task_never_leaves_a_block() -> None:
    # Its peer learns of it at once, and not when a run ends that may last.
    async def main(block: connect) -> None:
        async def enters() -> None:
            connections.append(await block.__aenter__())

        with pytest.RaisesGroup(CORRUPTED):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(enters)
        await connections[0].wait_closed()
        with pytest.raises(ConnectionClosedError):
            await connections[0].recv()
        # As codes_after() expects of the others.
        raise RuntimeError("Nursery stack corrupted")

    connections: list[Any] = []
    assert codes_after(main) == [1001]


def test_a_block_is_cancelled_like_any_other() -> None:
    # Where the task isn't gone the reader goes on: the peer's messages still come.
    async def main(block: connect) -> None:
        with trio.CancelScope() as scope:
            async with block as ws:
                scope.cancel()
                with trio.CancelScope(shield=True):
                    await trio.testing.wait_all_tasks_blocked()
                    assert ws.state is State.OPEN
                    await ws.send("still here")
                await trio.sleep_forever()
        raise RuntimeError("Nursery stack corrupted")  # as above

    assert codes_after(main) == [1001]


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
    [
        by_aclosing,
        pytest.param(
            by_channel,
            marks=pytest.mark.skipif(
                not hasattr(trio, "as_safe_channel"), reason="trio before 0.30"
            ),
        ),
    ],
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
