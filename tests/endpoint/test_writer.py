"""What goes out: gathering, peers that don't read, what waits for whom."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.endpoint.link import (
    Link,
    MakeSockets,
    as_caller,
    reading,
    receiver_in,
    receiving,
)
from tests.peers.certificates import contexts
from tests.peers.in_memory import (
    BINARY,
    PONG,
    TEXT,
    RawPeer,
    close_frame,
    connected,
    frame,
)
from tests.peers.sockets import trio_stream
from trio_ws import (
    Connection,
    ConnectionClosedError,
    ConnectionClosedOK,
    State,
    accept,
    connect,
)
from trio_ws._endpoint.reader import RECEIVER, TASK
from trio_ws._transports.base import STEP_SIZE
from trio_ws._transports.sockets import SocketTransport

FIN = 0x80


async def fill(ws: Connection) -> int:
    """Send until nothing more is accepted; return how many messages were."""
    count = blocked = 0
    while blocked < 3:
        await wait_all_tasks_blocked()
        try:
            ws.send_nowait(bytes(20_000))
            count += 1
            blocked = 0
        except trio.WouldBlock:
            blocked += 1
    return count


# Where receivers read


async def test_a_sender_that_waits_has_somebody_read(
    either_link: Link, nursery: trio.Nursery, mock_clock: MockClock, state: str
) -> None:
    # The peer reads nothing before we do.
    link = either_link
    async with link.connected(ping_interval=None, max_queue=None, max_size=None) as ws:
        filled = await fill(ws)
        receiver = await receiver_in(state, nursery, link, ws, mock_clock)
        receiver_ends = receiver.ended
        nursery.start_soon(ws.send, "waited")
        await wait_all_tasks_blocked()
        receiver.scope.cancel()
        await wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            nursery.start_soon(_cancel_when_blocked, scope)
            for _ in range(40):
                await link.peer.send(BINARY, bytes(100_000))
        assert not scope.cancelled_caught
        assert not receiver_ends
        for _ in range(filled):
            assert await link.peer.read() == (FIN | BINARY, bytes(20_000))
        assert await link.peer.read() == (FIN | TEXT, b"waited")
        assert ws.state is State.OPEN


async def _cancel_when_blocked(scope: trio.CancelScope) -> None:
    await wait_all_tasks_blocked()
    scope.cancel()


async def test_the_reader_steps_not_aside_while_a_sender_waits(
    either_link: Link, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    # Else the peer, which may read no more before we do, would wait for a nap.
    link = either_link
    async with link.connected(ping_interval=None, max_queue=None) as ws:
        filled = await fill(ws)
        nursery.start_soon(ws.send, "waited")
        for _ in range(3):
            await receiving(nursery, ws)
            assert reading(ws) is TASK
            await link.text("x")
            await wait_all_tasks_blocked()
        for _ in range(filled):
            await link.peer.read()
        assert await link.peer.read() == (FIN | TEXT, b"waited")
        await link.hurry(ws)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_two_ends_that_echo_more_than_fits(
    mock_clock: MockClock, nursery: trio.Nursery, tls: bool
) -> None:
    # Without a nap's end, for the clock stands still.
    ours, theirs = map(trio_stream, socket.socketpair())
    client, server = contexts()
    done = trio.Event()

    async def serve() -> None:
        # Were these finite, the two might rightly wait for each other.
        limits: Any = {"max_queue": None, "max_size": None}
        async with accept(theirs, ssl=server if tls else None, **limits) as ws:
            for _ in range(4):
                await ws.send(await ws.recv())
            for size in SIZES:
                await ws.send(bytes(size))
            for size in SIZES:
                assert len(await ws.recv()) == size
            done.set()

    async with trio.open_nursery() as inner:
        inner.start_soon(serve)
        async with connect(
            "wss://localhost/" if tls else "ws://localhost/",
            stream=ours,
            ssl=client if tls else None,
        ) as ws:
            for _ in range(4):
                await ws.send("quick")
                assert await ws.recv() == "quick"
            nursery.start_soon(_cancel_when_blocked, inner.cancel_scope)
            async for message in ws:
                await ws.send(message)
    assert done.is_set()


SIZES = [*range(10), 300_000, 1, 2, 300_000, 900_000, 5, 70_000] * 2


async def test_a_flusher_that_waits_is_not_hurt_by_a_wake_up(
    either_link: Link, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    # To wake a receiver all that wait for the socket are woken.
    link = either_link
    async with link.standing_by(ping_interval=None) as ws:
        receiver = await as_caller(nursery, ws, 10)
        filled = await fill(ws)
        assert reading(ws) is RECEIVER
        for i in range(5):
            await link.put_unread(frame(TEXT, b"%d" % i))
            ws._endpoint.reader.read_now()
            await wait_all_tasks_blocked()
        assert receiver.got == ["0", "1", "2", "3", "4"]
        for _ in range(filled):
            assert await link.peer.read() == (FIN | BINARY, bytes(20_000))


async def test_closing_while_the_flusher_waits_beside_a_receiver(
    either_link: Link, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    link = either_link
    async with link.standing_by(ping_interval=None) as ws:
        receiver = await as_caller(nursery, ws)
        filled = await fill(ws)
        nursery.start_soon(ws.aclose)
        await wait_all_tasks_blocked()
        assert isinstance(receiver.error, ConnectionClosedOK)
        for _ in range(filled):
            assert await link.peer.read() == (FIN | BINARY, bytes(20_000))
        assert await link.peer.read() == close_frame(1000)


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of what was written at once."""
    sizes: list[int] = []

    def watch(name: str) -> None:
        original = getattr(SocketTransport, name)

        def write(transport: SocketTransport, what: Any) -> int:
            count: int = original(transport, what)
            sizes.append(count)
            return count

        monkeypatch.setattr(SocketTransport, name, write)

    watch("write")
    watch("write_one")
    return sizes


