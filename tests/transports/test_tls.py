"""TLSTransport: handshakes that fail, ends, and bytes both ways at once.

The peers are ssl's own sockets in threads of theirs, so that what is tested is
never at both ends; and trio_ws at both ends where the two have to get along.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import logging
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
import trio.testing
import trustme

from tests.leaks import living_tasks, open_descriptors
from tests.peers.key_updates import KeyUpdater
from tests.peers.sockets import recv_until, reset, tcp_pair, trio_stream
from tests.peers.stream_peer import REQUEST, response_to
from tests.peers.wire import BINARY, CLOSE, KEY, TEXT, close_frame, frame, header
from tests.platforms import by_reset
from trio_ws import ServerConnection, accept, connect, open_server
from trio_ws._transports.base import READ_SIZE, Transport
from trio_ws._transports.make import make_transport
from trio_ws._transports.sockets import SocketTransport
from trio_ws._transports.tls import TLSTransport
from trio_ws.exceptions import (
    ConnectionClosed,
    ConnectionClosedError,
    InvalidHandshake,
    InvalidStatus,
)

# ruff: noqa: PT012 - what raises is the end of a block, which has to be there

CA = trustme.CA()
OTHER_CA = trustme.CA()
NOW = datetime.datetime.now(datetime.UTC)

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
by_version = pytest.mark.parametrize("version", VERSIONS, ids=lambda v: v.name)


@functools.cache
def certificate(kind: str) -> trustme.LeafCert:
    if kind == "other name":
        return CA.issue_cert("elsewhere.example")
    if kind == "expired":
        return CA.issue_cert("localhost", not_after=NOW - datetime.timedelta(days=1))
    if kind == "untrusted":
        return OTHER_CA.issue_cert("localhost")
    return CA.issue_cert("localhost", "127.0.0.1")


def server_context(
    kind: str = "good", version: ssl.TLSVersion | None = None
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate(kind).configure_cert(context)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


def client_context(version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    CA.configure_trust(context)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


# Loading the roots of the system takes its time. For those who change nothing.
shared_server_context = functools.cache(server_context)
shared_client_context = functools.cache(client_context)


@contextlib.contextmanager
def in_thread(work: Callable[[], None]) -> Iterator[None]:
    """Run a blocking peer; what it raises fails the test."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as exc:
            errors.append(exc)
            raise

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield
    thread.join(5)
    assert not thread.is_alive()
    assert not errors


async def echo(ws: ServerConnection) -> None:
    async for message in ws:
        await ws.send(message)


def url(server: object) -> str:
    return f"wss://localhost:{server.port}/"  # type: ignore[attr-defined]


# -- Handshakes that succeed ------------------------------------------------------


@by_version
async def test_both_sides(version: ssl.TLSVersion) -> None:
    tasks, descriptors = living_tasks(), open_descriptors()
    async with open_server(
        echo, 0, host="127.0.0.1", ssl=server_context(version=version)
    ) as server:
        async with connect(url(server), ssl=client_context()) as ws:
            transport = ws._endpoint.transport
            assert isinstance(transport, TLSTransport)
            expected = {VERSIONS[0]: "TLSv1.2", VERSIONS[1]: "TLSv1.3"}[version]
            assert ws.ssl_object is not None
            assert ws.ssl_object.version() == expected
            for size in (0, 1, 16_384, 100_000, 1_000_000):
                await ws.send(b"x" * size)
                assert await ws.recv() == b"x" * size
        assert ws.close_code == 1000
    assert living_tasks() == tasks
    assert open_descriptors() == descriptors


