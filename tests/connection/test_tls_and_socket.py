"""ssl_object and socket: what is below a connection, whatever that is."""

from __future__ import annotations

import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
import trustme

from tests.peers.certificates import contexts
from tests.platforms import needs_linux, needs_unix_sockets
from trio_ws import (
    ClientConnection,
    Connection,
    Request,
    ServerConnection,
    TLSInfo,
    accept,
    connect,
    open_server,
    unix_connect,
    unix_serve,
)
from trio_ws.testing import open_pair

Pair = tuple[ClientConnection, ServerConnection]


@asynccontextmanager
async def over_tcp(
    context: tuple[ssl.SSLContext | None, ssl.SSLContext | None] = (None, None),
    **options: Any,
) -> AsyncIterator[Pair]:
    """Yield both sides of a connection by connect() and open_server()."""
    met = trio.Event()
    seen: list[ServerConnection] = []

    async def handler(ws: ServerConnection) -> None:
        seen.append(ws)
        met.set()
        await ws.wait_closed()

    async with open_server(handler, 0, host="127.0.0.1", ssl=context[1]) as server:
        scheme = "ws" if context[1] is None else "wss"
        uri = f"{scheme}://localhost:{server.port}/"
        if context[0] is not None:
            options["ssl"] = context[0]
        async with connect(uri, host="127.0.0.1", **options) as ws:
            await met.wait()
            yield ws, seen[0]


def tls_of(ws: Connection) -> TLSInfo:
    assert ws.ssl_object is not None
    return ws.ssl_object


async def test_tcp() -> None:
    async with over_tcp() as pair:
        for ws in pair:
            assert ws.ssl_object is None
            assert ws.socket is not None
            assert ws.socket.getpeername() == ws.remote_address
            assert ws.socket.getsockname() == ws.local_address
            assert ws.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            ws.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
            assert not ws.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        await pair[0].send("still works")
        assert await pair[1].recv() == "still works"
        kept = pair[0].socket
    for ws in pair:
        assert ws.socket is None
    assert kept is not None
    assert kept.fileno() == -1
    with pytest.raises(OSError, match=r"descriptor|socket"):
        kept.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@needs_linux
async def test_tcp_info() -> None:
    async with over_tcp() as pair:
        for ws in pair:
            assert ws.socket is not None
            info = ws.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
            assert info[0] == 1  # TCP_ESTABLISHED


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_tls(version: ssl.TLSVersion) -> None:
    ours, theirs = contexts(version)
    names = {ssl.TLSVersion.TLSv1_2: "TLSv1.2", ssl.TLSVersion.TLSv1_3: "TLSv1.3"}
    async with over_tcp((ours, theirs)) as (client, server):
        before = []
        sides: list[tuple[Connection, ssl.SSLContext]]
        sides = [(client, ours), (server, theirs)]
        for ws, context in sides:
            tls = tls_of(ws)
            assert tls.version() == names[version]
            assert tls.context is context
            assert tls.server_side == (ws is server)
            assert tls.selected_alpn_protocol() is None
            assert tls.session_reused is False
            before.append((tls.cipher(), tls.getpeercert(binary_form=True)))
            assert ws.socket is not None
            assert ws.socket.getpeername() == ws.remote_address
        certificate = tls_of(client).getpeercert()
        assert certificate is not None
        assert certificate["subjectAltName"] == (("DNS", "localhost"),)
        assert tls_of(client).server_hostname == "localhost"
        assert tls_of(client).session is not None or version != ssl.TLSVersion.TLSv1_2
        assert tls_of(server).getpeercert() is None
        if version == ssl.TLSVersion.TLSv1_2:
            bindings = {tls_of(ws).get_channel_binding() for ws in (client, server)}
            assert len(bindings) == 1
            assert None not in bindings
    for (ws, _), facts in zip(sides, before, strict=True):
        tls = tls_of(ws)
        assert (tls.cipher(), tls.getpeercert(binary_form=True)) == facts
        assert tls.version() == names[version]
        assert ws.socket is None


async def test_after_a_reset() -> None:
    async with over_tcp(contexts()) as (client, server):
        linger = struct.pack("HH" if os.name == "nt" else "ii", 1, 0)
        assert client.socket is not None
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        with trio.CancelScope() as scope:
            async with client:
                scope.cancel()
                await trio.lowlevel.checkpoint()
        await server.wait_closed()
        assert server.socket is None
        assert tls_of(server).cipher() is not None


async def test_alpn_and_a_certificate_of_the_clients() -> None:
    authority = trustme.CA()
    ours = ssl.create_default_context()
    theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    for context, name in ((ours, "alice@example.com"), (theirs, "localhost")):
        authority.configure_trust(context)
        authority.issue_cert(name).configure_cert(context)
        context.set_alpn_protocols(["http/1.1"])
    theirs.verify_mode = ssl.CERT_REQUIRED
    seen: list[Any] = []

    def look(ws: ServerConnection, _: Request) -> None:
        assert ws.socket is not None
        seen.append(tls_of(ws).getpeercert())

    async def handler(ws: ServerConnection) -> None:
        await ws.wait_closed()

    async with open_server(
        handler, 0, host="127.0.0.1", ssl=theirs, process_request=look
    ) as server:
        uri = f"wss://localhost:{server.port}/"
        async with connect(uri, host="127.0.0.1", ssl=ours) as ws:
            assert tls_of(ws).selected_alpn_protocol() == "http/1.1"
    assert [one["subjectAltName"] for one in seen] == [
        (("email", "alice@example.com"),)
    ]