# Gathering


async def test_a_single_message_is_written_at_once(
    sockets: MakeSockets,
    nursery: trio.Nursery,
    now: list[float],
    writes: list[int],
) -> None:
    both = sockets()
    async with connected(nursery, both.peer) as ws:
        for _ in range(3):
            now[0] += 1
            writes.clear()
            ws.send_nowait("x")
            assert len(writes) == 1  # without a turn of the loop
            assert await both.peer.read() == (FIN | TEXT, b"x")
        await both.peer.close()


async def test_a_burst_is_gathered(
    sockets: MakeSockets,
    nursery: trio.Nursery,
    now: list[float],
    writes: list[int],
) -> None:
    both = sockets()
    async with connected(nursery, both.peer) as ws:
        now[0] += 1
        writes.clear()
        for i in range(2000):
            ws.send_nowait(b"%0100d" % i)
            # Memory is bounded, so the limit of a write is that of a burst.
            assert ws._endpoint.engine.outbox.size < 2**16
        await trio.testing.wait_all_tasks_blocked()
        assert len(writes) <= 10
        for i in range(2000):
            assert await both.peer.read() == (FIN | BINARY, b"%0100d" % i)
        await both.peer.close()


async def test_what_was_held_back_goes_out_when_the_task_waits(
    sockets: MakeSockets,
    nursery: trio.Nursery,
    now: list[float],
    writes: list[int],
) -> None:
    both = sockets()
    async with connected(nursery, both.peer) as ws:
        now[0] += 1
        writes.clear()
        ws.send_nowait("1")
        ws.send_nowait("2")
        assert len(writes) == 1
        with trio.CancelScope() as scope:
            # Before recv() has waited for anything.
            with trio.testing.assert_checkpoints():
                scope.deadline = trio.current_time() + 0.01
                await ws.recv()
        assert len(writes) == 2
        for payload in (b"1", b"2"):
            assert await both.peer.read() == (FIN | TEXT, payload)
        await both.peer.close()


async def test_what_the_socket_would_not_take_is_not_offered_each_time(
    sockets: MakeSockets, nursery: trio.Nursery, writes: list[int]
) -> None:
    both = sockets(unix=True)
    async with connected(nursery, both.peer, write_limit=2**30) as ws:
        await trio.testing.wait_all_tasks_blocked()
        ws.send_nowait(bytes(2**20))  # more than the socket takes
        assert ws._endpoint.engine.outbox.size > 2**16
        writes.clear()
        for i in range(1000):
            ws.send_nowait(bytes([i % 256]))
        assert not writes
        assert await both.peer.read() == (FIN | BINARY, bytes(2**20))
        for i in range(1000):
            assert await both.peer.read() == (FIN | BINARY, bytes([i % 256]))
        await both.peer.close()


