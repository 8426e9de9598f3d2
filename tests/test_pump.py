"""What moves the bytes: gathering, stalls, failures, goodbyes in a hurry."""

from __future__ import annotations

import socket
import struct
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
import trio
import trio.testing

from tests.in_memory import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    RawPeer,
    close_frame,
    frame,
)
from trio_ws import ConnectionClosedError, ConnectionClosedOK, accept, connect
from trio_ws._endpoint import counter as _counter
from trio_ws._endpoint import writer as _writing
from trio_ws._transports.sockets import SocketTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from trio.testing import MockClock

FIN = 0x80

MakeSockets: TypeAlias = "Callable[..., Sockets]"


class Sockets:
    """A raw peer whose end and ours are sockets of the system."""

    def __init__(self, *, client: bool = False, unix: bool = False) -> None:
        if unix:
            ours, self.sock = socket.socketpair()
        else:
            with socket.create_server(("127.0.0.1", 0)) as listener:
                ours = socket.create_connection(listener.getsockname())
                self.sock, _ = listener.accept()
        streams = [
            trio.SocketStream(trio.socket.from_stdlib_socket(_non_blocking(sock)))
            for sock in (ours, self.sock)
        ]
        self.peer = RawPeer(client=client)
        self.peer.theirs, self.peer.stream = streams

    def reset(self) -> None:
        """Break off as a crashed machine does that has come back."""
        linger = struct.pack("ii", 1, 0)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        stream: Any = self.peer.stream
        stream.socket.close()


@pytest.fixture
async def sockets() -> AsyncIterator[MakeSockets]:
    with ExitStack() as stack:

        def make(**keywords: bool) -> Sockets:
            both = Sockets(**keywords)
            for stream in (both.peer.theirs, both.peer.stream):
                assert isinstance(stream, trio.SocketStream)
                stack.callback(stream.socket.close)
            return both

        yield make


def _non_blocking(sock: socket.socket) -> socket.socket:
    sock.setblocking(False)
    return sock


def connected(nursery: trio.Nursery, peer: RawPeer, **options: Any) -> connect:
    nursery.start_soon(peer.answer)
    return connect("ws://testing/", stream=peer.theirs, **options)


