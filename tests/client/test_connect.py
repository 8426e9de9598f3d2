"""connect(): where it connects to, what it refuses, how its block is left."""

from __future__ import annotations

import logging
import os
import socket
import ssl
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
import trustme

from tests import logs
from tests.handlers import echo
from tests.peers.in_memory import RawPeer
from tests.platforms import needs_unix_sockets
from trio_ws import (
    ClientConnection,
    ConnectionClosedError,
    ConnectionClosedOK,
    InvalidURI,
    ServerConnection,
    State,
    accept,
    connect,
    open_server,
    unix_connect,
    unix_serve,
)

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def server_context(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("good.example", "127.0.0.1").configure_cert(context)
    return context


@pytest.fixture(scope="module")
def client_context(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    ca.configure_trust(context)
    return context


# Over TCP and TLS


async def test_over_tcp() -> None:
    async with open_server(echo, 0, host="127.0.0.1") as server:
        async with connect(f"ws://127.0.0.1:{server.port}/chat?x=1") as ws:
            await ws.send("x")
            assert await ws.recv() == "x"
            assert isinstance(ws, ClientConnection)
            assert ws.request.path == "/chat?x=1"
            assert ws.request.headers["Host"] == f"127.0.0.1:{server.port}"
            assert "trio_ws/" in ws.request.headers["User-Agent"]
            assert ws.remote_address == ("127.0.0.1", server.port)
            assert ws.local_address[0] == "127.0.0.1"
            assert ws.logger.name == "trio_ws.client"
            (other,) = server.connections
            assert other.remote_address == ws.local_address
            addresses = ws.local_address, ws.remote_address
        # Closed is closed, and it still tells where it was.
        assert (ws.local_address, ws.remote_address) == addresses
        assert ws.state is State.CLOSED


async def test_host_and_port_say_where_to_connect_to() -> None:
    async with open_server(echo, 0, host="127.0.0.1") as server:
        async with connect(
            "ws://elsewhere.example:81/", host="127.0.0.1", port=server.port
        ) as ws:
            assert ws.request.headers["Host"] == "elsewhere.example:81"
            assert ws.remote_address == ("127.0.0.1", server.port)


async def test_local_address() -> None:
    async with open_server(echo, 0, host="127.0.0.1") as server:
        uri = f"ws://127.0.0.1:{server.port}/"
        async with connect(uri, local_address="127.0.0.2") as ws:
            assert ws.local_address[0] == "127.0.0.2"


@pytest.mark.parametrize("given", [{}, {"server_hostname": "good.example"}])
async def test_over_tls(
    server_context: ssl.SSLContext,
    client_context: ssl.SSLContext,
    given: dict[str, Any],
) -> None:
    async with open_server(echo, 0, host="127.0.0.1", ssl=server_context) as server:
        async with connect(
            f"wss://127.0.0.1:{server.port}/", ssl=client_context, **given
        ) as ws:
            await ws.send("x" * 100_000)
            assert await ws.recv() == "x" * 100_000
        assert ws.close_code == 1000


async def test_the_uri_is_what_tls_checks(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    async with open_server(echo, 0, host="127.0.0.1", ssl=server_context) as server:
        where: Any = {"host": "127.0.0.1", "port": server.port, "ssl": client_context}
        async with connect("wss://good.example/", **where) as ws:
            assert ws.request.headers["Host"] == "good.example"
        with pytest.raises(ssl.SSLCertVerificationError, match=r"bad\.example"):
            async with connect("wss://bad.example/", **where):
                raise AssertionError("entered")
        with pytest.raises(ssl.SSLCertVerificationError, match=r"bad\.example"):
            async with connect(
                "wss://good.example/", server_hostname="bad.example", **where
            ):
                raise AssertionError("entered")


async def test_a_context_is_made_where_none_is_given(
    server_context: ssl.SSLContext,
) -> None:
    # The roots of the system don't know this certificate.
    async with open_server(echo, 0, host="127.0.0.1", ssl=server_context) as server:
        with pytest.raises(ssl.SSLCertVerificationError):
            async with connect(f"wss://127.0.0.1:{server.port}/"):
                raise AssertionError("entered")


async def test_nobody_listens() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        host, port = sock.getsockname()
        with pytest.raises(ConnectionRefusedError) as caught:
            async with connect(f"ws://127.0.0.1:{port}/"):
                raise AssertionError("entered")
        assert caught.value.__notes__ == [f"connecting to {host}:{port}"]


async def test_cancelled_while_it_connects(nursery: trio.Nursery) -> None:
    async def enter(scope: trio.CancelScope) -> None:
        with scope:
            async with connect(f"ws://127.0.0.1:{listening.getsockname()[1]}/"):
                raise AssertionError("entered")
        done.set()

    done = trio.Event()
    with ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listening.listen(0)
        for _ in range(3):  # more than the backlog holds, so the next one waits
            filling = stack.enter_context(socket.socket())
            filling.setblocking(False)
            filling.connect_ex(listening.getsockname())
        before = sockets()
        scope = trio.CancelScope()
        nursery.start_soon(enter, scope)
        await trio.testing.wait_all_tasks_blocked()
        assert sockets() > before or not before
        scope.cancel()
        await done.wait()
        assert sockets() == before


@needs_unix_sockets
async def test_over_a_unix_socket(tmp_path: Path, nursery: trio.Nursery) -> None:
    path = tmp_path / "socket"
    server = await nursery.start(unix_serve, echo, path)
    async with unix_connect(path) as ws:
        await ws.send("x")
        assert await ws.recv() == "x"
        assert ws.request.path == "/"
        assert ws.request.headers["Host"] == "localhost"
    async with unix_connect(path, "ws://good.example/chat") as ws:
        assert ws.request.path == "/chat"
        assert ws.request.headers["Host"] == "good.example"
    await server.aclose()
    with pytest.raises(FileNotFoundError):
        async with unix_connect(path):
            raise AssertionError("entered")


# On a stream of the user's


async def test_on_a_socket_stream() -> None:
    async with open_server(echo, 0, host="127.0.0.1") as server:
        stream = await trio.open_tcp_stream("127.0.0.1", server.port)
        async with connect("ws://good.example/", stream=stream) as ws:
            await ws.send("x")
            assert await ws.recv() == "x"
            assert ws.remote_address == ("127.0.0.1", server.port)


@pytest.mark.parametrize("layer", ["ours", "theirs"])
async def test_tls_on_a_socket_stream(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext, layer: str
) -> None:
    async with open_server(echo, 0, host="127.0.0.1", ssl=server_context) as server:
        stream: Any = await trio.open_tcp_stream("127.0.0.1", server.port)
        if layer == "ours":
            manager = connect("wss://good.example/", stream=stream, ssl=client_context)
        else:
            stream = trio.SSLStream(
                stream,
                client_context,
                server_hostname="good.example",
                https_compatible=True,
            )
            manager = connect("ws://good.example/", stream=stream)
        async with manager as ws:
            await ws.send("x" * 100_000)
            assert await ws.recv() == "x" * 100_000
        assert ws.close_code == 1000


async def test_tls_on_memory_streams(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    theirs, ours = trio.testing.memory_stream_pair()

    async def serve() -> None:
        async with accept(theirs, ssl=server_context) as ws:
            await echo(ws)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        async with connect(
            "wss://good.example/", stream=ours, ssl=client_context
        ) as ws:
            await ws.send("x" * 100_000)
            assert await ws.recv() == "x" * 100_000
        assert ws.close_code == 1000


# Leaving


async def test_the_stream_is_closed_with_the_connection(nursery: trio.Nursery) -> None:
    peer = RawPeer(client=False)
    nursery.start_soon(peer.answer)
    with trio.CancelScope() as scope:
        async with connect("ws://testing/", stream=peer.theirs):
            scope.cancel()
    with pytest.raises(trio.ClosedResourceError):
        await peer.theirs.send_all(b"x")


async def test_the_same_object_connects_twice() -> None:
    async with open_server(echo, 0, host="127.0.0.1") as server:
        manager = connect(f"ws://127.0.0.1:{server.port}/")
        for _ in range(2):
            async with manager as ws:
                await ws.send("x")
                assert await ws.recv() == "x"


async def test_the_same_object_is_entered_again_in_its_block() -> None:
    async with open_server(echo, 0, host="127.0.0.1") as server:
        manager = connect(f"ws://127.0.0.1:{server.port}/")
        async with manager as outer:
            async with manager as inner:
                await inner.send("inner")
                assert await inner.recv() == "inner"
            assert inner.state is State.CLOSED
            await outer.send("outer")
            assert await outer.recv() == "outer"
        assert outer.state is State.CLOSED


async def test_the_same_object_is_entered_by_two_tasks() -> None:
    entered = [trio.Event(), trio.Event()]
    left = trio.Event()

    async def first() -> None:
        async with manager as ws:
            entered[0].set()
            await entered[1].wait()
        assert ws.state is State.CLOSED
        left.set()

    async with open_server(echo, 0, host="127.0.0.1") as server:
        manager = connect(f"ws://127.0.0.1:{server.port}/")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first)
            await entered[0].wait()
            async with manager as ws:
                entered[1].set()
                await left.wait()
                await ws.send("x")
                assert await ws.recv() == "x"


# What can't be


async def test_awaiting_and_iterating_tell_what_to_write() -> None:
    with pytest.raises(TypeError, match=r"async with connect\(\.\.\.\) as ws:"):
        await connect("ws://testing/")
    with pytest.raises(TypeError, match=r"async for attempt in reconnect\("):
        aiter(connect("ws://testing/"))


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "http://testing/",
        "testing",
        "ws:///path",
        "ws://testing/#fragment",
        "ws://testing:0/",
        "ws://testing:65536/",
        "ws://testing/a\r\nX: y",
        "ws://testing/a b",
        "ws://test\0ing/",
    ],
)
def test_wrong_uris(uri: str) -> None:
    with pytest.raises(InvalidURI) as caught:
        connect(uri)
    assert str(caught.value).isprintable()


CONTEXT = ssl.create_default_context()


@pytest.mark.parametrize(
    ("keywords", "error", "match"),
    [
        ({"ssl": True}, TypeError, r"ssl: expected an ssl\.SSLContext; got True"),
        ({"ssl": CONTEXT}, ValueError, "ssl: expected a wss:// URI"),
        (
            {"ssl": ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)},
            ValueError,
            "ssl: expected a client's context, as of .*; got a server's",
        ),
        ({"server_hostname": "x"}, ValueError, "server_hostname: expected a wss://"),
        ({"stream": "x"}, TypeError, r"stream: expected a trio\.abc\.Stream; got 'x'"),
        ({"host": "x"}, ValueError, "stream: expected no host"),
        ({"port": 1}, ValueError, "stream: expected no port"),
        ({"local_address": "x"}, ValueError, "stream: expected no local_address"),
        ({"stream": None, "port": "80"}, TypeError, "port: expected an int; got '80'"),
        ({"stream": None, "port": True}, TypeError, "port: expected an int; got True"),
        (
            {"stream": None, "port": "localhost"},
            TypeError,
            "port: expected an int; got 'localhost'; a host is a keyword: host='lo",
        ),
        ({"stream": None, "local_address": 1}, TypeError, "local_address: expected a"),
        (
            {"stream": None, "host": "localhost:80"},
            ValueError,
            r"^host: expected a host, without a port, which is a keyword: port=80; got",
        ),
        ({"stream": None, "host": "127.0.0.1:80"}, ValueError, "keyword: port=80; got"),
        ({"stream": None, "host": "[::1]:80"}, ValueError, "keyword: port=80; got"),
        ({"stream": None, "host": "http://x"}, ValueError, "without scheme, port and"),
        (
            {"server_hostname": "a:1"},
            ValueError,
            r"^server_hostname: .*without a port; g",
        ),
        ({"local_address": "127.0.0.1:1"}, ValueError, "without a port; got '127"),
        ({"create_connection": ServerConnection}, TypeError, "of ClientConnection, or"),
        ({"extensions": [5]}, TypeError, "of ClientExtensionFactory; got 5"),
        ({"additional_headers": {"Host": "x"}}, ValueError, "got host; it is that of"),
        ({"additional_headers": {"Upgrade": "x"}}, ValueError, "additional_headers: "),
        (
            {"additional_headers": {"Sec-WebSocket-Key": "x"}},
            ValueError,
            "additional_headers: expected no header that the handshake makes itself",
        ),
        ({"additional_headers": {"X": "a\r\nb"}}, ValueError, "additional_headers: "),
        ({"additional_headers": {"X": "a\0b"}}, ValueError, "additional_headers: "),
        ({"subprotocols": ["a\nb"]}, ValueError, "subprotocol: expected a token"),
        ({"subprotocols": "chat"}, TypeError, "subprotocols: expected a list of str"),
        ({"origin": "http://x\r\nY: z"}, ValueError, "expected no control characters"),
        ({"user_agent_header": "a\nb"}, ValueError, "expected no control characters"),
    ],
)
async def test_wrong_arguments(
    keywords: dict[str, Any], error: type[Exception], match: str
) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    with pytest.raises(error, match=match):
        connect("ws://testing/", **{"stream": ours} | keywords)
    # Nothing was sent, and the stream is as it was.
    await ours.send_all(b"untouched")
    assert await theirs.receive_some() == b"untouched"


