"""StreamTransport: any trio.abc.Stream, the good, the slow and the broken."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
import trustme

from tests.leaks import living_tasks
from tests.peers.stream_peer import URI, StreamPeer, reset_error, server_peer
from tests.peers.wire import CLOSE, TEXT, frame
from trio_ws import accept, connect
from trio_ws._transports.base import READ_SIZE
from trio_ws._transports.streams import _SEND_SIZE as SEND_SIZE
from trio_ws._transports.streams import StreamTransport
from trio_ws.exceptions import ConnectionClosedError, InvalidMessage
from trio_ws.testing import open_pair

if TYPE_CHECKING:
    from collections.abc import Callable

# ruff: noqa: PT012 - what raises is the end of a block, which has to be there


@pytest.fixture
def peer() -> StreamPeer:
    peer = StreamPeer()
    peer.handshake_size = 1  # no opening handshake here
    return peer


# -- Reading ----------------------------------------------------------------------


async def test_read(peer: StreamPeer) -> None:
    transport = StreamTransport(peer)
    assert transport.read() is None  # it can't be tried without waiting
    peer.feed(b"hello")
    await transport.wait_readable()
    assert transport.read() == b"hello"
    assert transport.read() is None
    peer.end()
    await transport.wait_readable()
    assert transport.read() == b""
    await transport.wait_readable()
    assert transport.read() == b""


async def test_read_is_bounded(peer: StreamPeer) -> None:
    transport = StreamTransport(peer)
    peer.feed(bytes(2 * READ_SIZE + 1))
    for size in (READ_SIZE, READ_SIZE, 1):
        await transport.wait_readable()
        data = transport.read()
        assert data is not None
        assert len(data) == size


async def test_what_was_received_is_not_received_over(peer: StreamPeer) -> None:
    transport = StreamTransport(peer)
    peer.feed(b"first")
    await transport.wait_readable()
    peer.feed(b"second")
    with trio.testing.assert_checkpoints():
        await transport.wait_readable()
    assert transport.read() == b"first"
    await transport.wait_readable()
    assert transport.read() == b"second"


async def test_cancelled_wait_loses_nothing(
    peer: StreamPeer, autojump_clock: trio.testing.MockClock
) -> None:
    transport = StreamTransport(peer)
    with trio.move_on_after(1):
        await transport.wait_readable()
    assert transport.read() is None
    peer.feed(b"hello")
    await transport.wait_readable()
    assert transport.read() == b"hello"


async def test_bytearray_is_bytes() -> None:
    class Odd(StreamPeer):
        async def receive_some(self, max_bytes: int | None = None) -> bytes:
            data = await super().receive_some(max_bytes)
            return bytearray(data)  # type: ignore[return-value] # as some do

    peer = Odd()
    peer.feed(b"hello")
    transport = StreamTransport(peer)
    await transport.wait_readable()
    assert type(transport.read()) is bytes


# -- Writing ----------------------------------------------------------------------


async def test_write(peer: StreamPeer) -> None:
    transport = StreamTransport(peer)
    with trio.testing.assert_checkpoints():
        await transport.wait_writable()
    flushed = [not transport.unsent]
    assert transport.write([b"head", memoryview(b"tail")]) == 8
    flushed.append(not transport.unsent)
    assert peer.sent == b""
    assert transport.write([b"no room"]) == 0
    await transport.wait_writable()
    flushed.append(not transport.unsent)
    assert flushed == [True, False, True]
    assert peer.sent == b"headtail"


async def test_write_takes_a_bounded_amount(peer: StreamPeer) -> None:
    transport = StreamTransport(peer)
    assert transport.write([b"h", bytes(10 * SEND_SIZE)]) == SEND_SIZE


async def test_send_cut_short_tears_the_stream(
    peer: StreamPeer, autojump_clock: trio.testing.MockClock
) -> None:
    # How much of it was sent can't be known; what follows would be garbage.
    peer.takes = 3
    transport = StreamTransport(peer)
    transport.write([b"hello"])
    with trio.move_on_after(1):
        await transport.wait_writable()
    assert transport.unsent
    with pytest.raises(ConnectionError, match="cut short"):
        transport.write([b"more"])
    assert peer.sent == b"hel"


# -- Errors -----------------------------------------------------------------------

ERRORS: dict[str, tuple[Callable[[], BaseException], str]] = {
    "reset": (reset_error, r"\[Errno \d+\] Connection reset by peer"),
    "bare": (
        lambda: trio.BrokenResourceError("gone"),
        "stream is broken: BrokenResourceError gone",
    ),
    "OSError": (
        lambda: TimeoutError("no route"),
        "stream is broken: TimeoutError no route",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
async def test_errors_of_receiving(peer: StreamPeer, name: str) -> None:
    make, text = ERRORS[name]
    peer._receive_error = make()
    transport = StreamTransport(peer)
    await transport.wait_readable()
    for _ in range(2):
        with pytest.raises(OSError, match=f"^{text}$") as caught:
            transport.read()
        await transport.wait_readable()
    assert peer._receive_error in (caught.value.__cause__, reset_error) or (
        caught.value is peer._receive_error.__cause__
    )


@pytest.mark.parametrize("name", ERRORS)
async def test_errors_of_sending(peer: StreamPeer, name: str) -> None:
    make, text = ERRORS[name]
    peer.send_error = make()
    transport = StreamTransport(peer)
    transport.write([b"hello"])
    with pytest.raises(OSError, match=f"^{text}$"):
        await transport.wait_writable()
    assert transport.unsent
    with pytest.raises(ConnectionError, match="cut short"):
        transport.write([b"more"])


async def test_stream_that_the_user_closed(peer: StreamPeer) -> None:
    transport = StreamTransport(peer)
    transport.write([b"hello"])
    await peer.aclose()
    await transport.wait_writable()
    assert transport.unsent
    await transport.wait_readable()
    assert transport.read() == b""


@pytest.mark.parametrize("error", [OSError("gone"), trio.BrokenResourceError("gone")])
async def test_aclose_absorbs_what_means_that_the_peer_is_gone(
    peer: StreamPeer, error: Exception
) -> None:
    peer.close_error = error
    transport = StreamTransport(peer)
    assert transport.shutdown() is False
    await transport.aclose()
    assert peer.closed


# -- Connections on streams -------------------------------------------------------


async def echo_both_ways(streams: tuple[trio.abc.Stream, trio.abc.Stream]) -> None:
    tasks = living_tasks()
    async with open_pair(streams=streams) as (client, server):
        for size in (0, 1, 125, 70_000, 300_000):
            await client.send(b"c" * size)
            await server.send("s" * size)
            assert await server.recv() == b"c" * size
            assert await client.recv() == "s" * size
        assert await client.ping() >= 0
        assert await server.ping() >= 0
    assert (client.close_code, server.close_code) == (1000, 1000)
    assert living_tasks() == tasks


async def test_memory_streams() -> None:
    await echo_both_ways(trio.testing.memory_stream_pair())


async def test_lockstep_streams() -> None:
    # send_all() returns when the peer has received all of it.
    await echo_both_ways(trio.testing.lockstep_stream_pair())


async def test_stapled_streams() -> None:
    up, from_client = trio.testing.memory_stream_one_way_pair()
    down, from_server = trio.testing.memory_stream_one_way_pair()
    client = trio.StapledStream(up, from_server)
    server = trio.StapledStream(down, from_client)
    await echo_both_ways((client, server))


async def test_pipes() -> None:
    up, from_client = trio.testing.lockstep_stream_one_way_pair()
    down, from_server = trio.testing.memory_stream_one_way_pair()
    client = trio.StapledStream(up, from_server)
    server = trio.StapledStream(down, from_client)
    await echo_both_ways((client, server))


def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("testing").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return client, server


async def test_ssl_streams_of_the_users() -> None:
    client, server = contexts()
    one, other = trio.testing.memory_stream_pair()
    await echo_both_ways(
        (
            trio.SSLStream(one, client, server_hostname="testing"),
            trio.SSLStream(other, server, server_side=True),
        )
    )


async def test_tls_on_a_stream_that_is_no_socket() -> None:
    client_context, server_context = contexts()
    one, other = trio.testing.memory_stream_pair()
    got = []

    async def serve() -> None:
        async with accept(other, ssl=server_context) as server:
            async for message in server:
                got.append(message)
        assert server.close_code == 1000

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        async with connect("wss://testing/", stream=one, ssl=client_context) as client:
            await client.send("hello")
    assert got == ["hello"]


async def test_untrusted_certificate_on_a_stream_that_is_no_socket() -> None:
    _, server_context = contexts()
    one, other = trio.testing.memory_stream_pair()

    async def serve() -> None:
        # trio.SSLStream sends no alert.
        with pytest.raises((InvalidMessage, OSError)):
            async with accept(other, ssl=server_context):
                raise AssertionError("entered")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        with pytest.raises(ssl.SSLCertVerificationError, match="verify failed"):
            async with connect("wss://testing/", stream=one):
                raise AssertionError("entered")


async def test_plain_peer_where_tls_is_expected(
    autojump_clock: trio.testing.MockClock,
) -> None:
    client_context, _ = contexts()
    peer = StreamPeer()
    peer.feed(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with pytest.raises(ssl.SSLError):
        async with connect("wss://testing/", stream=peer, ssl=client_context):
            raise AssertionError("entered")
    assert peer.closed


# -- Connections on streams that break --------------------------------------------


@pytest.mark.parametrize("error", [OSError("gone"), trio.BrokenResourceError("gone")])
async def test_stream_that_breaks_under_a_send(error: Exception) -> None:
    peer = StreamPeer()
    with pytest.raises(ConnectionClosedError) as caught:
        async with connect(URI, stream=peer) as ws:
            peer.send_error = error
            await ws.send("hello")
            await ws.recv()
    assert str(caught.value) == "no close frame received or sent"
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.__cause__ is error
    assert peer.closed


async def test_stream_that_breaks_under_a_send_loses_nothing_that_was_received() -> (
    None
):
    peer = StreamPeer()
    with pytest.raises(ConnectionClosedError) as caught:
        async with connect(URI, stream=peer) as ws:
            peer.feed(frame(TEXT, b"last") + frame(TEXT, b"words"))
            await trio.testing.wait_all_tasks_blocked()
            peer.send_error = reset_error()
            ws.send_nowait("hello")
            await trio.testing.wait_all_tasks_blocked()
            assert await ws.recv() == "last"
            assert await ws.recv() == "words"
            await ws.recv()
    assert type(caught.value.__cause__) is ConnectionResetError


async def test_close_frame_that_was_received_says_more_than_a_failed_send() -> None:
    peer = StreamPeer()
    with pytest.raises(ConnectionClosedError) as caught:
        async with connect(URI, stream=peer) as ws:
            peer.feed(frame(CLOSE, b"\x0f\xa0bye"))
            peer.reset()  # ours can't be written
            await ws.recv()
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 4000


class Bug(Exception):
    """What no stream should raise."""


async def test_stream_whose_aclose_raises(
    autojump_clock: trio.testing.MockClock,
) -> None:
    # The connection is closed all the same; the error isn't hidden.
    for make in (StreamPeer, server_peer):
        peer = make()
        peer.close_error = Bug("closing")
        tasks = living_tasks()
        with trio.fail_after(60), pytest.raises(Bug, match="closing"):
            opens = connect(URI, stream=peer) if make is StreamPeer else accept(peer)
            async with opens:
                pass
        assert living_tasks() == tasks


@pytest.mark.parametrize("where", ["receive_some", "send_all"])
async def test_stream_with_a_bug(where: str) -> None:
    peer = StreamPeer()
    tasks = living_tasks()
    with trio.fail_after(60), pytest.raises(Bug):
        async with connect(URI, stream=peer) as ws:
            if where == "send_all":
                peer.send_error = Bug("sending")
                ws.send_nowait("hello")
            else:
                peer._receive_error = Bug("receiving")
                peer._woken()
            await trio.sleep_forever()
    assert peer.closed
    assert living_tasks() == tasks


# Addresses


async def test_addresses_are_those_of_the_socket_below() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    one = await trio.open_tcp_stream("127.0.0.1", port)
    other = await trio.open_tcp_stream("127.0.0.1", port)
    memory = trio.testing.memory_stream_pair()[0]
    context = ssl.create_default_context()
    expected = one.socket.getsockname(), one.socket.getpeername()
    tls = trio.SSLStream(one, context, server_hostname="localhost")
    for stream, addresses in (
        (one, expected),
        (tls, expected),
        (trio.StapledStream(one, one), expected),
        (trio.StapledStream(tls, tls), expected),
        # Nobody could tell which.
        (trio.StapledStream(one, other), (None, None)),
        (trio.StapledStream(one, memory), (None, None)),
        (trio.StapledStream(memory, one), (None, None)),
        (memory, (None, None)),
        (trio.SSLStream(memory, context, server_hostname="a"), (None, None)),
    ):
        transport = StreamTransport(stream)
        assert (transport.local_address, transport.remote_address) == addresses
    for closing in one, other, *listeners:
        await closing.aclose()
    transport = StreamTransport(trio.StapledStream(one, one))
    assert (transport.local_address, transport.remote_address) == (None, None)