# Gathering


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(_writing, "perf_counter", lambda: now[0])
    return now


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of what was written at once."""
    sizes: list[int] = []
    original = SocketTransport.write

    def write(transport: SocketTransport, buffers: Any) -> int:
        count = original(transport, buffers)
        sizes.append(count)
        return count

    monkeypatch.setattr(SocketTransport, "write", write)
    return sizes


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


# Pauses


async def test_reading_pauses_and_goes_on(
    sockets: MakeSockets, nursery: trio.Nursery
) -> None:
    both = sockets()
    async with connected(nursery, both.peer, max_queue=4, max_size=100_000) as ws:
        sizes = [1] * 20 + [90_000] * 10 + [1] * 20

        async def send() -> None:
            for size in sizes:
                await both.peer.send(BINARY, bytes(size))

        nursery.start_soon(send)
        received = [len(await ws.recv())]
        await trio.testing.wait_all_tasks_blocked()
        received += [len(await ws.recv()) for _ in sizes[1:]]
        assert received == sizes
        await both.peer.close()


async def test_reading_goes_on_before_the_queue_is_empty(
    sockets: MakeSockets, nursery: trio.Nursery
) -> None:
    both = sockets()
    async with connected(nursery, both.peer, max_queue=None, max_size=100_000) as ws:
        for _ in range(11):  # of which the last is left where it is
            await both.peer.send(BINARY, bytes(11_000))
            await trio.testing.wait_all_tasks_blocked()
        paused = [ws._endpoint.reader.paused]
        for _ in range(8):
            await ws.recv()
            paused.append(ws._endpoint.reader.paused)
        # Until 22,000 bytes wait, less than a quarter.
        assert paused == [True] * 8 + [False]
        await both.peer.close()


@pytest.mark.parametrize("limit", [{"max_queue": 0}, {"max_size": 10}])
async def test_closing_wakes_a_reader_that_paused(
    sockets: MakeSockets, nursery: trio.Nursery, limit: dict[str, int]
) -> None:
    both = sockets()
    async with connected(nursery, both.peer, **limit) as ws:
        for _ in range(10):
            await both.peer.send(BINARY, bytes(8))
            await trio.testing.wait_all_tasks_blocked()
        assert ws._endpoint.reader.paused
        nursery.start_soon(both.peer.close)
        await ws.aclose()
        assert ws.close_code == 1000


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


# Failures


async def test_a_reset_while_reading(
    sockets: MakeSockets, nursery: trio.Nursery
) -> None:
    both = sockets()
    async with connected(nursery, both.peer) as ws:
        nursery.start_soon(trio.lowlevel.checkpoint)
        both.reset()
        with pytest.raises(ConnectionClosedError) as caught:
            await ws.recv()
        assert str(caught.value) == "no close frame received or sent"
        assert isinstance(caught.value.__cause__, ConnectionResetError)


async def test_a_reset_while_writing(
    sockets: MakeSockets, nursery: trio.Nursery
) -> None:
    both = sockets()
    async with connected(nursery, both.peer) as ws:
        both.reset()
        ws.send_nowait("x")  # the first to notice
        with pytest.raises(ConnectionClosedError) as caught:
            ws.send_nowait("x")
        assert isinstance(caught.value.__cause__, ConnectionResetError)
        with pytest.raises(ConnectionClosedError):
            await ws.recv()


async def test_a_close_frame_is_found_though_writing_fails(
    sockets: MakeSockets, nursery: trio.Nursery
) -> None:
    # What the peer said before it went says more than that it has gone.
    both = sockets(unix=True)
    async with connected(nursery, both.peer) as ws:
        await trio.testing.wait_all_tasks_blocked()
        both.sock.send(frame(TEXT, b"last") + frame(CLOSE, b"\x03\xe8bye"))
        assert isinstance(both.peer.stream, trio.SocketStream)
        both.peer.stream.socket.close()
        ws.send_nowait("x")  # the first to notice
        assert ws.recv_nowait() == "last"
        with pytest.raises(ConnectionClosedOK, match=r"received 1000 \(OK\) bye"):
            await ws.recv()


async def test_a_violation_is_answered_and_the_messages_before_it_are_too(
    sockets: MakeSockets,
    nursery: trio.Nursery,
    now: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_counter, "perf_counter", lambda: now[0])
    peer = sockets().peer
    async with connected(nursery, peer) as ws:

        async def echo() -> None:
            await ws.send(await ws.recv())

        ws.nursery.start_soon(echo)
        await trio.testing.wait_all_tasks_blocked()
        await peer.stream.send_all(
            frame(TEXT, b"1") + frame(PING, b"2") + frame(3) + frame(TEXT, b"no")
        )
        got = [await peer.read() for _ in range(3)]
        assert set(got[:2]) == {(FIN | TEXT, b"1"), (FIN | PONG, b"2")}
        assert got[2] == close_frame(1002, "unknown opcode 0x3")
        assert await peer.read() is None
        await peer.end()
        with pytest.raises(ConnectionClosedError, match="unknown opcode"):
            await ws.send("x")


async def test_close_frames_that_cross_lose_nothing(nursery: trio.Nursery) -> None:
    # The server's stream may not end before what it has accepted is written,
    # although both close frames are there.
    for turns in range(8):
        peer = RawPeer(client=True)
        await peer.ask()
        async with accept(peer.theirs, ping_interval=None) as ws:
            await peer.skip_response()
            for i in range(5):
                await ws.send(b"%d" % i * 30_000)
            await peer.close()
            for _ in range(turns):
                await trio.lowlevel.checkpoint()
            if ws.close_code is None:
                await ws.aclose()
        for i in range(5):
            assert await peer.read() == (FIN | BINARY, b"%d" % i * 30_000)
        assert await peer.read() == close_frame(1000)
        assert await peer.read() is None


async def test_a_peer_that_has_ended_its_stream_still_reads(
    sockets: MakeSockets,
) -> None:
    both = sockets(client=True)
    peer = both.peer
    await peer.ask()
    async with accept(peer.theirs, write_limit=2**24) as ws:
        await peer.skip_response()
        sizes = [1_000_000] * 8  # more than the system's buffers hold
        for size in sizes:
            await ws.send(bytes(size))
        ws.nursery.start_soon(ws.aclose)
        await trio.testing.wait_all_tasks_blocked()
        await peer.end()
        await trio.testing.wait_all_tasks_blocked()
        for size in sizes:
            received = await peer.read()
            assert received is not None
            assert len(received[1]) == size
        assert await peer.read() == close_frame(1000)
        assert await peer.read() is None


async def test_how_tcp_ends_after_both_close_frames_is_of_no_interest(
    sockets: MakeSockets, nursery: trio.Nursery
) -> None:
    both = sockets()
    async with connected(nursery, both.peer) as ws:
        await trio.testing.wait_all_tasks_blocked()
        await both.peer.send(CLOSE, b"\x03\xe8")
        assert await both.peer.read() == close_frame(1000)
        both.reset()
        with pytest.raises(ConnectionClosedOK):
            await ws.recv()
        await ws.wait_closed()
        assert ws.close_code == 1000


# Goodbyes in a hurry


async def test_a_goodbye_is_said_without_waiting(
    sockets: MakeSockets, mock_clock: MockClock
) -> None:
    both = sockets(client=True)
    peer = both.peer
    await peer.ask()
    with trio.CancelScope() as scope:
        async with accept(peer.theirs, max_queue=0) as ws:
            await peer.skip_response()
            # Bytes that nobody has read would make closing a reset, which
            # can destroy the goodbye.
            for _ in range(12):  # more than one read, less than a buffer holds
                await peer.send(BINARY, bytes(10_000))
                await trio.testing.wait_all_tasks_blocked()
            assert ws._endpoint.reader.paused
            await ws.send("last")
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert await peer.read() == (FIN | TEXT, b"last")
    assert await peer.read() == close_frame(1001)
    assert await peer.read() is None
    assert both.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0  # no reset
    assert trio.current_time() == 0


async def test_a_goodbye_to_whom_takes_nothing(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    peer = RawPeer(client=False, streams=trio.testing.lockstep_stream_pair())
    with trio.CancelScope() as scope:
        async with connected(nursery, peer) as ws:
            await ws.send(bytes(200_000))
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert trio.current_time() == 0
    with pytest.raises(trio.ClosedResourceError):
        await peer.theirs.send_all(b"x")


async def test_a_goodbye_is_why_a_connection_ended(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    peer = RawPeer(client=False)
    with trio.CancelScope() as scope:
        async with connected(nursery, peer) as ws:
            scope.cancel()
            await trio.sleep_forever()
    with pytest.raises(ConnectionClosedError) as caught:
        await ws.recv()
    assert isinstance(caught.value.__cause__, ConnectionAbortedError)
    assert str(caught.value.__cause__) == "closed without waiting for the peer"


async def test_a_goodbye_in_which_a_violation_is_found(
    sockets: MakeSockets,
    nursery: trio.Nursery,
) -> None:
    both = sockets()
    with trio.CancelScope() as scope:
        async with connected(nursery, both.peer) as ws:
            await trio.testing.wait_all_tasks_blocked()
            both.sock.send(frame(3))
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert ws.close_code == 1006
    # Which of the two came first is up to the scheduler; there is one goodbye.
    assert await both.peer.read() in (
        close_frame(1001),
        close_frame(1002, "unknown opcode 0x3"),
    )
    assert await both.peer.read() is None


async def test_a_goodbye_to_whom_has_gone(
    sockets: MakeSockets, nursery: trio.Nursery
) -> None:
    both = sockets()
    with trio.CancelScope() as scope:
        async with connected(nursery, both.peer) as ws:
            await trio.testing.wait_all_tasks_blocked()
            both.reset()
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert ws.close_code == 1006


class TakesNoClose(trio.abc.Stream):
    """A stream on which data goes out and a close frame alone never does."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if bytes(data).startswith(bytes([FIN | CLOSE])):
            await trio.sleep_forever()
        await trio.sleep(1)
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        raise NotImplementedError

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self._stream.aclose()


async def test_a_close_frame_that_no_stream_takes_is_no_lost_data(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    peer = RawPeer(client=True, streams=(TakesNoClose(ours), theirs))
    nursery.start_soon(peer.ask)
    async with accept(peer.theirs, close_timeout=5) as ws:
        await peer.skip_response()
        await ws.send("x")
    assert ws.close_code == 1006
    assert await peer.read() == (FIN | TEXT, b"x")