async def test_default_context_has_the_roots_of_the_system(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []
    original = ssl.create_default_context

    def create_default_context() -> ssl.SSLContext:
        asked.append(True)
        context = original()
        CA.configure_trust(context)
        return context

    monkeypatch.setattr(ssl, "create_default_context", create_default_context)
    monkeypatch.setattr("trio_ws._client.tls._context", None)  # shared till now
    async with open_server(echo, 0, host="127.0.0.1", ssl=server_context()) as server:
        async with connect(url(server)) as ws:
            await ws.send("hello")
            assert await ws.recv() == "hello"
    assert asked == [True]


async def test_server_hostname_is_checked_in_place_of_the_host() -> None:
    context = server_context("other name")
    names = []
    context.sni_callback = lambda _, name, __: names.append(name)
    async with open_server(echo, 0, host="127.0.0.1", ssl=context) as server:
        async with connect(
            url(server), ssl=client_context(), server_hostname="elsewhere.example"
        ) as ws:
            await ws.send("hello")
            assert await ws.recv() == "hello"
    assert names == ["elsewhere.example"]


async def test_address_in_place_of_a_name() -> None:
    async with open_server(echo, 0, host="127.0.0.1", ssl=server_context()) as server:
        async with connect(
            f"wss://127.0.0.1:{server.port}/", ssl=client_context()
        ) as ws:
            await ws.send("hello")
            assert await ws.recv() == "hello"


@by_version
async def test_client_certificate(version: ssl.TLSVersion) -> None:
    server_side = server_context(version=version)
    server_side.verify_mode = ssl.CERT_REQUIRED
    CA.configure_trust(server_side)
    client_side = client_context()
    CA.issue_cert("somebody@example.org").configure_cert(client_side)
    seen = []

    async def handler(ws: ServerConnection) -> None:
        assert ws.ssl_object is not None
        certificate = ws.ssl_object.getpeercert()
        assert certificate is not None
        seen.append(certificate["subjectAltName"])

    async with open_server(handler, 0, host="127.0.0.1", ssl=server_side) as server:
        async with connect(url(server), ssl=client_side) as ws:
            async for _ in ws:
                pass
    assert seen == [(("email", "somebody@example.org"),)]


async def test_impossible_server_hostname_closes_the_socket() -> None:
    ours, theirs = tcp_pair()
    with pytest.raises(ValueError, match="idna"):
        make_transport(
            ours, client_context(), server_side=False, server_hostname=".bad"
        )
    assert ours.fileno() == -1
    theirs.close()


# -- Handshakes that fail ---------------------------------------------------------

REFUSED = {
    "untrusted": (r"verify failed: unable to get local issuer", "UNKNOWN_CA"),
    "other name": (r"verify failed: Hostname mismatch", "BAD_CERTIFICATE"),
    "expired": (r"verify failed: certificate has expired", "CERTIFICATE_EXPIRED"),
}


@pytest.mark.parametrize("kind", REFUSED)
@by_version
async def test_certificate_that_is_refused(
    kind: str, version: ssl.TLSVersion, caplog: pytest.LogCaptureFixture
) -> None:
    # The client says what is wrong; the server gets an alert that says so too.
    caplog.set_level(logging.INFO, "trio_ws.server")
    text, alert = REFUSED[kind]
    context = server_context(kind, version)
    descriptors = open_descriptors()
    async with open_server(echo, 0, host="127.0.0.1", ssl=context) as server:
        with pytest.raises(ssl.SSLCertVerificationError, match=text):
            async with connect(url(server), ssl=client_context()):
                raise AssertionError("entered")
        while "opening handshake failed" not in caplog.text:
            await trio.lowlevel.checkpoint()
    assert alert in caplog.text.upper().replace(" ", "_")
    assert [record.levelname for record in caplog.records if record.exc_info] == []
    assert open_descriptors() == descriptors


@by_version
async def test_client_without_the_certificate_that_is_required(
    version: ssl.TLSVersion, caplog: pytest.LogCaptureFixture
) -> None:
    # In TLS 1.3 the client's handshake is done before the server refuses it.
    caplog.set_level(logging.INFO, "trio_ws.server")
    context = server_context(version=version)
    context.verify_mode = ssl.CERT_REQUIRED
    async with open_server(echo, 0, host="127.0.0.1", ssl=context) as server:
        with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
            async with connect(url(server), ssl=client_context()):
                raise AssertionError("entered")
        while "opening handshake failed" not in caplog.text:
            await trio.lowlevel.checkpoint()
    assert "did not return a certificate" in caplog.text


async def test_versions_that_do_not_meet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trio_ws.server")
    async with open_server(
        echo, 0, host="127.0.0.1", ssl=server_context(version=VERSIONS[1])
    ) as server:
        with pytest.raises(ssl.SSLError, match=r"(?i)alert.protocol.version"):
            async with connect(url(server), ssl=client_context(VERSIONS[0])):
                raise AssertionError("entered")


async def test_plain_client_on_a_tls_port(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trio_ws.server")
    async with open_server(echo, 0, host="127.0.0.1", ssl=server_context()) as server:
        with pytest.raises(InvalidStatus, match="HTTP 400") as caught:
            async with connect(f"ws://localhost:{server.port}/", open_timeout=5):
                raise AssertionError("entered")
    assert b"expected TLS (wss://, not ws://)" in caught.value.response.body
    async with open_server(echo, 0, host="127.0.0.1", ssl=server_context()) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as stranger:
            stranger.sendall(b"SSH-2.0-OpenSSH_9\r\n")
            while "got SSH" not in caplog.text:
                await trio.lowlevel.checkpoint()
        while "opening handshake failed" not in caplog.text:
            await trio.lowlevel.checkpoint()
    assert "HTTP_REQUEST" in caplog.text


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (b"SSH-2.0-OpenSSH_9\r\n", "SSH"),
        (b"220 mail ESMTP\r\n", "SMTP or FTP"),
        (b"hello, world", "'hello, world'"),
    ],
)
async def test_what_is_no_tls(said: bytes, shown: str) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(said)
    with pytest.raises(ssl.SSLError, match=f": expected TLS; got {shown}\n"):
        async with connect("wss://localhost/", stream=ours, ssl=client_context()):
            raise AssertionError("entered")


