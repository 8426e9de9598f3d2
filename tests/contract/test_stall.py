"""A peer that stops reading, or floods, holds nobody longer than promised.

R7 to R10: reading and writing never wait for each other, every deadline covers
the writes under it, and memory has limits whatever the peer does.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Awaitable, Callable
from math import inf
from typing import Literal

import pytest
import trio
import trio.testing

from tests.leaks import living_tasks, open_descriptors
from tests.peers.sockets import answer_in_thread, tcp_pair, trio_stream
from tests.peers.stream_peer import URI, StreamPeer, server_peer
from tests.peers.wire import (
    BINARY,
    CLOSE,
    KEY,
    PING,
    PONG,
    TEXT,
    close_frame,
    frame,
    header,
)
from trio_ws import Connection, accept, connect
from trio_ws.exceptions import ConnectionClosedError, ConnectionClosedOK
from trio_ws.testing import open_pair

# ruff: noqa: PT012 - what raises is the end of a block, which has to be there

Role = Literal["client", "server"]
by_role = pytest.mark.parametrize("role", ["client", "server"])

STALL = 20.0 + 20.0  # the defaults of ping_interval and ping_timeout
WRITE_LIMIT = 2**16
IN_HAND = 2**14  # what a stream that is no socket takes at once


def peer_for(role: Role) -> StreamPeer:
    return StreamPeer() if role == "client" else server_peer()


def key_of(role: Role) -> bytes | None:
    return KEY if role == "server" else None


def opened(
    role: Role,
    peer: StreamPeer,
    *,
    ping_interval: float | None = 20,
    ping_timeout: float | None = 20,
    close_timeout: float | None = 10,
) -> connect | accept:
    if role == "client":
        return connect(
            URI,
            stream=peer,
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            close_timeout=close_timeout,
        )
    return accept(
        peer,
        ping_interval=ping_interval,
        ping_timeout=ping_timeout,
        close_timeout=close_timeout,
    )


def answer_close(peer: StreamPeer, role: Role = "client") -> None:
    """Let the peer answer our close frame, and end its stream."""

    def answer() -> None:
        peer.feed(close_frame(1000, key=key_of(role)))
        peer.end()

    peer.on_close = answer


async def fill(ws: Connection, size: int = 10_000) -> int:
    """Send until no message is accepted; return how many bytes were."""
    accepted = 0
    with contextlib.suppress(trio.WouldBlock):
        while accepted < 2**30:
            ws.send_nowait(bytes(size))
            accepted += size
            await trio.testing.wait_all_tasks_blocked()
    assert accepted < 2**30
    return accepted


# -- A peer that stops reading ----------------------------------------------------

CALLS: dict[str, Callable[[Connection], Awaitable[object]]] = {
    "send": lambda ws: ws.send("waits"),
    "send of fragments": lambda ws: ws.send(["waits", "waits"]),
    "ping": lambda ws: ws.ping(),
    "recv": lambda ws: ws.recv(),
}


@pytest.mark.parametrize(
    ("interval", "timeout"), [(20, 20), (None, 20), (20, None), (None, None), (3, 4)]
)
@pytest.mark.parametrize("name", CALLS)
async def test_stalled_peer_holds_no_call_longer_than_promised(
    name: str,
    interval: float | None,
    timeout: float | None,
    autojump_clock: trio.testing.MockClock,
) -> None:
    peer = StreamPeer()
    start = trio.current_time()
    manager = opened("client", peer, ping_interval=interval, ping_timeout=timeout)
    with pytest.raises(ConnectionClosedError) as caught:
        async with manager as ws:
            peer.takes = 0
            await fill(ws)
            await CALLS[name](ws)
    stall = STALL if interval is None or timeout is None else interval + timeout
    # Then a second for the close frame, which a torn stream doesn't take.
    assert stall <= trio.current_time() - start <= stall + 1
    assert caught.value.sent is not None
    assert caught.value.sent.code == 1011
    assert type(caught.value.__cause__) is TimeoutError
    assert peer.closed


@pytest.mark.parametrize("how", ["aclose", "leaving", "error"])
@by_role
async def test_stalled_peer_holds_closing_for_close_timeout(
    role: Role, how: str, autojump_clock: trio.testing.MockClock
) -> None:
    peer = peer_for(role)
    tasks = living_tasks()
    start = trio.current_time()
    expected = ValueError if how == "error" else ConnectionClosedError
    with pytest.raises(expected, match="mine" if how == "error" else "sent 1000"):
        async with opened(role, peer, close_timeout=7) as ws:
            peer.takes = 0
            await fill(ws)
            if how == "aclose":
                await ws.aclose()
            if how == "error":
                raise ValueError("mine")
    assert trio.current_time() - start == 7
    assert peer.closed
    assert living_tasks() == tasks


@by_role
async def test_stalled_peer_holds_no_scope_that_is_cancelled(
    role: Role, autojump_clock: trio.testing.MockClock
) -> None:
    peer = peer_for(role)
    with trio.move_on_after(3) as scope:
        async with opened(role, peer) as ws:
            peer.takes = 0
            await fill(ws)
            await ws.recv()
    assert scope.cancelled_caught
    assert trio.current_time() == 3
    assert peer.closed


async def test_stalled_peer_without_close_timeout_is_given_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    peer = StreamPeer()
    with pytest.raises(ConnectionClosedError):
        async with opened("client", peer, close_timeout=None) as ws:
            peer.takes = 0
            await fill(ws)
    assert STALL <= trio.current_time() <= STALL + 1


async def test_stalled_socket_is_closed_with_nothing_left() -> None:
    # The same on TCP, in real time: the cancelled scope takes none.
    tasks, descriptors = living_tasks(), open_descriptors()
    ours, theirs = tcp_pair()
    answer_in_thread(theirs)
    with trio.CancelScope() as scope:
        async with connect(URI, stream=trio_stream(ours)) as ws:
            await fill(ws, 1_000_000)
            scope.cancel()
            await ws.recv()
    theirs.close()
    assert living_tasks() == tasks
    assert open_descriptors() == descriptors


async def test_stall_deadline_starts_anew_whenever_something_is_taken(
    autojump_clock: trio.testing.MockClock,
) -> None:
    # Slow is not dead: each 30 s the peer takes what one write gave it.
    peer = StreamPeer()
    messages = 6
    async with opened("client", peer, ping_interval=None) as ws:
        peer.takes = 0
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                for i in range(messages):
                    await ws.send(bytes([i]) * 65_000)

            nursery.start_soon(send)
            for _ in range(messages):
                await trio.sleep(30)
                assert ws.close_code is None
                peer.take(65_014)  # with header and masking key
        peer.take(1000)
        answer_close(peer)
    assert ws.close_code == 1000
    received = [f.data for f in peer.frames if f.opcode == BINARY]
    assert received == [bytes([i]) * 65_000 for i in range(messages)]
    assert trio.current_time() >= 30 * messages


async def test_stall_deadline_is_that_of_the_last_byte_taken(
    autojump_clock: trio.testing.MockClock,
) -> None:
    peer = StreamPeer()
    with pytest.raises(ConnectionClosedError, match="write timeout"):
        async with opened("client", peer, ping_interval=None) as ws:
            peer.takes = 0
            await fill(ws)
            await trio.sleep(30)
            peer.take(IN_HAND)  # what is in the hands of the stream
            await ws.recv()
    assert 30 + STALL <= trio.current_time() <= 30 + STALL + 1


async def test_peer_that_reads_slowly_is_alive_to_the_keepalive(
    autojump_clock: trio.testing.MockClock,
) -> None:
    # R9: while the ping still waits in our buffer, any byte taken is life. The
    # peer says nothing at all before it gets to the ping.
    peer = StreamPeer()
    async with opened("client", peer) as ws:
        peer.takes = 0
        await ws.send(bytes(600_000))
        for _ in range(55):
            await trio.sleep(2)
            assert ws.close_code is None
            peer.take(10_000)
        answer_close(peer)
        peer.take(2**20)
    assert ws.close_code == 1000
    # Pings, one each 20 s, all behind the frame that was under way.
    assert [f.opcode for f in peer.frames] == [BINARY, *[PING] * 5, CLOSE]


# -- Full duplex ------------------------------------------------------------------


@pytest.mark.parametrize("streams", ["memory", "lockstep", "sockets"])
async def test_flood_both_ways_never_deadlocks(streams: str) -> None:
    # Neither side receives before it has sent all of it; nothing fits into
    # what the kernel buffers.
    pair: tuple[trio.abc.Stream, trio.abc.Stream]
    if streams == "memory":
        pair = trio.testing.memory_stream_pair()
    elif streams == "lockstep":
        pair = trio.testing.lockstep_stream_pair()
    else:
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        pair = trio_stream(ours), trio_stream(theirs)

    async def flood(ws: Connection, name: bytes) -> None:
        for i in range(12):
            await ws.send(name + bytes([i]) * 50_000)

    async def drain(ws: Connection, name: bytes) -> None:
        for i in range(12):
            assert await ws.recv() == name + bytes([i]) * 50_000

    with trio.fail_after(60):
        async with open_pair(streams=pair) as (client, server):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(flood, client, b"c")
                nursery.start_soon(flood, server, b"s")
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(client.ping)
                nursery.start_soon(server.ping)
                nursery.start_soon(drain, client, b"s")
                nursery.start_soon(drain, server, b"c")


@by_role
async def test_peer_that_floods_and_does_not_read_is_heard(
    role: Role, autojump_clock: trio.testing.MockClock
) -> None:
    # R7: a write that is stuck doesn't keep us from reading.
    peer = peer_for(role)
    async with opened(role, peer) as ws:
        peer.takes = 0
        await fill(ws)
        for i in range(100):
            peer.feed(frame(TEXT, b"%d" % i, key=key_of(role)))
            assert await ws.recv() == str(i)
        with pytest.raises(ConnectionClosedOK):
            peer.feed(close_frame(1000, key=key_of(role)))
            await ws.recv()
        peer.take(inf)
        await ws.wait_closed()
        peer.end()


# -- Memory -----------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 1000, 40_000, 300_000])
@by_role
async def test_what_send_accepts_is_bounded(
    role: Role, size: int, autojump_clock: trio.testing.MockClock
) -> None:
    # write_limit and one message, however many want to send.
    peer = peer_for(role)
    accepted = 0

    async def send(ws: Connection) -> None:
        nonlocal accepted
        while True:
            await ws.send(bytes(size))
            accepted += size

    with trio.move_on_after(1) as scope:
        async with opened(role, peer) as ws:
            peer.takes = 0
            for _ in range(10):
                ws.nursery.start_soon(send, ws)
            await trio.sleep(0.5)
            waits = ws._engine.outbox.size + ws._endpoint.transport.unsent
            assert WRITE_LIMIT <= waits <= WRITE_LIMIT + size + 14
            assert accepted <= WRITE_LIMIT + size
            await trio.sleep_forever()
    assert scope.cancelled_caught


@by_role
async def test_flood_of_pings_is_answered_with_bounded_memory(
    role: Role, autojump_clock: trio.testing.MockClock
) -> None:
    peer = peer_for(role)
    async with opened(role, peer) as ws:
        peer.takes = 0
        pings = 10_000
        for i in range(pings):
            peer.feed(frame(PING, b"%0100d" % i, key=key_of(role)))
        # A peer that takes no pongs is read slowly, but it is read.
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(5)
        # 16 pongs wait at most, and those that the stream has in its hands.
        assert ws._engine.outbox.size <= 16 * 110
        peer.take(inf)
        answer_close(peer, role)
    pongs = [bytes(f.data) for f in peer.frames if f.opcode == PONG]
    assert pongs[-1] == b"%0100d" % (pings - 1)  # the newest is answered
    assert pongs == sorted(pongs)
    assert ws.close_code == 1000


@pytest.mark.parametrize("size", [1, 50_000, 1_000_000])
@by_role
async def test_flood_of_messages_pauses_reading(
    role: Role, size: int, autojump_clock: trio.testing.MockClock
) -> None:
    # R10: max_queue messages or max_size bytes, and what one read brought.
    peer = peer_for(role)
    data = frame(BINARY, bytes(size), key=key_of(role))
    count = 1 + 5_000_000 // (size + 100)
    async with opened(role, peer) as ws:
        for _ in range(count):
            peer.feed(data)
        await trio.testing.wait_all_tasks_blocked()
        reads = peer.reads
        await trio.sleep(1000)  # pings go on; nothing is lost
        assert peer.reads <= reads + 1
        engine = ws._engine
        per_read = 2**16 // size + 2
        assert len(engine.messages) <= 16 + per_read
        assert engine.queued <= 2**20 + max(size, 2**16)
        for _ in range(count):
            assert await ws.recv() == bytes(size)
        answer_close(peer, role)
    assert ws.close_code == 1000


async def test_message_above_max_size_is_refused_by_its_header() -> None:
    peer = StreamPeer()
    with pytest.raises(ConnectionClosedError, match="1009"):
        async with opened("client", peer) as ws:
            peer.feed(header(BINARY, 2**20 + 1))
            await ws.recv()
    assert peer.frames[-1].opcode == CLOSE


@pytest.mark.parametrize("how", ["aclose", "leaving"])
@by_role
async def test_closing_wakes_a_reader_that_is_paused(
    role: Role, how: str, autojump_clock: trio.testing.MockClock
) -> None:
    # R10. The answer to our close frame stands behind what nobody will read.
    peer = peer_for(role)
    start = trio.current_time()
    async with opened(role, peer) as ws:
        for _ in range(20):
            peer.feed(frame(BINARY, bytes(1000), key=key_of(role)))
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(1000):
            peer.feed(frame(BINARY, bytes(1000), key=key_of(role)))
        answer_close(peer, role)
        await trio.sleep(1)
        if how == "aclose":
            await ws.aclose()
    assert ws.close_code == 1000
    assert trio.current_time() - start == 1


async def test_reader_of_a_piecewise_message_that_stops_pauses_reading(
    autojump_clock: trio.testing.MockClock,
) -> None:
    peer = StreamPeer()
    size = 900_000
    async with opened("client", peer) as ws:
        peer.feed(frame(BINARY, bytes(size)))
        stream = ws.recv_streaming()
        total = len(await anext(stream))
        await trio.testing.wait_all_tasks_blocked()
        reads = peer.reads
        await trio.sleep(1000)
        assert ws._engine.decoder.partial_size <= 3 * 2**16
        assert peer.reads == reads
        async for piece in stream:
            total += len(piece)
        assert total == size
        answer_close(peer)
