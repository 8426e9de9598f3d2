"""SocketTransport: what it asks of the kernel, and what it makes of the answers."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from tests.peers.sockets import reset, tcp_pair, trio_stream
from tests.platforms import needs_linux, needs_resets, needs_unix_sockets
from trio_ws._transports.base import READ_SIZE, STEP_SIZE, WRITE_SIZE
from trio_ws._transports.make import make_transport
from trio_ws._transports.sockets import SocketTransport, take_socket, unix_family

Pair = tuple[SocketTransport, socket.socket]


class WithoutSendmsg(socket.socket):
    """A socket as Windows has it."""

    __slots__ = ()
    sendmsg: Any = property()


@pytest.fixture(params=[socket.socket, WithoutSendmsg], ids=lambda kind: kind.__name__)
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    ours, theirs = tcp_pair()
    ours = request.param(fileno=ours.detach())
    with contextlib.closing(ours), contextlib.closing(theirs):
        yield SocketTransport(ours), theirs


def recv_exactly(sock: socket.socket, size: int) -> bytes:
    sock.settimeout(60)
    data = b""
    while len(data) < size:
        chunk = sock.recv(size - len(data))
        assert chunk, f"stream ended after {len(data)} of {size} bytes"
        data += chunk
    return data


def stuff(transport: SocketTransport) -> bytes:
    """Write until nothing goes any more; return what went."""
    wrote = b""
    while True:
        data = bytes(len(wrote) // WRITE_SIZE % 256 for _ in range(WRITE_SIZE))
        count = transport.write([data])
        if not count:
            return wrote
        wrote += data[:count]


# -- What it is made of -----------------------------------------------------------


async def test_takes_the_socket_over(pair: Pair) -> None:
    transport, theirs = pair
    assert transport.local_address == theirs.getpeername()
    assert transport.remote_address == theirs.getsockname()
    assert transport._sock.getblocking() is False


@pytest.mark.parametrize(
    ("level", "name"),
    [(socket.IPPROTO_TCP, "TCP_NODELAY"), (socket.SOL_SOCKET, "SO_KEEPALIVE")],
)
async def test_sets_options(pair: Pair, level: int, name: str) -> None:
    assert pair[0]._sock.getsockopt(level, getattr(socket, name)) != 0


@needs_linux
async def test_raises_the_low_mark_of_trio() -> None:
    # With it, senders would have to wait for each 16 KiB; without any, what the peer
    # has no window for would lie before a pong, megabytes of it.
    ours, theirs = tcp_pair()
    stream = trio_stream(ours)
    mark = (socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)
    assert stream.socket.getsockopt(*mark) == 2**14  # what trio sets
    sock = take_socket(stream)
    SocketTransport(sock)
    assert 2**19 <= sock.getsockopt(*mark) <= 2**20
    sock.close()
    theirs.close()


async def test_does_without_the_low_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "TCP_NOTSENT_LOWAT", raising=False)
    ours, theirs = tcp_pair()
    transport = SocketTransport(ours)
    assert transport.write([b"hello"]) == 5
    await transport.aclose()
    theirs.close()


@needs_unix_sockets
async def test_unix_socket_has_no_options_of_tcp() -> None:
    ours, theirs = socket.socketpair()
    transport = SocketTransport(ours)
    theirs.sendall(b"hello")
    assert transport.read() == b"hello"
    assert transport.remote_address == ""
    await transport.aclose()
    theirs.close()


def test_no_unix_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "AF_UNIX", raising=False)
    with pytest.raises(RuntimeError, match="path: Python has no Unix sockets on "):
        unix_family("path")


async def test_peer_whose_names_are_gone() -> None:
    class Gone(socket.socket):
        """As macOS and the BSDs answer once the peer is gone."""

        def getsockname(self) -> object:
            raise OSError(errno.EINVAL, "Invalid argument")

        def getpeername(self) -> object:
            raise OSError(errno.ENOTCONN, "Socket is not connected")

    ours, theirs = tcp_pair()
    transport = SocketTransport(Gone(fileno=ours.detach()))
    assert transport.local_address is None
    assert transport.remote_address is None
    theirs.sendall(b"last words")
    await transport.wait_readable()
    assert transport.read() == b"last words"
    await transport.aclose()
    theirs.close()


@needs_linux
async def test_peer_that_has_gone_has_no_address() -> None:
    ours, theirs = tcp_pair()
    reset(theirs)
    transport = SocketTransport(ours)
    assert transport.remote_address is None
    with pytest.raises(ConnectionResetError):
        transport.read()
    await transport.aclose()


async def test_take_socket_leaves_a_stream_that_is_closed() -> None:
    ours, theirs = tcp_pair()
    stream = trio_stream(ours)
    sock = take_socket(stream)
    with pytest.raises(trio.ClosedResourceError):
        await stream.send_all(b"x")
    await stream.aclose()  # closes nothing of ours
    sock.sendall(b"still open")
    assert theirs.recv(100) == b"still open"
    sock.close()
    theirs.close()


async def test_who_waits_on_a_stream_that_is_taken_is_told() -> None:
    ours, theirs = tcp_pair()
    stream = trio_stream(ours)
    more = bytes(10_000_000)  # than the system buffers

    async def waits(call: Callable[[], Awaitable[object]]) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await call()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(waits, stream.receive_some)
        nursery.start_soon(waits, partial(stream.send_all, more))
        await trio.testing.wait_all_tasks_blocked()
        take_socket(stream).close()
    theirs.close()


async def test_make_transport_closes_a_socket_it_can_not_use() -> None:
    class Unusable(socket.socket):
        def setblocking(self, flag: bool) -> None:
            raise OSError(errno.EINVAL, "Invalid argument")

    ours, theirs = tcp_pair()
    unusable = Unusable(fileno=ours.detach())
    with pytest.raises(OSError, match="Invalid argument"):
        make_transport(unusable, None, server_side=True)
    assert unusable.fileno() == -1
    theirs.close()


# -- Reading ----------------------------------------------------------------------


async def test_read(pair: Pair) -> None:
    transport, theirs = pair
    assert transport.read() is None
    theirs.sendall(b"hello")
    assert transport.read() == b"hello"
    assert transport.read() is None
    theirs.shutdown(socket.SHUT_WR)
    await transport.wait_readable()
    assert transport.read() == b""
    assert transport.read() == b""


async def test_read_is_bounded(pair: Pair) -> None:
    transport, theirs = pair
    theirs.setblocking(False)
    sent = theirs.send(bytes(4 * READ_SIZE))
    total = 0
    while total < sent:
        await transport.wait_readable()
        data = transport.read()
        assert data is not None
        assert len(data) <= READ_SIZE
        total += len(data)


@needs_resets
async def test_reset_is_an_oserror(pair: Pair) -> None:
    transport, theirs = pair
    reset(theirs)
    await transport.wait_readable()
    with pytest.raises(ConnectionResetError):
        transport.read()


async def test_wait_readable_waits(pair: Pair) -> None:
    transport, theirs = pair
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            await transport.wait_readable()
            assert transport.read() == b"hello"

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 1
        theirs.sendall(b"hello")


# -- Writing ----------------------------------------------------------------------

BUFFERS: dict[str, list[bytes | memoryview]] = {
    "one": [b"one buffer"],
    "a view": [memoryview(b"xxviewxx")[2:6]],
    "small": [b"a", memoryview(b"bc"), b"def"],
    "large first": [b"h" * WRITE_SIZE, b"tail"],
    "large last": [b"head", b"t" * WRITE_SIZE],
    "many": [bytes([i % 256]) * 2000 for i in range(200)],
}


@pytest.mark.parametrize("name", BUFFERS)
async def test_write_takes_buffers_in_order(pair: Pair, name: str) -> None:
    # All fits into the kernel's buffers, yet may need more than one call.
    transport, theirs = pair
    transport._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**20)
    buffers = BUFFERS[name]
    expected = b"".join(buffers)
    taken = transport.write(buffers)
    assert 0 < taken <= len(expected)
    assert not transport.unsent
    assert recv_exactly(theirs, taken) == expected[:taken]
    if len(expected) <= WRITE_SIZE:
        assert taken == len(expected)


class Recording(socket.socket):
    """Takes all that it is given, and keeps it."""

    def __init__(self, *, fileno: int) -> None:
        super().__init__(fileno=fileno)
        self.calls: list[list[Any]] = []

    def send(self, data: Any, *args: Any) -> int:
        self.calls.append([data])
        return len(data)

    def sendmsg(self, buffers: Any, *args: Any) -> int:
        self.calls.append(list(buffers))
        return sum(map(len, self.calls[-1]))


class RecordingWithoutSendmsg(Recording):
    sendmsg: Any = property()


@pytest.mark.parametrize("kind", [Recording, RecordingWithoutSendmsg])
def test_one_call_is_given_a_bounded_amount(kind: type[Recording]) -> None:
    # What a peer as fast as we are takes at once, or a system as generous as Windows.
    ours, theirs = tcp_pair()
    recording = kind(fileno=ours.detach())
    with recording, theirs:
        transport = SocketTransport(recording)
        large = bytes(3 * STEP_SIZE)
        for buffers in ([large], [b"head", large], [large, large], [b"x" * 300] * 500):
            recording.calls.clear()
            assert 0 < transport.write(buffers) <= STEP_SIZE
            (call,) = recording.calls
            assert len(call) <= 16  # what POSIX guarantees


def test_without_sendmsg_a_header_is_no_packet_of_its_own() -> None:
    ours, theirs = tcp_pair()
    recording = RecordingWithoutSendmsg(fileno=ours.detach())
    with recording, theirs:
        transport = SocketTransport(recording)
        payload = memoryview(bytes(3 * STEP_SIZE))
        assert transport.write([b"head", payload]) == WRITE_SIZE
        # And what is left of the payload isn't copied.
        assert transport.write([payload[WRITE_SIZE:], b"head"]) == STEP_SIZE
        (_, (rest,)) = recording.calls
        assert rest.obj is payload.obj


async def test_write_takes_nothing_where_there_is_no_room(pair: Pair) -> None:
    transport, theirs = pair
    wrote = stuff(transport)
    assert transport.write([b"x"]) == 0
    assert transport.write([b"x", b"y"]) == 0
    assert transport.write([b"x", bytes(WRITE_SIZE)]) == 0
    assert recv_exactly(theirs, len(wrote)) == wrote


async def test_wait_writable_waits_for_room(pair: Pair) -> None:
    transport, theirs = pair
    wrote = stuff(transport)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transport.wait_writable)
        await trio.testing.wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 1
        assert recv_exactly(theirs, len(wrote)) == wrote
    assert transport.write([b"more"]) == 4


async def test_write_to_a_peer_that_is_gone(pair: Pair) -> None:
    transport, theirs = pair
    reset(theirs)
    await transport.wait_readable()
    for buffers in ([b"x"], [b"x", b"y"], [b"x", bytes(WRITE_SIZE)]):
        with pytest.raises(ConnectionError):
            transport.write(buffers)


# What a socket that is closed says: ENOTSOCK on Windows.
NOT_OPEN = errno.EBADF if os.name == "posix" else 10038


# -- The end ----------------------------------------------------------------------


async def test_shutdown_ends_our_stream_alone(pair: Pair) -> None:
    transport, theirs = pair
    assert transport.shutdown() is True
    theirs.settimeout(60)
    assert theirs.recv(1) == b""
    theirs.sendall(b"still heard")
    await transport.wait_readable()
    assert transport.read() == b"still heard"


async def test_shutdown_of_a_socket_whose_peer_is_gone(pair: Pair) -> None:
    transport, theirs = pair
    reset(theirs)
    await transport.wait_readable()
    assert transport.shutdown() is True


async def test_aclose_wakes_who_waits(pair: Pair) -> None:
    transport = pair[0]
    stuff(transport)

    async def read() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await transport.wait_readable()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        nursery.start_soon(transport.wait_writable)
        await trio.testing.wait_all_tasks_blocked()
        await transport.aclose()
    assert transport._sock.fileno() == -1
    await transport.aclose()  # does nothing


async def test_waiting_on_a_transport_that_is_closed_returns(pair: Pair) -> None:
    transport = pair[0]
    await transport.aclose()
    with pytest.raises(OSError, match=str(NOT_OPEN)):
        transport.read()