async def test_tls_client_on_a_plain_port(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trio_ws.server")
    async with open_server(echo, 0, host="127.0.0.1") as server:
        with pytest.raises(
            ssl.SSLError,
            match=r"expected TLS; got HTTP; this port speaks ws://, not wss://",
        ) as caught:
            async with connect(url(server), ssl=client_context()):
                raise AssertionError("entered")
        assert caught.value.__notes__ == [f"TLS handshake with localhost:{server.port}"]
        while "opening handshake failed" not in caplog.text:
            await trio.lowlevel.checkpoint()


def vanish_after(
    limit: int, way: str, sock: socket.socket, context: ssl.SSLContext, server: bool
) -> None:
    """Do the peer's side of a TLS handshake, up to so many bytes sent."""
    sock.settimeout(60)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server, None if server else "localhost")
    while limit:
        with contextlib.suppress(ssl.SSLWantReadError):
            tls.do_handshake()
        data = outgoing.read(limit)
        if not data:  # the handshake is done
            break
        sock.sendall(data)
        limit -= len(data)
        if limit:
            incoming.write(sock.recv(65536))
    if way == "reset":
        reset(sock)
    else:
        # All is read first, for else closing would be a reset as well.
        sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while sock.recv(65536):
                pass
        sock.close()


@pytest.mark.parametrize("way", ["end", "reset"])
@by_version
@pytest.mark.parametrize("role", ["client", "server"])
async def test_peer_vanishes_in_the_middle_of_a_handshake(
    role: str, version: ssl.TLSVersion, way: str
) -> None:
    tasks, descriptors = living_tasks(), open_descriptors()
    for limit in range(0, 1000, 50):
        ours, theirs = tcp_pair()
        if role == "client":
            context = shared_server_context(version=version)
            manager = client_on(ours)
        else:
            context = shared_client_context(version)
            manager = accept(trio_stream(ours), ssl=shared_server_context())
        peer = functools.partial(
            vanish_after, limit, way, theirs, context, role == "client"
        )
        with in_thread(peer), pytest.raises((OSError, InvalidHandshake)) as caught:
            async with manager:
                raise AssertionError("entered")
        assert not isinstance(caught.value, TimeoutError)
        if way == "end" and limit < 100:
            # Python 3.11.2 raises the second, with or without close_notify.
            assert type(caught.value) in (ssl.SSLEOFError, ssl.SSLZeroReturnError)
    assert living_tasks() == tasks
    assert open_descriptors() == descriptors


# -- A peer in a thread -----------------------------------------------------------


def tls_server(sock: socket.socket, *, ragged: bool = True) -> ssl.SSLSocket:
    """Be a server up to the end of the opening handshake, blocking."""
    sock.settimeout(60)
    tls = server_context().wrap_socket(
        sock, server_side=True, suppress_ragged_eofs=ragged
    )
    tls.sendall(response_to(recv_until(tls, b"\r\n\r\n")))
    return tls


def client_on(ours: socket.socket) -> connect | accept:
    return connect(
        "wss://localhost/", stream=trio_stream(ours), ssl=shared_client_context()
    )


def read_frames(tls: ssl.SSLSocket) -> bytes:
    data = b""
    while chunk := tls.recv(65536):
        data += chunk
    return data


