"""Tests of chat.py, without a network and without waiting.

pip install pytest pytest-trio; python -m pytest -o trio_mode=true test_chat.py
"""

from collections.abc import AsyncIterator

import pytest
import trio
from chat import serve_chat
from trio.testing import MockClock

from trio_ws import ClientConnection, ConnectionClosedError, Server, connect
from trio_ws.testing import MemoryNetwork

URI = "ws://127.0.0.1:8000/rooms/tea"


@pytest.fixture
async def network() -> AsyncIterator[MemoryNetwork]:
    with MemoryNetwork() as network:
        yield network


@pytest.fixture
async def server(network: MemoryNetwork, nursery: trio.Nursery) -> Server:
    server: Server = await nursery.start(serve_chat, 8000)
    return server


async def log_in(ws: ClientConnection, user: str) -> None:
    await ws.send(f"token of {user}")
    assert await ws.recv() == f"{user} comes in"


async def test_a_line_goes_to_the_room(
    server: Server, autojump_clock: MockClock
) -> None:
    async with connect(URI) as alice, connect(URI) as bob:
        await log_in(alice, "alice")
        await log_in(bob, "bob")
        assert await alice.recv() == "bob comes in"
        await alice.send("good morning")
        assert await bob.recv() == "alice: good morning"


async def test_who_has_no_token(server: Server, autojump_clock: MockClock) -> None:
    async with connect(URI) as ws:
        await ws.send("let me in")
        with pytest.raises(ConnectionClosedError, match="4401"):
            await ws.recv()


async def test_who_says_nothing(server: Server, autojump_clock: MockClock) -> None:
    async with connect(URI) as ws:
        started = trio.current_time()
        with pytest.raises(ConnectionClosedError, match="log in first"):
            await ws.recv()
        assert trio.current_time() - started == pytest.approx(10)


async def test_who_is_lost(
    server: Server, network: MemoryNetwork, autojump_clock: MockClock
) -> None:
    async with connect(URI) as alice:
        await log_in(alice, "alice")
        async with connect(URI) as bob:
            await log_in(bob, "bob")
            network.link(bob).reset()
            with pytest.raises(ConnectionClosedError):
                await bob.recv()
        assert await alice.recv() == "bob comes in"
        assert await alice.recv() == "bob has left"


async def test_the_server_stops(server: Server, autojump_clock: MockClock) -> None:
    async with connect(URI) as alice:
        await log_in(alice, "alice")
        await server.aclose(reason="be back soon")
        assert [line async for line in alice] == []
        assert (alice.close_code, alice.close_reason) == (1001, "be back soon")