async def test_large_messages_go_in_order_with_small_ones(
    sockets: MakeSockets,
    nursery: trio.Nursery,
) -> None:
    both = sockets()
    async with connected(nursery, both.peer, write_limit=2**24) as ws:
        sizes = [0, 1, 125, 126, 16383, 16384, 65535, 65536, 300_000, 5, 2**21, 7]
        for i, size in enumerate(sizes):
            await ws.send(bytes([i]) * size)
        await ws.pong(b"overtakes")
        got = [await both.peer.read() for _ in range(len(sizes) + 1)]
        assert (FIN | PONG, b"overtakes") in got
        got.remove((FIN | PONG, b"overtakes"))
        assert got == [(FIN | BINARY, bytes([i]) * n) for i, n in enumerate(sizes)]
        await both.peer.close()


async def test_frames_of_which_the_socket_takes_a_part(
    sockets: MakeSockets, nursery: trio.Nursery, now: list[float]
) -> None:
    both = sockets()
    async with connected(nursery, both.peer, write_limit=2**24) as ws:
        for i in range(400):
            now[0] += 1  # never a burst
            ws.send_nowait(bytes([i % 256]) * 10_000)
        for i in range(400):
            assert await both.peer.read() == (FIN | BINARY, bytes([i % 256]) * 10_000)
        await both.peer.close()


class AllOrNothing:
    """A socket that takes all that a call gives it while its buffer isn't full.

    However much that is: so does Windows.
    """

    BUFFER = 2**16
    sendmsg: Any = property()

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.waits = 0
        self.most = 0
        self.sent = 0
        self.room = trio.Event()

    def __getattr__(self, name: str) -> object:
        if name == "sendmsg":
            raise AttributeError(name)
        return getattr(self._sock, name)

    def send(self, data: bytes) -> int:
        if self.waits >= self.BUFFER:
            raise BlockingIOError
        self.sent += len(data)
        self.waits += len(data)
        self.most = max(self.most, self.waits)
        return len(data)

    def drain(self) -> None:
        self.waits = 0
        self.room.set()
        self.room = trio.Event()


async def test_a_socket_that_takes_whatever_it_is_given_at_once(
    sockets: MakeSockets, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit, size, count = 2**16, 10 * STEP_SIZE, 3
    both = sockets()
    with trio.CancelScope() as scope:
        async with connected(
            nursery, both.peer, write_limit=limit, ping_interval=None
        ) as ws:
            transport = ws._endpoint.transport
            assert isinstance(transport, SocketTransport)
            sock = AllOrNothing(transport._sock)
            transport._sock = sock  # type: ignore[assignment]
            monkeypatch.setattr(
                SocketTransport, "wait_writable", lambda _: sock.room.wait()
            )
            accepted = 0

            async def send() -> None:
                nonlocal accepted
                for _ in range(count):
                    await ws.send(bytes(size))
                    accepted += 1

            nursery.start_soon(send)
            while sock.sent < count * size:
                await wait_all_tasks_blocked()
                held = ws._endpoint.engine.outbox.size
                # A message is accepted only while less than write_limit waits.
                assert held < limit + size + 100
                sock.drain()
            await wait_all_tasks_blocked()
            assert accepted == count
            # Of the kernel's memory it takes no more than that.
            assert sock.most <= sock.BUFFER + STEP_SIZE
            scope.cancel()


# Peers that don't read


@pytest.mark.parametrize(
    ("interval", "timeout", "seconds"),
    [(None, 20, 40), (20, None, 40), (None, None, 40)],
)
async def test_a_peer_that_takes_nothing_is_given_up(
    autojump_clock: MockClock,
    nursery: trio.Nursery,
    interval: float | None,
    timeout: float | None,
    seconds: float,
) -> None:
    peer = RawPeer(client=False, streams=trio.testing.lockstep_stream_pair())
    async with connected(
        nursery, peer, ping_interval=interval, ping_timeout=timeout
    ) as ws:
        start = trio.current_time()
        await ws.send(bytes(70_000))
        with pytest.raises(ConnectionClosedError) as caught:
            await ws.recv()
        assert trio.current_time() - start == seconds
    assert str(caught.value) == (
        "sent 1011 (internal error) write timeout; no close frame received"
    )
    assert isinstance(caught.value.__cause__, TimeoutError)
    assert f"in {seconds:.1f} s (ping_interval + ping_timeout)" in str(
        caught.value.__cause__
    )


async def test_a_peer_that_reads_a_little_is_not(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    peer = RawPeer(client=False, streams=trio.testing.lockstep_stream_pair())
    async with connected(nursery, peer, ping_interval=None) as ws:
        await ws.send(bytes(1_000_000))
        for _ in range(14):
            await trio.sleep(35)
            await peer.stream.receive_some(2**16)
        assert ws.close_code is None
        with pytest.raises(ConnectionClosedError, match="write timeout"):
            await ws.recv()