async def test_failed_connection_sends_close_notify() -> None:
    ours, theirs = tcp_pair()

    def serve() -> None:
        # ssl raises SSLEOFError for a stream that ends without close_notify.
        tls = tls_server(theirs, ragged=False)
        tls.sendall(frame(0x3, b"a violation"))
        assert read_frames(tls)[0] == 0x80 | CLOSE
        tls.close()

    with in_thread(serve), pytest.raises(ConnectionClosedError):
        async with client_on(ours) as ws:
            await ws.recv()


async def test_server_sends_close_notify_behind_its_close_frame() -> None:
    ours, theirs = tcp_pair()
    got = []

    def call() -> None:
        theirs.settimeout(60)
        tls = client_context().wrap_socket(
            theirs, server_hostname="localhost", suppress_ragged_eofs=False
        )
        tls.sendall(REQUEST)
        recv_until(tls, b"\r\n\r\n")
        tls.sendall(close_frame(1000, key=KEY))
        got.append(read_frames(tls))
        tls.close()

    with in_thread(call):
        async with accept(trio_stream(ours), ssl=server_context()) as ws:
            async for _ in ws:
                pass
    assert got == [close_frame(1000)]


@pytest.mark.parametrize("way", ["end", by_reset])
async def test_end_without_close_notify_is_an_end_of_stream(way: str) -> None:
    ours, theirs = tcp_pair()

    def serve() -> None:
        tls = tls_server(theirs)
        tls.sendall(frame(TEXT, b"last words"))
        assert tls.recv(100)  # they have been read
        reset(tls) if way == "reset" else tls.close()

    with in_thread(serve), pytest.raises(ConnectionClosedError) as caught:
        async with client_on(ours) as ws:
            assert await ws.recv() == "last words"
            await ws.send("received")
            await ws.recv()
    assert str(caught.value) == "no close frame received or sent"
    cause = EOFError if way == "end" else ConnectionResetError
    assert type(caught.value.__cause__) is cause


async def test_garbage_instead_of_a_record() -> None:
    ours, theirs = tcp_pair()

    def serve() -> None:
        tls = tls_server(theirs)
        raw = socket.socket(fileno=tls.detach())
        raw.sendall(b"not a record at all, at the very least")
        with contextlib.suppress(OSError):
            while raw.recv(100):
                pass
        raw.close()

    with in_thread(serve), pytest.raises(ConnectionClosedError) as caught:
        async with client_on(ours) as ws:
            await ws.recv()
    assert isinstance(caught.value.__cause__, ssl.SSLError)


async def test_reset_with_ciphertext_unwritten_loses_nothing_that_came() -> None:
    ours, theirs = tcp_pair()
    sent, stuffed = threading.Event(), threading.Event()

    def serve() -> None:
        tls = tls_server(theirs)
        stuffed.wait(5)
        tls.sendall(frame(TEXT, b"last words") + close_frame(1000, b"bye"))
        reset(tls)
        sent.set()

    with in_thread(serve):
        async with client_on(ours) as ws:
            with contextlib.suppress(trio.WouldBlock):
                while True:
                    ws.send_nowait(bytes(100_000))
                    await trio.testing.wait_all_tasks_blocked()
            stuffed.set()
            sent.wait(5)
            with contextlib.suppress(ConnectionClosed, trio.WouldBlock):
                ws.send_nowait("wakes the writer first")
            assert await ws.recv() == "last words"
    assert (ws.close_code, ws.close_reason) == (1000, "bye")


async def test_violation_in_the_middle_of_a_flood_is_told_to_the_peer() -> None:
    # The reason arrives although the peer has much more to say.
    ours, theirs = tcp_pair()
    got = []

    def serve() -> None:
        tls = tls_server(theirs)
        tls.sendall(header(BINARY, 2**21) + bytes(400_000))
        got.append(read_frames(tls))
        tls.close()

    with in_thread(serve), pytest.raises(ConnectionClosedError) as caught:
        async with client_on(ours) as ws:
            await ws.recv()
    assert caught.value.sent is not None
    assert caught.value.sent.code == 1009
    assert len(got) == 1
    assert got[0][0] == 0x80 | CLOSE


# -- Both ways at once ------------------------------------------------------------


