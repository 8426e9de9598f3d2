"""Pings: those of the user, and the keepalive (R9), on a clock that obeys."""

from __future__ import annotations

import logging
import math
import os
import random
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from tests.in_memory import PING, PONG, TEXT, RawPeer, close_frame, frame
from trio_ws import (
    ClientConnection,
    ConcurrencyError,
    ConnectionClosedError,
    ConnectionClosedOK,
    ServerConnection,
    State,
    connect,
    open_server,
)
from trio_ws._endpoint.pings import Pings
from trio_ws._endpoint.reader import OFFERED, PAUSED, RECEIVER, Reading
from trio_ws.testing import open_pair

if TYPE_CHECKING:
    from trio.testing import MockClock


def connected(nursery: trio.Nursery, peer: RawPeer, **options: object) -> connect:
    nursery.start_soon(peer.answer)
    return connect("ws://testing/", stream=peer.theirs, **options)  # type: ignore[arg-type]


async def time_of_loss(ws: ClientConnection) -> float:
    """Wait for the loss; return when it came."""
    with pytest.raises(ConnectionClosedError) as caught:
        await ws.recv()
    assert str(caught.value) == (
        "sent 1011 (internal error) keepalive ping timeout; no close frame received"
    )
    assert isinstance(caught.value.__cause__, TimeoutError)
    return trio.current_time()


# The pings of the user


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


