"""The keepalive, whoever reads."""

from __future__ import annotations

import logging
import math
import socket

import pytest
import trio
import trio.testing
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.endpoint.link import (
    Link,
    as_caller,
    naps_over,
    passed,
    reading,
    receiver_in,
    receiving,
)
from tests.peers.in_memory import (
    CLOSE,
    PING,
    PONG,
    TEXT,
    RawPeer,
    close_frame,
    connected,
    frame,
)
from tests.peers.sockets import trio_stream
from trio_ws import (
    ClientConnection,
    ConnectionClosedError,
    ConnectionClosedOK,
    ServerConnection,
    State,
    connect,
    open_server,
)
from trio_ws._endpoint.pings import Pings
from trio_ws._endpoint.reader import OFFERED, PAUSED, RECEIVER, TASK, Reading
from trio_ws.testing import open_pair

FIN = 0x80


# Where receivers read


async def test_the_keepalive_of_a_receiver_that_reads(
    either_link: Link, nursery: trio.Nursery, mock_clock: MockClock, state: str
) -> None:
    link = either_link
    async with link.connected(ping_interval=10, ping_timeout=5) as ws:
        for _ in range(3):
            receiver = await receiver_in(state, nursery, link, ws, mock_clock)
            await passed(mock_clock, 10)
            kind, payload = await link.peer.read() or (0, b"")
            assert kind == FIN | PING
            await link.peer.send(PONG, payload)
            await wait_all_tasks_blocked()
            assert not ws._endpoint.pings.waiting
            await passed(mock_clock, 4.9)
            assert ws.state is State.OPEN
            await link.text("x")
            await wait_all_tasks_blocked()
            receiver.scope.cancel()
            if state == "standby":
                receiver.got.append(ws.recv_nowait())
            assert receiver.got == ["x"]
            await wait_all_tasks_blocked()


async def test_a_keepalive_that_is_not_answered(
    either_link: Link, nursery: trio.Nursery, mock_clock: MockClock, state: str
) -> None:
    link = either_link
    async with link.connected(ping_interval=10, ping_timeout=5) as ws:
        receiver = await receiver_in(state, nursery, link, ws, mock_clock)
        await passed(mock_clock, 10)
        await passed(mock_clock, 4.9)
        assert ws.state is State.OPEN
        await passed(mock_clock, 0.1)
        if state == "standby":
            await receiver.receive(1)
        assert receiver.ended
        assert str(receiver.error) == (
            "sent 1011 (internal error) keepalive ping timeout; no close frame received"
        )


