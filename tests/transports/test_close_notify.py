"""close_notify: no end of a TLS connection looks like one that was cut short.

To the peers, ssl's own sockets and trio.SSLStream, a stream that ends without one
is an error.
"""

from __future__ import annotations

import abc
import functools
import socket
import ssl
from collections.abc import Callable

import pytest
import trio
import trio.testing

from tests.handlers import echo
from tests.peers.sockets import tcp_pair, trio_stream
from tests.peers.stream_peer import REQUEST, response_to
from tests.peers.wire import CLOSE, KEY, close_frame, frame
from tests.transports.test_tls import (
    by_version,
    connected,
    shared_client_context,
    shared_server_context,
)
from trio_ws import (
    ConnectionClosedError,
    InvalidHandshake,
    OpenTimeoutError,
    Server,
    accept,
    connect,
    open_server,
)
from trio_ws._transports.make import make_transport
from trio_ws._transports.sockets import take_socket
from trio_ws._transports.tls import TLSTransport


class Peer(abc.ABC):
    """The other end."""

    @abc.abstractmethod
    async def send(self, data: bytes) -> None: ...

    @abc.abstractmethod
    async def receive(self) -> bytes:
        """Receive something, b"" at the end; raise if no close_notify is before it."""

    @abc.abstractmethod
    async def end(self) -> None:
        """End our stream as TCP does, without close_notify."""

    @abc.abstractmethod
    async def unwrap(self) -> None:
        """Send a close_notify and wait for the other."""

    @abc.abstractmethod
    async def aclose(self) -> None: ...

    async def receive_until(self, what: bytes) -> bytes:
        data = b""
        while what not in data:
            came = await self.receive()
            assert came, data
            data += came
        return data


class SocketPeer(Peer):
    def __init__(
        self, sock: socket.socket, context: ssl.SSLContext, server: bool
    ) -> None:
        sock.settimeout(5)
        self._make = functools.partial(
            context.wrap_socket,
            sock,
            server_side=server,
            server_hostname=None if server else "localhost",
            suppress_ragged_eofs=False,
        )
        self._sock: ssl.SSLSocket | None = None

    async def _wrapped(self) -> ssl.SSLSocket:
        if self._sock is None:
            self._sock = await trio.to_thread.run_sync(self._make)
        return self._sock

    async def send(self, data: bytes) -> None:
        await trio.to_thread.run_sync((await self._wrapped()).sendall, data)

    async def receive(self) -> bytes:
        return await trio.to_thread.run_sync((await self._wrapped()).recv, 65536)

    async def end(self) -> None:
        socket.socket.shutdown(await self._wrapped(), socket.SHUT_WR)

    async def unwrap(self) -> None:
        await trio.to_thread.run_sync((await self._wrapped()).unwrap)

    async def aclose(self) -> None:
        (await self._wrapped()).close()


class SSLStreamPeer(Peer):
    def __init__(
        self, stream: trio.abc.Stream, context: ssl.SSLContext, server: bool
    ) -> None:
        self._stream = trio.SSLStream(
            stream,
            context,
            server_side=server,
            server_hostname=None if server else "localhost",
        )

    async def send(self, data: bytes) -> None:
        await self._stream.send_all(data)

    async def receive(self) -> bytes:
        return bytes(await self._stream.receive_some())

    async def end(self) -> None:
        below = self._stream.transport_stream
        assert isinstance(below, trio.abc.HalfCloseableStream)
        await below.send_eof()

    async def unwrap(self) -> None:
        below, _ = await self._stream.unwrap()
        await below.aclose()

    async def aclose(self) -> None:
        await trio.aclose_forcefully(self._stream)


# What is below TLS, and who does it at the other end; or, last, at ours.
LINKS = ["ssl socket", "trio stream", "memory", "SSLStream of the user's"]
by_link = pytest.mark.parametrize("link", LINKS)
by_role = pytest.mark.parametrize("role", ["client", "server"])  # ours