async def test_data_is_never_that_of_a_ping_under_way(
    autojump_clock: MockClock, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = RawPeer(client=False)
    draws = iter([b"aaaa", b"aaaa", b"bbbb"])
    monkeypatch.setattr(random, "randbytes", lambda _: next(draws))
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


# The keepalive


async def test_a_ping_every_interval(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    peer = RawPeer(client=False)
    async with connected(nursery, peer, ping_interval=7) as ws:
        start = trio.current_time()
        for i in range(1, 6):
            kind, payload = await peer.read() or (0, b"")
            assert (kind, trio.current_time() - start) == (0x80 | PING, 7 * i)
            await trio.sleep(0.25)
            await peer.send(PONG, payload)
        await trio.sleep(0.5)
        assert ws.latency == 0.25
        nursery.start_soon(peer.close)


async def test_a_server_pings_as_well(autojump_clock: MockClock) -> None:
    async with open_pair({"ping_interval": None}) as (client, server):
        await trio.sleep(1000)
        assert client.latency == 0
        await server.send("x")
        assert await client.recv() == "x"


@pytest.mark.parametrize(
    ("interval", "timeout"), [(20, 20), (20, 5), (5, 20), (20, 50), (1, 0.5)]
)
@pytest.mark.parametrize("last", [0, 0.3, 1, 1.7, 7, 19.9, 20, 20.1, 39, 63])
async def test_silence_is_found_in_time(
    autojump_clock: MockClock,
    nursery: trio.Nursery,
    interval: float,
    timeout: float,
    last: float,
) -> None:
    peer = RawPeer(client=False)

    async def speak() -> None:
        while trio.current_time() < start + last:
            await peer.send(PONG)
            await trio.sleep(min(0.1, start + last - trio.current_time()))
        await peer.send(PONG)

    async with connected(
        nursery, peer, ping_interval=interval, ping_timeout=timeout
    ) as ws:
        start = trio.current_time()
        nursery.start_soon(speak)
        silence = await time_of_loss(ws) - start - last
        assert timeout <= silence + 1e-6
        assert silence <= interval + timeout + 1e-6


@pytest.mark.parametrize("timeout", [5, 50])
async def test_the_goodbye_of_a_silent_peer(
    autojump_clock: MockClock, nursery: trio.Nursery, timeout: float
) -> None:
    peer = RawPeer(client=False)
    async with connected(nursery, peer, ping_timeout=timeout) as ws:
        await time_of_loss(ws)
        start = trio.current_time()
    # A peer that is silent gets no time to answer.
    assert trio.current_time() - start <= 1
    frames = []
    while (received := await peer.read()) is not None:
        frames.append(received)
    assert frames.pop() == close_frame(1011, "keepalive ping timeout")
    assert {kind for kind, _ in frames} == {0x80 | PING}


@pytest.mark.parametrize("byte", [b"\x89", b"\x81", b"\x82"])
async def test_any_byte_is_life(
    autojump_clock: MockClock, nursery: trio.Nursery, byte: bytes
) -> None:
    # A frame that takes minutes, of which no ping is ever answered.
    peer = RawPeer(client=False)
    async with connected(nursery, peer) as ws:
        await peer.stream.send_all(byte)
        await trio.sleep(15)
        await peer.stream.send_all(b"\x14")
        for _ in range(20):
            await trio.sleep(15)
            await peer.stream.send_all(b"x")
        await trio.testing.wait_all_tasks_blocked()
        if byte != b"\x89":
            assert len(ws.recv_nowait()) == 20
        await ws.send("alive")
        start = trio.current_time()
        assert await time_of_loss(ws) - start <= 40


async def test_a_late_pong_is_life_and_is_measured(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    peer = RawPeer(client=False)
    async with connected(nursery, peer, ping_interval=10, ping_timeout=35) as ws:

        async def answer_late() -> None:
            late: list[bytes] = []
            while (received := await peer.read()) is not None:
                late.append(received[1])
                if received[0] == 0x80 | PING and len(late) > 3:
                    await peer.send(PONG, late.pop(0))

        nursery.start_soon(answer_late)
        await trio.sleep(205)
        assert ws.latency == 30
        nursery.start_soon(peer.close)


async def test_pings_without_an_answer_are_not_kept_for_ever(
    autojump_clock: MockClock,
    nursery: trio.Nursery,
) -> None:
    peer = RawPeer(client=False)
    async with connected(nursery, peer, ping_interval=1, ping_timeout=None) as ws:
        payloads = []
        for _ in range(40):
            received = await peer.read()
            assert received is not None
            payloads.append(received[1])
        await peer.send(PONG, payloads[0])
        await trio.testing.wait_all_tasks_blocked()
        assert ws.latency == 0
        await peer.send(PONG, payloads[30])
        await trio.testing.wait_all_tasks_blocked()
        assert ws.latency == 9
        nursery.start_soon(peer.close)


async def test_no_timeout(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    peer = RawPeer(client=False)
    async with connected(nursery, peer, ping_timeout=None) as ws:
        await trio.sleep(10_000)
        for _ in range(500):
            kind, _ = await peer.read() or (0, b"")
            assert kind == 0x80 | PING
        await ws.send("x")
        assert await peer.read() == (0x80 | TEXT, b"x")
        nursery.start_soon(peer.close)


async def test_no_pings(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    peer = RawPeer(client=False)
    async with connected(nursery, peer, ping_interval=None) as ws:
        await trio.sleep(10_000)
        await ws.send("x")
        assert await peer.read() == (0x80 | TEXT, b"x")
        nursery.start_soon(peer.close)


async def test_an_interval_without_end(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    peer = RawPeer(client=False)
    async with connected(nursery, peer, ping_interval=math.inf) as ws:
        await trio.sleep(10_000)
        await ws.send("x")
        assert await peer.read() == (0x80 | TEXT, b"x")
        nursery.start_soon(peer.close)


async def test_no_false_alarm_while_the_application_is_busy(
    autojump_clock: MockClock,
    nursery: trio.Nursery,
) -> None:
    # Reading is paused: the pongs are behind messages that nobody takes.
    peer = RawPeer(client=False)
    async with connected(nursery, peer, max_queue=2) as ws:
        for i in range(10):
            await peer.send(TEXT, b"%d" % i)
            await trio.testing.wait_all_tasks_blocked()
        pings: list[bytes] = []
        while trio.current_time() < 1000:
            with trio.move_on_after(25):
                received = await peer.read()
                assert received is not None
                pings.append(received[1])
                await peer.send(PONG, received[1])
        assert len(pings) >= 49  # they go on all the same
        for i in range(10):
            assert await ws.recv() == str(i)
        # And where it has gone on reading, silence is what it was.
        start = trio.current_time()
        assert await time_of_loss(ws) - start <= 40


@pytest.mark.parametrize("ahead", [0, 0.001, 10, 19.999])
async def test_no_false_alarm_when_a_busy_application_goes_on(
    autojump_clock: MockClock, nursery: trio.Nursery, ahead: float
) -> None:
    # It goes on just as the time of a ping, sent while reading was paused, is
    # over: the answer to it may be the first thing that is read.
    peer = RawPeer(client=False)

    async def answer() -> None:
        while (received := await peer.read()) is not None:
            if received[0] == 0x80 | PING:
                await peer.send(PONG, received[1])

    async with connected(nursery, peer, max_queue=1) as ws:
        for _ in range(5):
            await peer.send(TEXT, b"x")
            await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(answer)
        await trio.sleep(80 - ahead)
        for _ in range(5):
            await ws.recv()
        await trio.sleep(500)
        assert ws.close_code is None
        await ws.aclose()


async def test_an_answer_that_comes_at_the_last_moment(
    mock_clock: MockClock, nursery: trio.Nursery
) -> None:
    # Of the reader and the pinger, both of which can run, either may be first.
    for _ in range(20):
        ours, theirs = trio.socket.socketpair()
        streams = trio.SocketStream(ours), trio.SocketStream(theirs)
        peer = RawPeer(client=False, streams=streams)
        nursery.start_soon(peer.answer)
        async with connect("ws://testing/", stream=peer.theirs) as ws:
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(20)
            kind, payload = await peer.read() or (0, b"")
            assert kind == 0x80 | PING
            os.write(theirs.fileno(), frame(PONG, payload))  # without a turn
            mock_clock.jump(20)
            await trio.testing.wait_all_tasks_blocked()
            await ws.send("alive")
            nursery.start_soon(peer.close)
            await ws.wait_closed()
            assert ws.close_code == 1000
        await peer.stream.aclose()


async def test_a_peer_that_reads_slowly_is_alive(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    # The ping itself is behind data for minutes, and nothing is received.
    streams = trio.testing.lockstep_stream_pair()
    peer = RawPeer(client=False, streams=streams)
    nursery.start_soon(peer.answer)
    async with connect("ws://testing/", stream=peer.theirs, write_limit=1) as ws:
        nursery.start_soon(ws.send, bytes(3_500_000))
        left = 3_500_000
        while left > 65536:
            await trio.sleep(10)
            left -= len(await peer.stream.receive_some(70_000))
        assert trio.current_time() > 400
        assert ws.close_code is None
        start = trio.current_time()
        # Then it stops.
        await time_of_loss(ws)
        assert trio.current_time() - start <= 40.001


@pytest.mark.parametrize("reading", ["standby", "caller", "paused", "keeper"])
async def test_the_keepalive_interrupts_nothing(
    reading: str,
    mock_clock: MockClock,
    nursery: trio.Nursery,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Over a socket, where receivers read, too.
    pongs: list[bytes] = []
    answered = trio.Event()

    def acknowledge(pings: Pings, payload: bytes) -> None:
        pongs.append(payload)
        answered.set()

    async def serve_much(ws: ServerConnection) -> None:
        async for message in ws:
            for number in range(int(message)):
                await ws.send(str(number))

    async def until(state: Reading) -> None:
        while ws._endpoint.reader.by is not state:
            await trio.lowlevel.checkpoint()

    async def receive() -> None:
        received.extend([await ws.recv() for _ in expected])
        done.set()

    monkeypatch.setattr(Pings, "acknowledge", acknowledge)
    received: list[str | bytes] = []
    expected = [str(number) for number in range(100)]
    if reading == "paused":
        expected[:0] = expected[:5]
    done = trio.Event()
    async with open_server(serve_much, 0, host="127.0.0.1") as server:
        uri = f"ws://127.0.0.1:{server.port}/"
        async with connect(uri, ping_interval=10, max_queue=4) as ws:
            if reading in ("standby", "caller"):
                for _ in range(3):  # in no time: the clock stands still
                    await ws.send("1")
                    assert await ws.recv() == "0"
                await until(OFFERED)
            if reading == "caller":
                nursery.start_soon(receive)
                await until(RECEIVER)
            elif reading == "paused":
                await ws.send("5")
                while len(ws._engine.messages) < 5:
                    await trio.lowlevel.checkpoint()
                await ws.send("100")
                await until(PAUSED)
            for _ in range(3):
                mock_clock.jump(10)
                await trio.testing.wait_all_tasks_blocked()
            assert ws.state is State.OPEN
            if reading != "paused":
                await answered.wait()
                await ws.send("100")
            if reading != "caller":
                nursery.start_soon(receive)
            await done.wait()
            assert received == expected
            await answered.wait()


# What a log says


async def test_debug_logs_show_the_latency(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "trio_ws.client")
    async with open_pair({"ping_interval": 5}) as (client, _):
        await client.ping(b"abcd")
        await trio.sleep(6)
    prefix = client.id.hex[:8]
    lines = [line for line in caplog.messages if line.startswith(prefix)]
    assert f"{prefix} > PING 'abcd' [4 bytes]" in lines
    assert f"{prefix} < PONG 'abcd' [4 bytes]" in lines
    assert lines.count(f"{prefix} latency 0.0 ms") == 2