@by_version
async def test_large_messages_both_ways_at_once(version: ssl.TLSVersion) -> None:
    # Neither side receives before it has sent; the buffers are as small as can be.
    ours, theirs = socket.socketpair()  # TCP would wait for its timers
    for sock in (ours, theirs):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    messages = [bytes([i]) * 150_000 for i in range(4)]

    async def talk(ws: object) -> None:
        for message in messages:
            await ws.send(message)  # type: ignore[attr-defined]
        for message in messages:
            assert await ws.recv() == message  # type: ignore[attr-defined]

    async def serve() -> None:
        async with accept(
            trio_stream(theirs), ssl=server_context(version=version)
        ) as ws:
            await talk(ws)
            async for _ in ws:
                pass

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            async with client_on(ours) as ws:
                await talk(ws)


@pytest.mark.parametrize("tickets", [0, 2, 20])
async def test_session_tickets_do_not_disturb(tickets: int) -> None:
    # They come behind the server's handshake, when the client's is done.
    context = server_context(version=ssl.TLSVersion.TLSv1_3)
    context.num_tickets = tickets
    async with open_server(echo, 0, host="127.0.0.1", ssl=context) as server:
        async with connect(url(server), ssl=client_context()) as ws:
            await ws.send("hello")
            assert await ws.recv() == "hello"


async def test_handshake_that_is_larger_than_the_buffer_of_the_socket() -> None:
    # It isn't read before it has been written in part.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    names = [f"host{i}.example" for i in range(2000)]
    CA.issue_cert("localhost", *names).configure_cert(context)
    ours, theirs = socket.socketpair()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)

    async def serve() -> None:
        async with accept(trio_stream(theirs), ssl=context) as ws:
            async for message in ws:
                await ws.send(message)

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            async with client_on(ours) as ws:
                await ws.send("hello")
                assert await ws.recv() == "hello"


def socket_transports() -> tuple[SocketTransport, SocketTransport]:
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**20)
    return SocketTransport(ours), SocketTransport(theirs)


async def connected(
    below: tuple[Transport, Transport] | None = None,
) -> tuple[TLSTransport, TLSTransport]:
    """Make two transports that are connected, a server's and a client's."""
    ours, theirs = below or socket_transports()
    one = TLSTransport(ours, shared_server_context(), server_side=True)
    other = TLSTransport(
        theirs, shared_client_context(), server_side=False, server_hostname="localhost"
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.do_handshake)
        nursery.start_soon(other.do_handshake)
    return one, other


def read(transport: TLSTransport, size: int = READ_SIZE) -> bytes | None:
    return transport.read(size)


def read_into(transport: TLSTransport, size: int = READ_SIZE) -> bytes | None:
    target = bytearray(size)
    count = transport.read_into(memoryview(target))
    return None if count is None else bytes(target[:count])


BOTH_WAYS = pytest.mark.parametrize("read", [read, read_into])
Read = Callable[..., bytes | None]


@BOTH_WAYS
@pytest.mark.parametrize("size", [1, 100, 2**14 - 1, 2**14, 2**14 + 1, 10**6])
async def test_nothing_is_left_in_tls_by_a_read_that_was_not_full(
    read: Read, size: int
) -> None:
    one, other = await connected()
    for message in (b"x", bytes(range(256)) * 150):
        assert read(other, size) is None
        assert one.write([message]) == len(message)
        received = b""
        while True:
            data = read(other, size)
            assert data
            received += data
            if len(data) < size or received == message:
                break
        assert received == message
    await one.aclose()
    await other.aclose()


@pytest.mark.parametrize("large", [2**14 - 1, 2**14, 2**14 + 1, 40_000, 2**16, 10**5])
@pytest.mark.parametrize("small", [[], [10], [14, 2**14 - 14], [2**14], [9, 20_000]])
async def test_buffers_are_written_in_order(small: list[int], large: int) -> None:
    one, other = await connected()
    data = os.urandom(sum(small) + large)
    buffers: list[bytes | memoryview] = []
    start = 0
    for size in (*small, large):
        part = data[start : start + size]
        buffers.append(memoryview(part) if len(buffers) % 2 else part)
        start += size
    taken = one.write(buffers)
    assert taken == min(len(data), READ_SIZE)
    received = b""
    while len(received) < taken:
        received += other.read() or b""
        one.write(())
    assert received == data[:taken]
    await one.aclose()
    await other.aclose()


@BOTH_WAYS
async def test_shutdown_loses_nothing_that_came(read: Read) -> None:
    one, other = await connected()
    message = bytes(range(256)) * 900
    sent = 0
    while sent < len(message):
        sent += one.write([message[sent:]])
    received = other.read(1000) or b""  # the rest is within TLS, or before it
    assert other.shutdown() is True
    one.shutdown()
    while data := read(other):
        received += data
    assert received == message[:sent]
    assert data == b""
    await one.aclose()
    await other.aclose()