async def test_messages_are_life(
    link: Link, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    async with link.connected(ping_interval=10, ping_timeout=5) as ws:
        await link.hurry(ws)
        receiver = await as_caller(nursery, ws, 30)
        for _ in range(30):  # no pong comes
            await passed(mock_clock, 4)
            await link.text("x")
            await wait_all_tasks_blocked()
        assert len(receiver.got) == 30


@pytest.mark.parametrize("first", ["clock", "message"])
async def test_a_message_that_the_keepalive_reads(
    either_link: Link,
    nursery: trio.Nursery,
    mock_clock: MockClock,
    state: str,
    first: str,
) -> None:
    # Its last look, before it gives a connection up, finds a message.
    link = either_link
    async with link.connected(ping_interval=10, ping_timeout=5) as ws:
        for i in range(6):
            receiver = await receiver_in(state, nursery, link, ws, mock_clock)
            mock_clock.jump(10)
            await wait_all_tasks_blocked()
            await link.text(str(i))
            mock_clock.jump(5)
            if state == "standby":
                await receiver.receive(1)
            await wait_all_tasks_blocked()
            assert receiver.got == [str(i)]
            receiver.scope.cancel()
            await wait_all_tasks_blocked()
            ws._endpoint.pings._pending.clear()


async def test_a_message_that_is_read_in_passing_wakes_its_receiver(
    either_link: Link, nursery: trio.Nursery, mock_clock: MockClock, state: str
) -> None:
    # As above, but without a race.
    link = either_link
    async with link.standing_by() as ws:
        receiver = await receiver_in(state, nursery, link, ws, mock_clock)
        await link.put_unread(frame(TEXT, b"x"))
        assert ws._endpoint.reader.read_now()
        if state == "standby":
            await receiver.receive(1)
        await wait_all_tasks_blocked()
        assert receiver.got == ["x"]
        receiver.scope.cancel()


@pytest.mark.parametrize(
    ("end", "code"),
    [(frame(3), 1002), (frame(CLOSE, b"\x03\xe9"), 1001), (b"", None)],
    ids=["violation", "close", "eof"],
)
async def test_an_end_that_is_read_in_passing_is_told_to_its_receiver(
    link: Link,
    nursery: trio.Nursery,
    mock_clock: MockClock,
    state: str,
    end: bytes,
    code: int | None,
) -> None:
    async with link.connected() as ws:
        receiver = await receiver_in(state, nursery, link, ws, mock_clock)
        got = len(receiver.got)
        await link.put_unread(frame(TEXT, b"x") + end)
        if not end:
            link.sock.shutdown(socket.SHUT_WR)
        while ws.state is State.OPEN:
            assert ws._endpoint.reader.read_now() is not None
        if state == "standby":
            await receiver.receive(2)
        await wait_all_tasks_blocked()
        assert receiver.ended
        assert receiver.got[got:] == ["x"]
        assert isinstance(receiver.error, ConnectionClosedOK) == (code == 1001)
        if code is not None:
            _, payload = await link.peer.read() or (0, b"")
            assert payload[:2] == code.to_bytes(2, "big")


async def test_a_ping_of_ours_is_answered_though_nobody_receives_any_more(
    either_link: Link, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    link = either_link

    async def answer() -> None:
        _, payload = await link.peer.read() or (0, b"")
        await link.peer.send(PONG, payload)

    async with link.standing_by() as ws:
        for _ in range(3):
            await link.hurry(ws)
            nursery.start_soon(answer)
            await ws.ping()
            # And while it is waited for the reader steps not aside.
            waiting = trio.CancelScope()

            async def ping(scope: trio.CancelScope = waiting) -> None:
                with scope:
                    await ws.ping(b"unanswered")

            nursery.start_soon(ping)
            for _ in range(3):
                await receiving(nursery, ws)
                assert reading(ws) is TASK
                await link.text("x")
                await wait_all_tasks_blocked()
            waiting.cancel()
            await wait_all_tasks_blocked()
            assert (await link.peer.read() or (0, b""))[1] == b"unanswered"


async def test_a_ping_beside_a_receiver_that_reads_one_message(
    either_link: Link, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    link = either_link
    latencies = []

    async def ping() -> None:
        latencies.append(await ws.ping())

    async with link.standing_by() as ws:
        receiver = await as_caller(nursery, ws)
        nursery.start_soon(ping)
        _, payload = await link.peer.read() or (0, b"")
        await link.text("first")
        await wait_all_tasks_blocked()
        assert receiver.ended
        await link.peer.send(PONG, payload)
        await wait_all_tasks_blocked()
        assert len(latencies) == 1


async def test_pings_of_the_peer_are_answered(
    either_link: Link, nursery: trio.Nursery, mock_clock: MockClock, state: str
) -> None:
    link = either_link
    async with link.standing_by() as ws:
        receiver = await receiver_in(state, nursery, link, ws, mock_clock)
        for i in range(20):
            await link.peer.send(PING, b"%d" % i)
            if state == "standby":
                await naps_over(mock_clock)
            assert await link.peer.read() == (FIN | PONG, b"%d" % i)
        assert not receiver.got
        receiver.scope.cancel()


async def time_of_loss(ws: ClientConnection) -> float:
    """Wait for the loss; return when it came."""
    with pytest.raises(ConnectionClosedError) as caught:
        await ws.recv()
    assert str(caught.value) == (
        "sent 1011 (internal error) keepalive ping timeout; no close frame received"
    )
    assert isinstance(caught.value.__cause__, TimeoutError)
    return trio.current_time()


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
        ours, theirs = socket.socketpair()
        streams = trio_stream(ours), trio_stream(theirs)
        peer = RawPeer(client=False, streams=streams)
        nursery.start_soon(peer.answer)
        async with connect("ws://testing/", stream=peer.theirs) as ws:
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(20)
            kind, payload = await peer.read() or (0, b"")
            assert kind == 0x80 | PING
            theirs.sendall(frame(PONG, payload))  # without a turn
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
