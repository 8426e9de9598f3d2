"""Calls from where a connection isn't: another thread, another run, after the end."""

from __future__ import annotations

import functools
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from trio_ws import Connection, broadcast
from trio_ws.exceptions import ConnectionClosed
from trio_ws.testing import open_pair

# What would hang fails at once.
JUMPS = functools.partial(trio.testing.MockClock, autojump_threshold=0)

by_side = pytest.mark.parametrize("number", [0, 1], ids=["client", "server"])


def in_thread(call: Callable[[], object]) -> BaseException | None:
    """Call in a thread that knows no trio; return what that raises."""
    caught: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as exc:  # noqa: BLE001 - returned
            caught.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return caught[0] if caught else None


SYNCHRONOUS: dict[str, Callable[[Connection], object]] = {
    "send_nowait": lambda ws: ws.send_nowait("wrong"),
    "recv_nowait": lambda ws: ws.recv_nowait(),
    "broadcast": lambda ws: broadcast([ws], "wrong"),
    "broadcast of many": lambda ws: broadcast(iter([ws, ws]), "wrong", slow="close"),
}
ASYNC: dict[str, Callable[[Connection], Awaitable[object]]] = {
    "aclose": lambda ws: ws.aclose(),
    "ping": lambda ws: ws.ping(),
    "ping with data": lambda ws: ws.ping("data"),
    "pong": lambda ws: ws.pong(),
    "wait_closed": lambda ws: ws.wait_closed(),
    "send": lambda ws: ws.send("wrong"),
    "send of much": lambda ws: ws.send(bytes(20_000_000)),
    "send of fragments": lambda ws: ws.send(["wr", "ong"]),
    "recv": lambda ws: ws.recv(),
    "iteration": lambda ws: ws.__anext__(),
    "streaming": lambda ws: ws.recv_streaming().__anext__(),
}


async def awaited(call: Callable[[Connection], Any], ws: Connection) -> None:
    await trio.lowlevel.checkpoint()
    with trio.fail_after(1000):
        result = call(ws)
        if hasattr(result, "__await__"):
            await result


def check(error: BaseException | None, name: str) -> None:
    assert type(error) is RuntimeError
    text = str(error)
    named = f"{name.split()[0]}() was called outside the trio run"
    # What costs least has no name of the call.
    assert text.startswith((named, "a connection was used outside its trio run"))
    assert "trio.from_thread.run()" in text
    assert error.__cause__ is None
    assert error.__suppress_context__ or error.__context__ is None


async def check_works(client: Connection, server: Connection) -> None:
    for one, other in ((client, server), (server, client)):
        await one.send("right")
        assert await other.recv() == "right"
    assert await client.ping() >= 0
    await server.pong()


@by_side
@pytest.mark.parametrize("name", SYNCHRONOUS)
async def test_in_a_thread(name: str, number: int) -> None:
    async with open_pair() as pair:
        ws = pair[number]
        await pair[1 - number].send("right")
        await trio.testing.wait_all_tasks_blocked()
        check(in_thread(lambda: SYNCHRONOUS[name](ws)), name)
        assert await ws.recv() == "right"
        await check_works(*pair)


@by_side
@pytest.mark.parametrize("name", [*SYNCHRONOUS, *ASYNC])
@pytest.mark.parametrize("message", [True, False])
async def test_in_another_run(name: str, number: int, message: bool) -> None:
    async with open_pair() as pair:
        ws = pair[number]
        if message:
            await pair[1 - number].send("right")
        await trio.testing.wait_all_tasks_blocked()
        call = (SYNCHRONOUS | ASYNC)[name]
        check(in_thread(lambda: trio.run(awaited, call, ws, clock=JUMPS())), name)
        assert ws.close_code is None
        if message:
            assert await ws.recv() == "right"
        await check_works(*pair)


@by_side
async def test_by_way_of_trio(number: int) -> None:
    async with open_pair() as pair:

        def work() -> None:
            trio.from_thread.run_sync(pair[number].send_nowait, "one")
            trio.from_thread.run(pair[number].send, "two")

        await trio.to_thread.run_sync(work)
        assert [await pair[1 - number].recv() for _ in range(2)] == ["one", "two"]


# After the end of the run

LATER: dict[str, Callable[[Connection], object]] = {
    **SYNCHRONOUS,
    **ASYNC,
    "receive": lambda ws: ws.receive(),
}


def step(call: Callable[[Connection], object], ws: Connection) -> None:
    """Call without any run; of a coroutine, take its first step."""
    result: Any = call(ws)
    if hasattr(result, "__await__"):
        iterator = result.__await__()
        try:
            next(iterator)
            # A schedule point, which a run alone could go on from.
            raise RuntimeError("waits for a run")
        finally:
            if hasattr(iterator, "close"):
                iterator.close()


@by_side
@pytest.mark.parametrize("again", [False, True], ids=["without a run", "in another"])
@pytest.mark.parametrize("name", LATER)
@pytest.mark.parametrize("lost", [False, True], ids=["closed", "lost"])
def test_after_the_end(name: str, again: bool, number: int, lost: bool) -> None:
    kept: list[Connection] = []

    async def main() -> None:
        async with open_pair() as pair:
            kept.append(pair[number])
            if lost:
                await pair[1 - number].aclose(1011)
                with pytest.raises(ConnectionClosed):
                    await pair[number].recv()

    trio.run(main)
    (ws,) = kept
    call = LATER[name]
    try:
        if again:
            trio.run(awaited, call, ws, clock=JUMPS())
        else:
            step(call, ws)
    except (ConnectionClosed, RuntimeError, StopAsyncIteration):
        pass
    else:
        # What has nothing to say to a connection that is closed.
        assert name in ("aclose", "broadcast", "broadcast of many")
    assert ws.close_code in (1000, 1011)
    assert ws.remote_address is None
    repr(ws)