@needs_unix_sockets
@pytest.mark.parametrize("secure", [False, True])
async def test_unix_sockets(
    secure: bool, tmp_path: Path, nursery: trio.Nursery
) -> None:
    ours, theirs = contexts() if secure else (None, None)
    path = tmp_path / "socket"
    seen: list[ServerConnection] = []

    async def handler(ws: ServerConnection) -> None:
        seen.append(ws)
        await ws.send("met")
        await ws.wait_closed()

    async def serve(task_status: trio.TaskStatus[Any]) -> None:
        await unix_serve(handler, path, ssl=theirs, task_status=task_status)

    await nursery.start(serve)
    async with unix_connect(path, ssl=ours) as client:
        await client.recv()
        for ws in (client, seen[0]):
            assert (ws.ssl_object is None) == (not secure)
            assert ws.socket is not None
            assert ws.socket.family == socket.AF_UNIX
            if hasattr(socket, "SO_PEERCRED"):
                size = struct.calcsize("3i")
                raw = ws.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
                assert struct.unpack("3i", raw) == (
                    os.getpid(),
                    os.getuid(),
                    os.getgid(),
                )
    nursery.cancel_scope.cancel()


async def test_memory() -> None:
    async with open_pair() as pair:
        for ws in pair:
            assert ws.ssl_object is None
            assert ws.socket is None


# -- Streams of the user's -----------------------------------------------------

Streams = tuple[trio.abc.Stream, trio.abc.Stream]


async def tcp_streams() -> tuple[trio.SocketStream, trio.SocketStream]:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        name = listener.socket.getsockname()
        return await trio.open_tcp_stream(name[0], name[1]), await listener.accept()


def secured(pair: Streams) -> Streams:
    ours, theirs = contexts()
    return (
        trio.SSLStream(pair[0], ours, server_hostname="localhost"),
        trio.SSLStream(pair[1], theirs, server_side=True),
    )


def stapled(one: trio.abc.Stream) -> trio.abc.Stream:
    return trio.StapledStream(one, one)


class Deaf(trio.abc.SendStream):
    """Half a stream, of which nobody knows what is below."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


class Mute(trio.abc.ReceiveStream):
    """The other half."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self._stream.aclose()


Wrap = Callable[[trio.abc.Stream], trio.abc.Stream]
WRAPS: dict[str, tuple[Wrap, bool]] = {
    "bare": (lambda one: one, True),
    "stapled": (stapled, True),
    "stapled twice": (lambda one: stapled(stapled(one)), True),
    "received of": (lambda one: trio.StapledStream(Deaf(one), one), True),
    "sent to": (lambda one: trio.StapledStream(one, Mute(one)), True),
    "unknown": (lambda one: trio.StapledStream(Deaf(one), Mute(one)), False),
}


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "ssl_stream"])
@pytest.mark.parametrize("on_sockets", [False, True], ids=["memory", "sockets"])
async def test_streams(wrap: str, secure: bool, on_sockets: bool) -> None:
    pair: Streams = trio.testing.memory_stream_pair()
    if on_sockets:
        pair = await tcp_streams()
    if secure:
        pair = secured(pair)
    wrapped, known = WRAPS[wrap]
    ours, theirs = map(wrapped, pair)

    async def check(ws: Connection) -> None:
        assert (ws.ssl_object is not None) == (secure and known)
        assert (ws.socket is not None) == (on_sockets and known)
        if ws.ssl_object is not None:
            is_client = isinstance(ws, ClientConnection)
            assert (ws.ssl_object.getpeercert() is None) != is_client
        if ws.socket is not None:
            assert ws.socket.getsockname()[0] == "127.0.0.1"

    async def serve() -> None:
        async with accept(theirs) as ws:
            await check(ws)
            await ws.wait_closed()
        assert ws.socket is None

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        async with connect("ws://localhost/", stream=ours) as ws:
            await check(ws)
        assert ws.socket is None
        if ws.ssl_object is not None:
            assert ws.ssl_object.cipher() is not None


async def test_tls_in_tls() -> None:
    """It is the inner one: that of the WebSocket."""
    outer = secured(await tcp_streams())
    ours, theirs = contexts(ssl.TLSVersion.TLSv1_2)

    async def serve() -> None:
        async with accept(outer[1], ssl=theirs) as ws:
            assert tls_of(ws).version() == "TLSv1.2"
            await ws.wait_closed()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        async with connect("wss://localhost/", stream=outer[0], ssl=ours) as ws:
            assert tls_of(ws).version() == "TLSv1.2"
            assert ws.socket is not None
            assert isinstance(outer[0], trio.SSLStream)
            assert outer[0].version() == "TLSv1.3"