@BOTH_WAYS
async def test_what_shutdown_left_is_read_in_parts(read: Read) -> None:
    one, other = await connected()
    message = os.urandom(20_000)
    assert one.write([message]) == len(message)
    received = read(other, 1) or b""  # the rest is within TLS, or before it
    other.shutdown()
    while data := read(other, 3000):
        assert len(data) <= 3000
        received += data
    assert received == message
    await one.aclose()
    await other.aclose()


async def test_an_error_keeps_no_view_of_the_target() -> None:
    one, other = await connected()
    one._below.write([b"not a record at all, at the very least"])
    target = bytearray(100)
    with memoryview(target) as view, pytest.raises(ssl.SSLError) as caught:
        other.read_into(view)
    target += b"it can be resized, since nothing views it"
    assert caught.value.__traceback__ is not None
    await one.aclose()
    await other.aclose()


@BOTH_WAYS
async def test_close_notify_ends_the_stream_although_tcp_stays_open(read: Read) -> None:
    # Right behind a message, in one read with it: there is nothing more that
    # the socket could become readable for.
    one, other = await connected()
    one.write([b"last words"])
    with contextlib.suppress(ssl.SSLWantReadError):
        one._tls.unwrap()
    one._send()
    assert read(other) == b"last words"
    with trio.fail_after(60):
        await other.wait_readable()
    assert read(other) == b""
    await one.aclose()
    await other.aclose()


@BOTH_WAYS
async def test_garbage_behind_a_message_does_not_destroy_it(read: Read) -> None:
    one, other = await connected()
    one.write([b"last words"])
    one._below.write([b"not a record at all, at the very least"])
    assert read(other) == b"last words"
    with trio.fail_after(60):
        await other.wait_readable()
    for _ in range(2):
        # The words of OpenSSL 3.0, those of 3.6.
        with pytest.raises(ssl.SSLError, match=r"(?i)wrong.version|record.layer"):
            read(other)
    await one.aclose()
    await other.aclose()


async def test_small_records_that_come_together_are_read_together() -> None:
    one, other = await connected()
    for count in (2, 500):
        for number in range(count):
            assert one.write([bytes([number % 256]) * 100]) == 100
        sent = b"".join(bytes([n % 256]) * 100 for n in range(count))
        received = other.read()
        # Where sockets are slower, they come in a few pieces.
        for _ in range(10):
            if received is None or len(received) < len(sent):
                await other.wait_readable()
                received = (received or b"") + (other.read() or b"")
        assert received == sent
        assert other.read() is None
    await one.aclose()
    await other.aclose()


@BOTH_WAYS
@pytest.mark.parametrize("step", [1, 4, 5, 6, 16_000, 16_406, 40_000])
async def test_records_are_read_however_they_are_cut(read: Read, step: int) -> None:
    class Cut(SocketTransport):
        def read(self, size: int = READ_SIZE) -> bytes | None:
            return super().read(min(size, step))

    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**20)
    one, other = await connected((SocketTransport(ours), Cut(theirs)))
    message = os.urandom(20) + os.urandom(2**16 if step > 6 else 1000)
    assert one.write([message[:3]]) == 3
    assert one.write([message[3:20], message[20:]]) == len(message) - 3
    received = b""
    while len(received) < len(message):
        data = read(other)
        assert data is None or data
        received += data or b""
        one.write(())  # what the socket had no room for
        if data is None:
            await other.wait_readable()
    assert received == message
    assert read(other) is None
    await one.aclose()
    await other.aclose()


async def test_write_goes_on_where_the_socket_was_full() -> None:
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    one, other = await connected((SocketTransport(ours), SocketTransport(theirs)))
    message = os.urandom(10**6)
    wrote, received = 0, b""
    while len(received) < len(message):
        wrote += one.write([message[wrote:]] if wrote < len(message) else ())
        received += other.read() or b""
    assert received == message
    assert one.unsent == 0
    await one.aclose()
    await other.aclose()


class CountedBIO:
    """Notes how much a BIO holds when something is written or read."""

    def __init__(self, bio: ssl.MemoryBIO, sizes: list[int]) -> None:
        self._bio = bio
        self._sizes = sizes

    @property
    def pending(self) -> int:
        return self._bio.pending

    def write(self, data: bytes) -> int:
        count = self._bio.write(data)
        self._sizes.append(self._bio.pending)
        return count

    def read(self) -> bytes:
        self._sizes.append(self._bio.pending)
        return self._bio.read()