def ends(
    link: str, role: str, version: ssl.TLSVersion
) -> tuple[Callable[..., connect | accept], Peer]:
    """Make our end of a connection, to be opened, and its peer."""
    context, theirs = shared_client_context(), shared_server_context(version=version)
    if role == "server":
        context, theirs = theirs, context
    stream: trio.abc.Stream
    other: trio.abc.Stream
    stream, other = trio.testing.memory_stream_pair()
    if link in ("ssl socket", "trio stream"):
        stream, other = map(trio_stream, tcp_pair())
    peer: Peer
    if link == "ssl socket":
        assert isinstance(other, trio.SocketStream)
        peer = SocketPeer(take_socket(other), theirs, role == "client")
    else:
        peer = SSLStreamPeer(other, theirs, role == "client")
    uri = "wss://localhost/"
    ours: ssl.SSLContext | None = context
    if link == "SSLStream of the user's":
        stream = trio.SSLStream(
            stream,
            context,
            server_hostname=None if role == "server" else "localhost",
            server_side=role == "server",
        )
        uri, ours = "ws://localhost/", None
    if role == "client":
        return functools.partial(connect, uri, stream=stream, ssl=ours), peer
    return functools.partial(accept, stream, ssl=ours), peer


class OurError(Exception):
    """What the user's code raises."""


async def leave(manager: connect | accept) -> None:
    async with manager:
        pass


async def aclose(manager: connect | accept) -> None:
    async with manager as ws:
        await ws.aclose()


async def leave_by_error(manager: connect | accept) -> None:
    with pytest.raises(OurError):
        async with manager:
            raise OurError


async def receive(manager: connect | accept) -> None:
    async with manager as ws:
        async for _ in ws:
            pass


async def meet_a_violation(manager: connect | accept) -> None:
    with pytest.raises(ConnectionClosedError):
        await receive(manager)


async def be_cancelled(manager: connect | accept) -> None:
    with trio.CancelScope() as scope:
        async with manager:
            scope.cancel()
            await trio.sleep_forever()


ENDINGS = {
    "leave": leave,
    "aclose": aclose,
    "error": leave_by_error,
    "peer closes": receive,
    "violation": meet_a_violation,
    "cancelled": be_cancelled,
}
# RFC 6455, section 7.1.1: where all is well, a client waits for the server to end TCP,
# which may do so with a close_notify of its own or without.
CASES = [("server", ending, "") for ending in ENDINGS]
CASES += [("client", ending, "") for ending in ("violation", "cancelled")]
for ending in ("leave", "aclose", "error", "peer closes"):
    CASES += [("client", ending, "end"), ("client", ending, "unwrap")]


@by_link
@pytest.mark.parametrize(("role", "ending", "before"), CASES)
@by_version
async def test_each_way_of_ending(
    version: ssl.TLSVersion, role: str, ending: str, before: str, link: str
) -> None:
    if before == "end" and link == "SSLStream of the user's":
        before = "unwrap"  # a trio.SSLStream is broken by anything else
    make, peer = ends(link, role, version)
    key = None if role == "client" else KEY

    async def other_end() -> None:
        if role == "client":
            await peer.send(response_to(await peer.receive_until(b"\r\n\r\n")))
        else:
            await peer.send(REQUEST)
            await peer.receive_until(b"\r\n\r\n")
        if ending == "peer closes":
            await peer.send(close_frame(1000, key=key))
        elif ending == "violation":
            await peer.send(frame(0x3, b"", key=key))
        received = await peer.receive()
        assert received[0] == 0x80 | CLOSE
        if ending in ("leave", "aclose", "error"):
            await peer.send(close_frame(1000, key=key))
        if before == "end":
            await peer.end()
        if before == "unwrap":
            await peer.unwrap()
        else:
            assert await peer.receive() == b""
        await peer.aclose()

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other_end)
            await ENDINGS[ending](make())


