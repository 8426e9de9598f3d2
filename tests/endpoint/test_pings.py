"""Pings and pongs of the user's."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from tests.peers.in_memory import PING, PONG, RawPeer, connected
from trio_ws import ConcurrencyError, ConnectionClosedError, ConnectionClosedOK
from trio_ws.testing import open_pair

if TYPE_CHECKING:
    from trio.testing import MockClock


async def test_ping_returns_the_time_until_the_pong(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    peer = RawPeer(client=False)
    async with connected(nursery, peer, ping_interval=None) as ws:
        assert ws.latency == 0

        async def answer() -> None:
            kind, payload = await peer.read() or (0, b"")
            assert kind == 0x80 | PING
            assert len(payload) == 4
            await trio.sleep(1.5)
            await peer.send(PONG, payload)

        nursery.start_soon(answer)
        assert await ws.ping() == 1.5
        assert ws.latency == 1.5
        nursery.start_soon(peer.close)


@pytest.mark.parametrize(
    ("data", "sent"),
    [
        ("h\u00e9", b"h\xc3\xa9"),
        (b"", b""),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"ab"), b"ab"),
        ("x" * 125, b"x" * 125),
    ],
)
async def test_what_a_ping_and_a_pong_carry(
    autojump_clock: MockClock, nursery: trio.Nursery, data: str, sent: bytes
) -> None:
    peer = RawPeer(client=False)
    async with connected(nursery, peer) as ws:
        ws.nursery.start_soon(ws.ping, data)
        assert await peer.read() == (0x80 | PING, sent)
        await ws.pong(data)
        assert await peer.read() == (0x80 | PONG, sent)
        nursery.start_soon(peer.close)


@pytest.mark.parametrize(
    ("data", "error", "match"),
    [
        ("x" * 126, ValueError, "data: expected at most 125 bytes; got 126"),
        ("\u00e9" * 63, ValueError, "data: expected at most 125 bytes; got 126"),
        (memoryview(bytes(128)).cast("I"), ValueError, "at most 125 bytes; got 128"),
        (5, TypeError, "data: expected str or bytes; got int"),
        ([b"x"], TypeError, "data: expected str or bytes; got list"),
    ],
)
async def test_wrong_data(
    autojump_clock: MockClock, data: str, error: type[Exception], match: str
) -> None:
    async with open_pair() as (client, server):
        for call in (client.ping, client.pong):
            with pytest.raises(error, match=match):
                await call(data)
        await client.send("still usable")
        assert await server.recv() == "still usable"


async def test_a_pong_answers_the_pings_before_it_too(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    peer = RawPeer(client=False)
    latencies = {}
    async with connected(nursery, peer, ping_interval=None) as ws:

        async def ping(data: str) -> None:
            latencies[data] = await ws.ping(data)

        for data in ("a", "b", "c"):
            nursery.start_soon(ping, data)
            await trio.sleep(1)
        await peer.send(PONG, b"unknown")
        await peer.send(PONG, b"b")
        await trio.sleep(1)
        assert latencies == {"a": 3, "b": 2}
        assert ws.latency == 2
        await peer.send(PONG, b"a")  # a second answer is ignored
        await peer.send(PONG, b"c")
        await trio.sleep(1)
        assert latencies == {"a": 3, "b": 2, "c": 2}
        nursery.start_soon(peer.close)


async def test_two_pings_with_the_same_data(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    peer = RawPeer(client=False)
    async with connected(nursery, peer) as ws:
        with trio.move_on_after(1) as scope:
            async with trio.open_nursery() as pings:
                pings.start_soon(ws.ping, b"same")
                await trio.testing.wait_all_tasks_blocked()
                with pytest.raises(ConcurrencyError, match=r"same data, b'same'"):
                    await ws.ping("same")
        assert scope.cancelled_caught
        assert await peer.read() == (0x80 | PING, b"same")
        # Nobody waits for it any longer, and its pong does no harm.
        await peer.send(PONG, b"same")
        ws.nursery.start_soon(ws.ping, b"same")
        assert await peer.read() == (0x80 | PING, b"same")
        nursery.start_soon(peer.close)


async def test_data_is_text_for_peers_that_take_it_for_that(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    peer = RawPeer(client=False)
    async with connected(nursery, peer) as ws:
        seen = set()
        for _ in range(100):
            ws.nursery.start_soon(ws.ping)
            found = await peer.read()
            assert found is not None
            data = found[1]
            assert data.isalnum()
            assert data.isascii()
            seen.add(data)
        assert len(seen) == 100
        nursery.start_soon(peer.close)


async def test_data_is_never_that_of_a_ping_under_way(
    autojump_clock: MockClock, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = RawPeer(client=False)
    draws = iter(["aaaa", "aaaa", "bbbb"])
    monkeypatch.setattr(random, "choices", lambda _, k: next(draws))
    async with connected(nursery, peer) as ws:
        ws.nursery.start_soon(ws.ping)
        ws.nursery.start_soon(ws.ping)
        assert await peer.read() == (0x80 | PING, b"aaaa")
        assert await peer.read() == (0x80 | PING, b"bbbb")
        nursery.start_soon(peer.close)


@pytest.mark.parametrize(
    ("how", "error"),
    [("close", ConnectionClosedOK), ("eof", ConnectionClosedError)],
)
async def test_who_waits_for_a_pong_is_told_of_the_end(
    autojump_clock: MockClock, nursery: trio.Nursery, how: str, error: type[Exception]
) -> None:
    peer = RawPeer(client=False)
    told = 0

    async def ping() -> None:
        nonlocal told
        with pytest.raises(error):
            await ws.ping()
        told += 1

    async with connected(nursery, peer, ping_interval=None) as ws:
        async with trio.open_nursery() as pings:
            pings.start_soon(ping)
            pings.start_soon(ping)
            await trio.testing.wait_all_tasks_blocked()
            if how == "close":
                await peer.close()
            else:
                await peer.stream.aclose()
        with pytest.raises(error):
            await ws.ping()
        with pytest.raises(error):
            await ws.pong()
    assert told == 2


async def test_who_waits_for_a_pong_is_told_of_our_own_close(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    peer = RawPeer(client=False)
    async with connected(nursery, peer) as ws:

        async def ping() -> None:
            with pytest.raises(ConnectionClosedOK):
                await ws.ping()
            told.set()

        told = trio.Event()
        ws.nursery.start_soon(ping)
        await trio.testing.wait_all_tasks_blocked()
        start = trio.current_time()
        # The peer never answers: the wait ends with the connection, not with TCP.
        ws.nursery.start_soon(ws.aclose)
        await told.wait()
        assert trio.current_time() == start
        with pytest.raises(ConnectionClosedOK):
            await ws.ping()