# Its end


async def test_a_clock_of_0_seconds_lets_all_who_wait_be_told(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    peer = RawPeer(client=False, streams=trio.testing.lockstep_stream_pair())
    nursery.start_soon(peer.answer)
    told: list[object] = []

    async def sending(ws: ClientConnection, name: object) -> None:
        with suppress(ConnectionClosedError):
            while True:
                await ws.send(bytes(100_000))
        told.append(name)
        await trio.lowlevel.checkpoint()

    async with connect(
        "ws://testing/", stream=peer.theirs, loss_grace=0, compression=None
    ) as ws:
        for number in range(12):
            ws.nursery.start_soon(sending, ws, number)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(trio.aclose_forcefully, peer.stream)
        await sending(ws, "the body")
        told.append("and goes on")
    assert told[-1] == "and goes on"
    assert set(told) == {*range(12), "the body", "and goes on"}


# Others


async def test_a_logger_of_the_users(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "mine")
    async with open_server(echo, 0, host="127.0.0.1") as server:
        uri = f"ws://127.0.0.1:{server.port}/"
        async with connect(uri, logger=logging.getLogger("mine")) as ws:
            assert ws.logger.name == "mine"
    assert "> GET / HTTP/1.1" in logs.messages(caplog)
    assert "< HTTP/1.1 101" in logs.messages(caplog)


def sockets() -> int:
    """Count the sockets of this process, where the system tells."""
    count = 0
    with suppress(OSError):
        for fd in os.listdir("/proc/self/fd"):
            with suppress(OSError):
                count += os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")
    return count


async def test_nothing_is_left(client_context: ssl.SSLContext) -> None:
    before = sockets(), trio.lowlevel.current_statistics().tasks_living

    async def enter(uri: str, **keywords: Any) -> None:
        async with connect(uri, **keywords) as ws:
            await ws.send("x")
            await ws.recv()
            if keywords.get("subprotocols"):
                raise KeyError

    async with open_server(echo, 0, host="127.0.0.1") as server:
        uri = f"ws://127.0.0.1:{server.port}/"
        await enter(uri)
        with pytest.raises(KeyError):
            await enter(uri, subprotocols=["a"])
        with trio.CancelScope() as scope:
            async with connect(uri):
                scope.cancel()
                await trio.sleep_forever()
        with pytest.raises(OSError, match=r"SSL|ssl|record"):
            await enter(uri.replace("ws:", "wss:"), ssl=client_context)
        async with connect(uri) as ws:
            await ws.aclose()
            with pytest.raises(ConnectionClosedOK):
                await ws.recv()
    assert (sockets(), trio.lowlevel.current_statistics().tasks_living) == before


async def first_message(uri: str) -> str | bytes:
    # What the type checker must not want more of: a return behind the block.
    async with connect(uri) as ws:
        return await ws.recv()


async def test_returning_out_of_the_block() -> None:
    async def greet(ws: ServerConnection) -> None:
        await ws.send("Hello!")

    async with open_server(greet, 0, host="127.0.0.1") as server:
        assert await first_message(f"ws://127.0.0.1:{server.port}/") == "Hello!"