@by_link
@by_role
@by_version
async def test_a_handshake_that_is_refused(
    version: ssl.TLSVersion, role: str, link: str
) -> None:
    make, peer = ends(link, role, version)

    async def other_end() -> None:
        if role == "client":
            await peer.receive_until(b"\r\n\r\n")
            await peer.send(b"HTTP/1.1 403 No\r\nContent-Length: 5\r\n\r\nNever")
        else:
            await peer.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await peer.receive_until(b"\r\n\r\n")
        while await peer.receive():
            pass
        await peer.aclose()

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other_end)
            with pytest.raises(InvalidHandshake):
                async with make():
                    raise AssertionError("entered")


@by_link
@by_role
@by_version
async def test_a_handshake_that_takes_too_long(
    version: ssl.TLSVersion, role: str, link: str, mock_clock: trio.testing.MockClock
) -> None:
    make, peer = ends(link, role, version)

    async def other_end() -> None:
        if role == "client":
            await peer.receive_until(b"\r\n\r\n")
        else:
            await peer.send(b"GET")
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(11)
        if role == "server":
            await peer.receive_until(b"took too long.\n")  # of a 408
        assert await peer.receive() == b""
        await peer.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other_end)
        with pytest.raises(OpenTimeoutError):
            async with make(open_timeout=10):
                raise AssertionError("entered")


@pytest.mark.parametrize("link", LINKS[:2])
@by_version
async def test_a_server_that_stops(version: ssl.TLSVersion, link: str) -> None:
    async def call(server: Server, start: bytes, end: bytes) -> None:
        sock = socket.create_connection(("127.0.0.1", server.port))
        context = shared_client_context(version)
        peer: Peer
        if link == "ssl socket":
            peer = SocketPeer(sock, context, False)
        else:
            peer = SSLStreamPeer(trio_stream(sock), context, False)
        await peer.send(start)
        if start == REQUEST:
            await peer.receive_until(b"\r\n\r\n")
        ready.release()
        await peer.receive_until(end)
        if start == REQUEST:
            await peer.send(close_frame(1001, key=KEY))
        assert await peer.receive() == b""
        await peer.aclose()

    ready = trio.Semaphore(0)
    with trio.fail_after(5):
        async with open_server(
            echo, 0, host="127.0.0.1", ssl=shared_server_context(version=version)
        ) as server:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(call, server, REQUEST, close_frame(1001))
                nursery.start_soon(call, server, b"GET", b"shutting down.\n")
                for _ in range(2):
                    await ready.acquire()
                await trio.testing.wait_all_tasks_blocked()
                await server.aclose()


# -- The transport ----------------------------------------------------------------


async def came_before_close_notify(transport: TLSTransport) -> bytes:
    """Decrypt what came; raise if it doesn't end with a close_notify."""
    while part := transport._below.read():
        transport._incoming.write(part)
    data = b""
    while plain := transport._tls.read(1000):
        data += plain
    return data


async def test_a_finaliser_sends_it() -> None:
    one, other = await connected()
    one.write([b"last words"])
    one.discard()
    assert await came_before_close_notify(other) == b"last words"
    await one.aclose()
    await other.aclose()


async def test_after_an_end_without_it_there_can_be_data_before_it() -> None:
    one, other = await connected()
    other._below.shutdown()
    assert one.read() == b""
    assert one.write([b"last words"]) == 10
    await one.aclose()
    assert await came_before_close_notify(other) == b"last words"
    await other.aclose()


async def test_what_came_unread_does_not_make_the_end_a_reset() -> None:
    one, other = await connected()
    other.write([bytes(1000)])
    other.shutdown()
    await one.aclose()
    assert other._below.read()
    assert other._below.read() == b""
    await other.aclose()


async def test_none_before_the_handshake_is_done() -> None:
    ours, theirs = tcp_pair()
    one = make_transport(
        ours, shared_client_context(), server_side=False, server_hostname="localhost"
    )
    await one.aclose()
    theirs.settimeout(5)
    assert theirs.recv(100) == b""
    theirs.close()