async def test_no_bio_ever_holds_more_than_a_record() -> None:
    # What one has held it keeps: OpenSSL never makes it smaller.
    sizes: list[int] = []
    one, other = await connected()
    large, small = os.urandom(10**6), [os.urandom(100)] * 600
    for tls in (one, other):
        tls._incoming = CountedBIO(tls._incoming, sizes)  # type: ignore[assignment]
        tls._outgoing = CountedBIO(tls._outgoing, sizes)  # type: ignore[assignment]
    for buffers in ([large], [b"header", large], small, [*small, large]):
        taken = one.write(buffers)
        assert taken >= 60_000
        while taken:
            taken -= len(other.read() or b"")
            one.write(())
    assert 10_000 < max(sizes) < 14_000
    await one.aclose()
    await other.aclose()


# -- Other peers ------------------------------------------------------------------


@contextlib.contextmanager
def raw_client(
    keylog: Path | None = None,
) -> Iterator[tuple[TLSTransport, ssl.SSLSocket]]:
    """Make a server's transport and a client of ssl; for the handshake a thread."""
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**20)
    context = client_context(ssl.TLSVersion.TLSv1_3)
    if keylog is not None:
        context.keylog_filename = str(keylog)
    tls = context.wrap_socket(
        theirs, server_hostname="localhost", do_handshake_on_connect=False
    )
    yield (
        TLSTransport(SocketTransport(ours), shared_server_context(), server_side=True),
        tls,
    )
    tls.close()


@BOTH_WAYS
async def test_records_larger_than_ours(read: Read) -> None:
    with raw_client() as (transport, client):
        with in_thread(client.do_handshake):
            await transport.do_handshake()
        message = os.urandom(100_000)
        client.sendall(message)
        sizes: list[int] = []
        bio = CountedBIO(transport._incoming, sizes)
        transport._incoming = bio  # type: ignore[assignment]
        received = b""
        while len(received) < len(message):
            received += read(transport) or b""
        assert received == message
        assert max(sizes) < 14_000
        await transport.aclose()


@BOTH_WAYS
async def test_key_update_is_answered_by_reading(read: Read, tmp_path: Path) -> None:
    with raw_client(tmp_path / "keys") as (transport, client):
        with in_thread(client.do_handshake):
            await transport.do_handshake()
        peer = KeyUpdater(tmp_path / "keys")
        raw = socket.socket(fileno=socket.dup(client.fileno()))
        raw.sendall(peer.data(b"old") + peer.update() + peer.data(b"new"))
        assert read(transport) == b"oldnew"
        assert transport.unsent == 0
        assert transport.write([b"answered"]) == 8
        raw.sendall(peer.update())
        assert read(transport) is None
        assert transport.write([b", twice"]) == 7
        client.settimeout(60)
        assert recv_until(client, b"twice") == b"answered, twice"
        raw.close()
        await transport.aclose()


@BOTH_WAYS
async def test_a_peer_that_takes_no_answers_is_given_up(
    read: Read, tmp_path: Path
) -> None:
    # Each key update asks for one that takes as much memory.
    with raw_client(tmp_path / "keys") as (transport, client):
        with in_thread(client.do_handshake):
            await transport.do_handshake()
        peer = KeyUpdater(tmp_path / "keys")
        raw = socket.socket(fileno=socket.dup(client.fileno()))
        with pytest.raises(ConnectionError, match="answers"):
            for _ in range(2000):
                raw.sendall(b"".join(peer.update() for _ in range(100)))
                assert read(transport) is None
        assert transport.unsent < 2**18
        raw.close()
        await transport.aclose()


async def test_tls_below_writes_on_what_its_socket_had_no_room_for() -> None:
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    outer = await connected((SocketTransport(ours), SocketTransport(theirs)))
    one, other = await connected(outer)
    message = os.urandom(10**6)
    wrote, received = 0, b""
    with trio.fail_after(60):
        while len(received) < len(message):
            wrote += one.write([message[wrote:]] if wrote < len(message) else ())
            received += other.read() or b""
            await trio.lowlevel.checkpoint()
    assert received == message
    assert one.unsent == outer[0].unsent == 0
    await one.aclose()
    await other.aclose()
