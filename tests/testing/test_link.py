"""What a test does to a connection: losses, freezes, at any byte and at once."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from tests.handlers import echo
from trio_ws import (
    ConnectionClosed,
    ConnectionClosedError,
    InvalidHandshake,
    ServerConnection,
    connect,
    open_server,
    reconnect,
    serve,
)
from trio_ws.testing import MemoryLink, MemoryNetwork

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

CAUSES = {"reset": ConnectionResetError, "end": EOFError}


@pytest.mark.parametrize("way", CAUSES)
async def test_a_loss_in_the_middle_of_a_message(
    way: str, autojump_clock: MockClock
) -> None:
    causes: list[BaseException | None] = []

    async def push(ws: ServerConnection) -> None:
        await ws.send("whole")
        await trio.sleep(1)
        getattr(network.link(ws), way)(after=500)
        await ws.send("x" * 1000)
        try:
            await ws.recv()
        except ConnectionClosedError as exc:
            causes.append(exc.__cause__)

    with MemoryNetwork() as network:
        async with open_server(push, 80, compression=None):
            async with connect("ws://a/") as ws:
                assert await ws.recv() == "whole"
                with pytest.raises(ConnectionClosedError) as caught:
                    await ws.recv()
            causes.append(caught.value.__cause__)
    assert [type(cause) for cause in causes] == [CAUSES[way]] * 2
    if way == "end":  # 500 with the header
        assert "496 of the 1000 bytes" in str(caught.value.__cause__)


async def talk(ended: list[str]) -> None:
    try:
        async with connect("ws://a/", compression=None) as ws:
            await ws.send("one")
            ended.append(str(await ws.recv()))
            await ws.send("two")
            ended.append(str(await ws.recv()))
    except (OSError, InvalidHandshake):
        ended.append("not open")
    except ConnectionClosedError:
        ended.append("lost")
    else:
        ended.append("closed")


@pytest.mark.sweep
@pytest.mark.parametrize("way", CAUSES)
async def test_a_loss_at_each_byte(way: str, autojump_clock: MockClock) -> None:
    """Whatever it is a byte of, both ends are told, and nothing is left open."""
    outcomes: set[tuple[str, ...]] = set()
    for size in range(400):
        ended: list[str] = []
        with MemoryNetwork() as network:
            network.on_connect = lambda link, size=size: getattr(link, way)(after=size)
            async with open_server(quiet_echo, 80):
                with trio.fail_after(60):
                    await talk(ended)
            assert network.links == []
        outcomes.add(tuple(ended))
    assert outcomes == {
        ("not open",),
        ("lost",),
        ("one", "lost"),
        ("one", "two", "lost"),
        ("one", "two", "closed"),
    }


async def quiet_echo(ws: ServerConnection) -> None:
    try:
        await echo(ws)
    except ConnectionClosed:
        pass


URLS = ["ws://a/", "ws://a:81/", "ws://b/", "ws://b:81/"]


@pytest.mark.parametrize(
    ("lose", "lost"),
    [
        (lambda network: network.reset("a"), [0, 1]),
        (lambda network: network.end("A.", 81), [1]),
        (lambda network: network.reset(port=80), [0, 2]),
        (lambda network: network.end(), [0, 1, 2, 3]),
        (lambda network: network.links[2].reset(), [2]),
        (lambda network: network.reset("c"), []),
        (lambda network: network.reset(after=1), []),
    ],
)
async def test_which_connections_are_lost(
    lose: Callable[[MemoryNetwork], None], lost: list[int]
) -> None:
    gone: list[int] = []

    async def note(number: int, task_status: trio.TaskStatus[None]) -> None:
        async with connect(URLS[number]) as ws:
            task_status.started()
            try:
                await ws.recv()
            except ConnectionClosedError:
                gone.append(number)

    with MemoryNetwork() as network:
        async with open_server(quiet_echo, 80), open_server(quiet_echo, 81):
            async with trio.open_nursery() as nursery:
                for number in range(len(URLS)):
                    await nursery.start(note, number)
                lose(network)
                await trio.testing.wait_all_tasks_blocked()
                assert sorted(gone) == lost
                nursery.cancel_scope.cancel()


async def test_wrong_sizes() -> None:
    with MemoryNetwork() as network:
        async with open_server(quiet_echo, 80), connect("ws://a/") as ws:
            with pytest.raises(ValueError, match="after: expected at least 0; got -1"):
                network.link(ws).end(after=-1)
            with pytest.raises(TypeError, match="after: expected an int"):
                network.reset(after=1.5)  # type: ignore[arg-type]


# Freezes


async def test_a_keepalive_finds_a_freeze(autojump_clock: MockClock) -> None:
    with MemoryNetwork() as network:
        async with open_server(quiet_echo, 80):
            async with connect("ws://a/") as ws:
                await trio.sleep(5)
                network.freeze()
                with pytest.raises(ConnectionClosedError, match="keepalive ping"):
                    await ws.recv()
            assert trio.current_time() == 40
        # The server has found it out for itself.
        assert network.links == []


async def test_what_was_frozen_comes_in_order(autojump_clock: MockClock) -> None:
    with MemoryNetwork() as network:
        async with open_server(echo, 80):
            async with connect("ws://a/") as ws:
                network.link(ws).freeze()
                for number in range(20):
                    await ws.send(str(number))
                with trio.move_on_after(19):
                    raise AssertionError(await ws.recv())
                network.link(ws).thaw()
                assert [await ws.recv() for _ in range(20)] == list(map(str, range(20)))
                assert trio.current_time() == 19


async def test_a_frozen_sender_waits(autojump_clock: MockClock) -> None:
    with MemoryNetwork() as network:
        async with open_server(quiet_echo, 80, compression=None):
            async with connect("ws://a/", compression=None) as ws:
                network.freeze("a")
                sent = 0
                with trio.move_on_after(10):
                    while True:
                        await ws.send(bytes(10_000))
                        sent += 1
                assert 10 < sent < 20  # of 64 KiB below, and as much in our hands
                network.thaw("a")
                with trio.fail_after(1):
                    for _ in range(sent):
                        await ws.recv()


async def test_a_freeze_with_latency(autojump_clock: MockClock) -> None:
    """What is under way when it freezes comes when it has thawed."""
    with MemoryNetwork(latency=1) as network:
        async with open_server(echo, 80):
            async with connect("ws://a/") as ws:
                await ws.send("x")
                await trio.sleep(0.5)
                network.freeze()
                await trio.sleep(2)
                network.thaw()
                before = trio.current_time()
                assert await ws.recv() == "x"
                assert trio.current_time() == before + 1  # of the way back


async def test_a_loss_ends_a_freeze(autojump_clock: MockClock) -> None:
    with MemoryNetwork() as network:
        async with open_server(quiet_echo, 80):
            async with connect("ws://a/") as ws:
                network.freeze()
                await ws.send("lost")
                network.reset()
                with pytest.raises(ConnectionClosedError):
                    await ws.recv()
        assert trio.current_time() == 0
        assert network.links == []


async def test_leaving_a_frozen_connection_takes_its_time(
    autojump_clock: MockClock,
) -> None:
    with MemoryNetwork() as network:
        async with open_server(quiet_echo, 80):
            async with connect("ws://a/", close_timeout=7) as ws:
                network.freeze()
            assert ws.close_code == 1006
            assert trio.current_time() == 7


async def test_connecting_to_a_frozen_host(autojump_clock: MockClock) -> None:
    with MemoryNetwork() as network:
        async with open_server(quiet_echo, 80), open_server(quiet_echo, 81):
            network.freeze(port=80)
            with pytest.raises(TimeoutError) as caught:
                async with connect("ws://a/", open_timeout=30):
                    raise AssertionError("entered")
            assert "connecting to a" in str(caught.value)
            assert trio.current_time() == 30
            async with connect("ws://a:81/"):
                assert trio.current_time() == 30
            async with trio.open_nursery() as nursery:
                nursery.start_soon(thaw_after, network, 5)
                async with connect("ws://a/"):
                    assert trio.current_time() == 35
            network.freeze()
            network.thaw("a")  # the last word counts
            async with connect("ws://a/"):
                pass
            assert trio.current_time() == 35


async def thaw_after(network: MemoryNetwork, seconds: float) -> None:
    await trio.sleep(seconds)
    network.thaw()


# New connections


async def test_a_connection_that_is_not_to_be() -> None:
    def refuse(link: MemoryLink) -> None:
        raise TimeoutError(f"no route to {link.host}")

    with MemoryNetwork(on_connect=refuse) as network:
        async with open_server(quiet_echo, 80):
            with pytest.raises(TimeoutError, match="no route to a"):
                async with connect("ws://a/"):
                    raise AssertionError("entered")
            assert network.on_connect is refuse
            network.on_connect = None
            async with connect("ws://a/"):
                pass


# Reconnecting


async def test_reconnecting(autojump_clock: MockClock) -> None:
    got: list[str] = []
    with MemoryNetwork() as network:
        async with open_server(greet, 80):
            async for attempt in reconnect("ws://a/"):
                async with attempt as ws:
                    got.append(f"{await ws.recv()!r} at {trio.current_time():.0f}")
                    if len(got) == 3:
                        break
                    await trio.sleep(100)
                    (network.reset, network.end)[len(got) - 1]()
                    await ws.recv()
        assert network.links == []
    assert len(got) == 3
    assert got[0] == "'hello' at 0"


async def test_reconnecting_once_there_is_a_server(autojump_clock: MockClock) -> None:
    with MemoryNetwork():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_later)
            async for attempt in reconnect("ws://a/"):
                async with attempt as ws:
                    assert await ws.recv() == "hello"
                    assert trio.current_time() >= 60
                break
            nursery.cancel_scope.cancel()


async def greet(ws: ServerConnection) -> None:
    await ws.send("hello")
    await quiet_echo(ws)


async def serve_later() -> None:
    await trio.sleep(60)
    await serve(greet, 80)


async def drop_an_attempt() -> None:
    attempts = reconnect("ws://a/")
    await anext(attempts)
    gc.collect()


async def test_an_attempt_that_is_dropped() -> None:
    with MemoryNetwork() as network:
        async with open_server(quiet_echo, 80):
            with pytest.warns(ResourceWarning, match="never entered"):
                await drop_an_attempt()
            await trio.testing.wait_all_tasks_blocked()
            assert network.links == []
