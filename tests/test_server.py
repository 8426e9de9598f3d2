"""serve() and its kin: handlers, what is logged, how a server ends, what it bears."""

from __future__ import annotations

import errno
import functools
import gc
import logging
import os
import socket
import ssl
import stat
import subprocess
import sys
import textwrap
import weakref
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.lowlevel
import trio.testing
import trustme

from tests.in_memory import (
    REQUEST,
    TEXT,
    MemoryListener,
    RawPeer,
    close_frame,
    frame,
)
from trio_ws import (
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    InvalidStatus,
    Server,
    ServerConnection,
    State,
    accept,
    connect,
    open_server,
    serve,
    unix_connect,
    unix_serve,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from trio.testing import MockClock

    Handler = Callable[[ServerConnection], Awaitable[object]]


async def echo(ws: ServerConnection) -> None:
    async for message in ws:
        await ws.send(message)


async def wait(ws: ServerConnection) -> None:
    await ws.wait_closed()


async def stubborn(ws: ServerConnection) -> None:
    await trio.sleep_forever()


def in_memory(
    handler: Handler, **options: Any
) -> tuple[open_server, Callable[..., connect]]:
    """A server, and what connects to it, without a network."""
    listener = MemoryListener()

    def client(**keywords: Any) -> connect:
        return connect("ws://testing/", stream=listener.connect(), **keywords)

    return open_server(handler, listeners=[listener], **options), client


# Starting


async def test_serve_runs_in_a_nursery(nursery: trio.Nursery) -> None:
    server = await nursery.start(functools.partial(serve, echo, 0, host="127.0.0.1"))
    assert isinstance(server, Server)
    assert server.port > 0
    assert [sock.getsockname()[1] for sock in server.sockets] == [server.port]
    assert server.connections == set()
    async with connect(f"ws://127.0.0.1:{server.port}/") as ws:
        await ws.send("x")
        assert await ws.recv() == "x"
        assert [c.remote_address for c in server.connections] == [ws.local_address]
    await server.aclose()


async def test_the_port_alone_is_enough(nursery: trio.Nursery) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    server = await nursery.start(serve, echo, port)
    assert server.port == port
    async with connect(f"ws://127.0.0.1:{port}/") as ws:
        await ws.send("x")
        assert await ws.recv() == "x"
    await server.aclose()


async def test_serve_with_tls(nursery: trio.Nursery) -> None:
    ca = trustme.CA()
    contexts = [ssl.create_default_context(purpose) for purpose in ssl.Purpose]
    ca.issue_cert("127.0.0.1").configure_cert(contexts[1])
    ca.configure_trust(contexts[0])
    server = await nursery.start(
        functools.partial(serve, echo, 0, host="127.0.0.1", ssl=contexts[1])
    )
    async with connect(f"wss://127.0.0.1:{server.port}/", ssl=contexts[0]) as ws:
        await ws.send("x")
        assert await ws.recv() == "x"
    await server.aclose()


@pytest.mark.parametrize("kind", ["trio", "tls", "socket"])
async def test_listeners_of_the_users(kind: str) -> None:
    keywords: dict[str, Any] = {}
    listener: Any
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    uri = f"ws://127.0.0.1:{port}/"
    if kind == "tls":
        ca = trustme.CA()
        contexts = [ssl.create_default_context(purpose) for purpose in ssl.Purpose]
        ca.issue_cert("127.0.0.1").configure_cert(contexts[1])
        ca.configure_trust(contexts[0])
        listener = trio.SSLListener(listener, contexts[1], https_compatible=True)
        keywords["ssl"] = contexts[0]
        uri = uri.replace("ws:", "wss:")
    elif kind == "socket":
        listener = socket.socket(fileno=listener.socket.detach())
    async with open_server(echo, listeners=[listener]) as server:
        if kind == "tls":
            assert server.sockets == ()
            with pytest.raises(ValueError, match="port: expected a server with a TCP"):
                _ = server.port
        else:
            assert server.port == port
        async with connect(uri, **keywords) as ws:
            await ws.send("x" * 100_000)
            assert await ws.recv() == "x" * 100_000
    with pytest.raises(ConnectionRefusedError):
        with socket.create_connection(("127.0.0.1", port)):
            raise AssertionError("listens")


async def test_a_unix_socket_has_no_port(tmp_path: Any) -> None:
    sock = trio.socket.socket(socket.AF_UNIX)
    await sock.bind(str(tmp_path / "socket"))
    sock.listen()
    async with open_server(echo, listeners=[trio.SocketListener(sock)]) as server:
        with pytest.raises(ValueError, match="port: expected a server with a TCP"):
            _ = server.port


async def test_a_unix_server_removes_its_file_from_anywhere(
    tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    server = await nursery.start(unix_serve, echo, "socket")
    monkeypatch.chdir("/")
    await server.aclose()
    await trio.testing.wait_all_tasks_blocked()
    assert not os.listdir(tmp_path)


async def test_a_unix_server_removes_its_file(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    path = tmp_path / "socket"
    server = await nursery.start(
        functools.partial(unix_serve, echo, path, mode=0o600, backlog=5)
    )
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    async with unix_connect(path) as ws:
        await ws.send("x")
        assert await ws.recv() == "x"
    await server.aclose()
    await trio.testing.wait_all_tasks_blocked()
    assert not path.exists()


@pytest.mark.parametrize(
    ("arguments", "keywords", "error", "match"),
    [
        (("x", 0), {}, TypeError, "handler: expected an async function; got 'x'"),
        ((echo,), {}, ValueError, "port: expected a port, or listeners; got neither"),
        ((echo, 0), {"listeners": [MemoryListener()]}, ValueError, "no port with"),
        (
            (echo,),
            {"listeners": [MemoryListener()], "host": "x"},
            ValueError,
            "no host",
        ),
        (
            (echo,),
            {"listeners": [MemoryListener()], "backlog": 1},
            ValueError,
            "backlog",
        ),
        ((echo,), {"listeners": []}, ValueError, "listeners: expected at least one"),
        (
            (echo,),
            {"listeners": ["x"]},
            TypeError,
            "listeners: expected trio listeners",
        ),
        ((echo, 0), {"ssl": True}, TypeError, r"ssl: expected an ssl\.SSLContext"),
        ((echo, 0), {"max_size": -1}, ValueError, "max_size: expected at least 0"),
        ((echo, 0), {"subprotocols": ["a b"]}, ValueError, "subprotocol: expected a"),
        (
            (echo, 0),
            {"additional_headers": {"Upgrade": "x"}},
            ValueError,
            "additional_headers: expected no header",
        ),
        (
            (echo, 0),
            {"additional_headers": {"X": "a\r\nY: b"}},
            ValueError,
            "additional_headers: header X: expected no control",
        ),
        ((echo, 0), {"server_header": "a\nb"}, ValueError, "expected no control"),
        ((echo, 0), {"nonsense": 1}, TypeError, "nonsense"),
    ],
)
async def test_wrong_arguments(
    arguments: Any, keywords: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        await serve(*arguments, **keywords)
    with pytest.raises(error, match=match):
        async with open_server(*arguments, **keywords):
            raise AssertionError("entered")


async def test_a_port_in_use() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        with pytest.raises(OSError, match=r"[Ii]n use"):
            await serve(echo, sock.getsockname()[1], host="127.0.0.1")


async def test_a_connection_class_of_the_users() -> None:
    class Mine(ServerConnection):
        def __init__(self, *arguments: Any, extra_argument: int) -> None:
            super().__init__(*arguments)
            self.extra = extra_argument

    async def handler(ws: ServerConnection) -> None:
        assert isinstance(ws, Mine)
        await ws.send(str(ws.extra))

    server, client = in_memory(
        handler, create_connection=functools.partial(Mine, extra_argument=42)
    )
    async with server:
        async with client() as ws:
            assert await ws.recv() == "42"


# accept()


async def test_accept_on_a_stream() -> None:
    peer = RawPeer(client=True)
    await peer.ask(frame(TEXT, b"x", masked=True))
    async with accept(
        peer.theirs, subprotocols=None, additional_headers={"X-A": "1"}
    ) as ws:
        assert await ws.recv() == "x"
        assert ws.request.path == "/chat"
        assert b"X-A: 1" in await peer.skip_response()
        await peer.close()


async def test_accept_on_a_socket() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")

    async def client() -> None:
        port = listeners[0].socket.getsockname()[1]
        async with connect(f"ws://127.0.0.1:{port}/") as ws:
            assert await ws.recv() == "x"

    async with trio.open_nursery() as nursery:
        nursery.start_soon(client)
        stream = await listeners[0].accept()
        async with accept(stream) as ws:
            assert ws.local_address[0] == "127.0.0.1"
            await ws.send("x")
    await listeners[0].aclose()


@pytest.mark.parametrize(
    ("arguments", "keywords", "error", "match"),
    [
        (("x",), {}, TypeError, r"stream: expected a trio\.abc\.Stream; got 'x'"),
        ((None,), {"ssl": 1}, TypeError, r"ssl: expected an ssl\.SSLContext; got 1"),
        ((None,), {"open_timeout": 0}, ValueError, "open_timeout: expected more"),
    ],
)
def test_accept_with_wrong_arguments(
    arguments: Any, keywords: dict[str, Any], error: type[Exception], match: str
) -> None:
    stream = trio.testing.memory_stream_pair()[0]
    with pytest.raises(error, match=match):
        accept(*(argument or stream for argument in arguments), **keywords)


@pytest.mark.parametrize("timeout", [3, None])
async def test_accept_waits_for_the_request_as_long_as_it_may(
    autojump_clock: MockClock, timeout: float | None
) -> None:
    peer = RawPeer(client=True)
    with trio.move_on_after(100) as scope:
        with pytest.raises(TimeoutError, match=r"not open after 3 s \(open_timeout\)"):
            async with accept(peer.theirs, open_timeout=timeout):
                raise AssertionError("entered")
    assert trio.current_time() == (timeout or 100)
    assert scope.cancelled_caught == (timeout is None)
    with pytest.raises(trio.ClosedResourceError):
        await peer.theirs.send_all(b"x")


# Handlers, and what is logged


def logged(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(record.levelname, record.getMessage()) for record in caplog.records]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "trio_ws.server")
    return caplog


async def test_a_handler_that_returns_closes_the_connection(
    log: pytest.LogCaptureFixture,
) -> None:
    async def handler(ws: ServerConnection) -> None:
        await ws.send("x")

    server, client = in_memory(handler)
    async with server, client() as ws:
        assert [message async for message in ws] == ["x"]
        assert ws.close_code == 1000
    assert logged(log) == []


@pytest.mark.parametrize(
    "error",
    [
        ValueError("mine"),
        ExceptionGroup("several", [ValueError("mine"), KeyError()]),
        # Of another connection, say one to a server behind this one.
        ConnectionClosedOK(None, None),
        ConnectionClosedError(None, None),
        TimeoutError("mine"),
    ],
)
async def test_what_a_handler_raises_is_logged_and_harms_no_other(
    log: pytest.LogCaptureFixture, error: Exception
) -> None:
    async def handler(ws: ServerConnection) -> None:
        async for message in ws:
            if message == "fail":
                raise error
            await ws.send(message)

    server, client = in_memory(handler)
    async with server, client() as good, client() as bad:
        await bad.send("fail")
        with pytest.raises(ConnectionClosedError, match="received 1011"):
            await bad.recv()
        await good.send("x")
        assert await good.recv() == "x"
        await trio.testing.wait_all_tasks_blocked()
        assert logged(log) == [("ERROR", "connection handler failed")]
        info = log.records[0].exc_info
        assert info is not None
        assert info[1] is error
        assert "in handler" in log.text


async def test_a_handler_may_be_no_coroutine_function(
    log: pytest.LogCaptureFixture,
) -> None:
    handler: Any = lambda ws: None  # noqa: E731
    server, client = in_memory(handler)
    async with server, client() as ws:
        with pytest.raises(ConnectionClosedError, match="received 1011"):
            await ws.recv()
    assert logged(log) == [("ERROR", "connection handler failed")]


async def test_a_loss_that_a_handler_lets_out_is_its_failure(
    log: pytest.LogCaptureFixture,
) -> None:
    peer = RawPeer(client=True)
    listener = MemoryListener()
    async with open_server(echo, listeners=[listener]):
        peer.stream = listener.connect()
        await peer.ask()
        await peer.skip_response()
        await peer.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
    assert logged(log) == [("ERROR", "connection handler failed")]
    assert "ConnectionClosedError: no close frame received or sent" in log.text
    assert "in echo" in log.text
    assert "EOFError" in log.text


async def _lose(handler: Handler) -> None:
    """Run a handler with a client that breaks off at once."""
    listener = MemoryListener()
    async with open_server(handler, listeners=[listener], loss_grace=0):
        peer = RawPeer(client=True)
        peer.stream = listener.connect()
        await peer.ask()
        await peer.skip_response()
        await peer.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()


async def test_a_loss_that_a_handler_catches_is_not_logged(
    log: pytest.LogCaptureFixture,
) -> None:
    async def handler(ws: ServerConnection) -> None:
        with pytest.raises(ConnectionClosed):
            await ws.recv()

    await _lose(handler)
    assert logged(log) == []


async def test_a_loss_of_which_no_handler_was_told_is_one_line(
    log: pytest.LogCaptureFixture,
) -> None:
    await _lose(stubborn)
    assert logged(log) == [("INFO", "connection lost: no close frame received or sent")]


@pytest.mark.parametrize("grouped", [False, True])
async def test_a_close_in_good_order_is_not_logged(
    log: pytest.LogCaptureFixture, grouped: bool
) -> None:
    async def handler(ws: ServerConnection) -> None:
        if grouped:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ws.recv)
        else:
            await ws.recv()

    server, client = in_memory(handler)
    async with server, client():
        pass
    assert logged(log) == []


async def test_a_group_in_which_a_task_was_cancelled(
    autojump_clock: MockClock, log: pytest.LogCaptureFixture
) -> None:
    # Cancelled by Server.aclose(), a handler may raise a group of which
    # Cancelled is only a part. What remains of it is its own failure.
    async def fails(ws: ServerConnection) -> None:
        async def cleanup() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise KeyError("mine")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(cleanup)

    manager, client = in_memory(fails)
    async with manager as server, client() as ws:
        await server.aclose(timeout=3)
        with pytest.raises(ConnectionClosedOK):
            await ws.recv()
    assert logged(log) == [("ERROR", "connection handler failed")]
    assert "KeyError: 'mine'" in log.text


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
async def test_what_ends_the_process_ends_the_server(
    error: type[BaseException],
) -> None:
    async def handler(ws: ServerConnection) -> None:
        raise error

    async def run() -> None:
        server, client = in_memory(handler)
        async with server, client() as ws:
            await ws.wait_closed()
            await trio.sleep_forever()

    with pytest.raises(error):
        await run()


async def test_a_logger_of_the_users(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with open_server(
        stubborn, 0, host="127.0.0.1", logger=logging.getLogger("mine")
    ) as server:
        assert server.logger.name == "mine"
        await trio.testing.wait_all_tasks_blocked()
    assert [(record.name, record.getMessage()) for record in caplog.records] == [
        ("mine", f"listening on ('127.0.0.1', {_port_of(caplog)})")
    ]


def _port_of(caplog: pytest.LogCaptureFixture) -> str:
    return caplog.messages[0].rpartition(" ")[2].rstrip(")")


# Requests that are none


async def converse(server: Server, data: bytes) -> bytes:
    """Send bytes over TCP; return all that comes back."""
    async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
        if data:
            await stream.send_all(data)
        received = b""
        async for chunk in stream:
            received += chunk
        return received


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n", b"400 Bad Request"),
        (b"garbage\r\n\r\n", b"400 Bad Request"),
        (b"\r\n\r\n\r\n", b"400 Bad Request"),
        (REQUEST.replace(b"HTTP/1.1", b"HTTP/1.0"), b"505 "),
        (REQUEST.replace(b"GET", b"POST"), b"405 "),
        (REQUEST.replace(b"Upgrade: websocket", b"Upgrade: h2c"), b"426 "),
        (REQUEST.replace(b"Version: 13", b"Version: 8"), b"426 "),
        (REQUEST.replace(b"GET /chat", b"GET /" + b"x" * 9000), b"414 "),
        (REQUEST.replace(b"\r\n\r\n", b"\r\nX: " + b"x" * 9000 + b"\r\n\r\n"), b"431 "),
        (REQUEST.replace(b"Host", b"X-\x1b[31m"), b"400 Bad Request"),
    ],
)
async def test_requests_that_are_none_get_their_answer(
    log: pytest.LogCaptureFixture, request_: bytes, status: bytes
) -> None:
    async with open_server(echo, 0, host="127.0.0.1") as server:
        answer = await converse(server, request_)
        assert answer.startswith(b"HTTP/1.1 " + status), answer
        assert b"Connection: close" in answer
        async with connect(f"ws://127.0.0.1:{server.port}/") as ws:
            await ws.send("x")
            assert await ws.recv() == "x"
    failures = [line for line in logged(log) if "listening" not in line[1]]
    assert len(failures) == 1
    assert failures[0][0] == "INFO"
    assert failures[0][1].startswith("opening handshake failed: ")
    assert failures[0][1].isprintable()


@pytest.mark.parametrize(
    "request_",
    [
        REQUEST.replace(b"Version: 13", b"Version: \x9b2J"),
        REQUEST.replace(b"Upgrade: websocket", b"Upgrade: \x9b\xff"),
        REQUEST.replace(b"Host: server", b"Host: \x9b\x85"),
        REQUEST.replace(b"Key: ", b"Key: \x85\x9b"),
        REQUEST.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Protocol: \x9b\r\n\r\n"),
        REQUEST.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: \x9b\r\n\r\n"),
        REQUEST.replace(b"\r\n\r\n", b"\r\nContent-Length: \x9b\r\n\r\n"),
        REQUEST.replace(b"/chat", b"/\x9b"),
        REQUEST.replace(b"GET", b"\x9bGET"),
        REQUEST.replace(b"HTTP/1.1", b"HTTP/\x9b.1"),
        REQUEST.replace(b"Upgrade: w", b"Up\x9bgrade: w"),
        b"\x1b]0;title\x07\r\n\r\n",
    ],
)
async def test_nothing_of_a_request_reaches_a_log_unescaped(
    caplog: pytest.LogCaptureFixture, request_: bytes
) -> None:
    caplog.set_level(logging.DEBUG, "trio_ws.server")
    listener = MemoryListener()
    async with open_server(echo, listeners=[listener]):
        stream = listener.connect()
        await stream.send_all(request_)
        answer = bytes(await stream.receive_some())
        assert answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 5"))
        assert b"\x9b" not in answer
        assert b"\x1b" not in answer
        await stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
    assert caplog.messages
    for line in caplog.messages:
        assert line.isprintable(), line


@pytest.mark.parametrize("said", [b"", REQUEST[:50], REQUEST[:-1]])
async def test_a_client_that_says_too_little_is_cut(
    autojump_clock: MockClock, log: pytest.LogCaptureFixture, said: bytes
) -> None:
    listener = MemoryListener()
    async with open_server(echo, listeners=[listener], open_timeout=5):
        stream = listener.connect()
        await stream.send_all(said)
        assert await stream.receive_some() == b""
        assert trio.current_time() == 5
    assert logged(log) == [
        (
            "INFO",
            "opening handshake failed: OpenTimeoutError: "
            "connection not open after 5 s (open_timeout)",
        )
    ]


async def test_without_an_open_timeout_it_is_not(autojump_clock: MockClock) -> None:
    listener = MemoryListener()
    async with open_server(echo, listeners=[listener], open_timeout=None):
        peer = RawPeer(client=True)
        peer.stream = listener.connect()
        await trio.sleep(10_000)
        await peer.ask(frame(TEXT, b"x", masked=True))
        await peer.skip_response()
        assert await peer.read() == (0x81, b"x")
        await peer.close()


async def test_a_client_that_goes_before_it_has_asked(
    log: pytest.LogCaptureFixture,
) -> None:
    listener = MemoryListener()
    async with open_server(echo, listeners=[listener]):
        await listener.connect().aclose()
        await trio.testing.wait_all_tasks_blocked()
    ((level, message),) = logged(log)
    assert level == "INFO"
    assert message.startswith("opening handshake failed: InvalidMessage: ")


async def test_a_client_that_goes_before_it_is_answered(
    log: pytest.LogCaptureFixture,
) -> None:
    listener = MemoryListener()
    async with open_server(echo, listeners=[listener]):
        stream = listener.connect()
        await stream.send_all(REQUEST)
        await stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
    ((level, message),) = logged(log)
    assert level == "INFO"
    assert message.startswith("opening handshake failed: ConnectionError: ")


async def test_a_connection_that_cannot_be_made_is_logged(
    log: pytest.LogCaptureFixture,
) -> None:
    def create(*_: object) -> ServerConnection:
        raise ValueError("mine")

    manager, client = in_memory(echo, create_connection=create)
    async with manager:
        with pytest.raises(Exception) as caught:
            async with client():
                raise AssertionError("entered")
        assert not isinstance(caught.value, AssertionError)
    assert ("ERROR", "opening handshake failed") in logged(log)
    assert "ValueError: mine" in log.text


# Closing


async def test_closing(autojump_clock: MockClock) -> None:
    listener = MemoryListener()
    async with trio.open_nursery() as nursery:
        server = await nursery.start(
            functools.partial(serve, wait, listeners=[listener])
        )
        clients = [
            connect("ws://testing/", stream=listener.connect()) for _ in range(3)
        ]
        async with clients[0] as a, clients[1] as b, clients[2] as c:
            assert len(server.connections) == 3
            await server.aclose(reason="see you")
            assert listener.closed
            assert server.connections == set()
            for ws in (a, b, c):
                assert [message async for message in ws] == []
                assert (ws.close_code, ws.close_reason) == (1001, "see you")
        # serve() has returned, or the nursery would wait.
    assert trio.current_time() == 0


async def test_a_handshake_under_way_gets_503(autojump_clock: MockClock) -> None:
    listener = MemoryListener()
    async with open_server(wait, listeners=[listener]) as server:
        silent, slow = listener.connect(), listener.connect()
        await slow.send_all(REQUEST[:50])
        await trio.testing.wait_all_tasks_blocked()
        late = listener.connect()  # accepted in the turn in which all closes
        await trio.lowlevel.checkpoint()
        await server.aclose()
        for stream in (silent, slow):
            answer = bytes(await stream.receive_some())
            assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
            assert b"Connection: close\r\n" in answer
        await late.aclose()
    assert trio.current_time() < 5


async def test_a_handshake_gets_503_though_connections_are_left_open(
    autojump_clock: MockClock,
) -> None:
    listener = MemoryListener()
    async with open_server(wait, listeners=[listener]) as server:
        silent = listener.connect()
        await trio.testing.wait_all_tasks_blocked()
        await server.aclose(close_connections=False)
        answer = bytes(await silent.receive_some())
        assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert trio.current_time() < 5


async def test_a_client_is_told_503() -> None:
    async with open_server(wait, 0, host="127.0.0.1") as server:
        stream = await trio.open_tcp_stream("127.0.0.1", server.port)
        await trio.testing.wait_all_tasks_blocked(0.01)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.aclose)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(InvalidStatus, match="HTTP 503"):
                async with connect("ws://testing/", stream=stream):
                    raise AssertionError("entered")


async def test_a_connection_that_is_accepted_as_the_server_closes(
    autojump_clock: MockClock,
) -> None:
    class Late(MemoryListener):
        async def accept(self) -> trio.abc.Stream:
            stream = await super().accept()
            nursery.start_soon(server.aclose)
            with trio.CancelScope(shield=True):
                await trio.testing.wait_all_tasks_blocked()
            return stream

    listener = Late()
    async with trio.open_nursery() as nursery:
        server = await nursery.start(
            functools.partial(serve, wait, listeners=[listener])
        )
        # Nobody waits for its request, which never comes.
        stream = listener.connect()
        assert bytes(await stream.receive_some()).startswith(b"HTTP/1.1 503")
    assert trio.current_time() == 0


async def test_a_connection_that_opens_as_the_server_closes() -> None:
    # Its response is on the way when aclose() looks for connections to close.
    entered = False

    async def handler(ws: ServerConnection) -> None:
        nonlocal entered
        entered = True

    listener = MemoryListener()
    ours, theirs = trio.testing.lockstep_stream_pair()
    async with open_server(handler, listeners=[listener]) as server:
        listener.add(theirs)
        await ours.send_all(REQUEST)
        await trio.testing.wait_all_tasks_blocked()  # it waits to be read
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.aclose)
            await trio.testing.wait_all_tasks_blocked()
            peer = RawPeer(client=True, streams=(theirs, ours))
            assert (await peer.skip_response()).startswith(b"HTTP/1.1 101 ")
            assert await peer.read() == close_frame(1001)
            await peer.close(1001)
    assert not entered


async def test_sessions_that_begin_as_the_server_closes(
    autojump_clock: MockClock,
) -> None:
    # Accepted, but no task of theirs has run yet.
    class Sudden(MemoryListener):
        async def accept(self) -> trio.abc.Stream:
            stream = await super().accept()
            closing.start_soon(server.aclose)
            return stream

    listener = Sudden()
    async with trio.open_nursery() as closing, trio.open_nursery() as handlers:
        server = await closing.start(
            functools.partial(
                serve, wait, listeners=[listener], handler_nursery=handlers
            )
        )
        stream = listener.connect()
        assert bytes(await stream.receive_some()).startswith(b"HTTP/1.1 503")
        assert trio.current_time() == 0


@pytest.mark.parametrize("timeout", [0, 3, 10])
async def test_handlers_get_time_to_end(
    autojump_clock: MockClock, timeout: float
) -> None:
    ended: list[float] = []

    async def handler(ws: ServerConnection) -> None:
        try:
            await ws.wait_closed()
            await trio.sleep(5)
        finally:
            ended.append(trio.current_time())

    manager, client = in_memory(handler)
    async with manager as server, client():
        await trio.testing.wait_all_tasks_blocked()
        await server.aclose(timeout=timeout)
        assert trio.current_time() == min(5, timeout)
        assert ended == [min(5, timeout)]


async def test_handlers_get_all_the_time_they_want(autojump_clock: MockClock) -> None:
    async def handler(ws: ServerConnection) -> None:
        await ws.wait_closed()
        await trio.sleep(1000)

    manager, client = in_memory(handler)
    async with manager as server, client():
        await server.aclose(timeout=None)
        assert trio.current_time() == 1000


async def test_connections_may_be_left_open(autojump_clock: MockClock) -> None:
    manager, client = in_memory(echo)
    async with manager as server, client() as ws, trio.open_nursery() as nursery:
        nursery.start_soon(functools.partial(server.aclose, False, timeout=8))
        await trio.sleep(5)
        await ws.send("still there")
        assert await ws.recv() == "still there"
        await trio.sleep(2.9)
        assert ws.state is State.OPEN
        with pytest.raises(ConnectionClosedOK, match="received 1001"):
            await ws.recv()
        assert trio.current_time() == 8


async def test_close_frames_are_spread(autojump_clock: MockClock) -> None:
    closed: list[float] = []

    async def handler(ws: ServerConnection) -> None:
        await ws.wait_closed()
        closed.append(trio.current_time())

    manager, client = in_memory(handler)
    async with manager as server:
        async with (
            client(),
            client(),
            client(),
            client(),
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(functools.partial(server.aclose, spread=8))
            await trio.sleep(100)
    assert closed == [0, 2, 4, 6]


@pytest.mark.parametrize(
    ("keywords", "error", "match"),
    [
        ({"code": 1006}, ValueError, "close code: expected"),
        ({"reason": "x" * 124}, ValueError, "close reason: expected at most"),
        ({"reason": "a\r\nb"}, ValueError, "close reason: expected no CR"),
        ({"timeout": -1}, ValueError, "timeout: expected at least 0"),
        ({"timeout": "1"}, TypeError, "timeout: expected a number of seconds"),
        ({"spread": -1}, ValueError, "spread: expected at least 0"),
        ({"spread": "1"}, TypeError, "spread: expected a number of seconds"),
    ],
)
async def test_closing_with_wrong_arguments(
    keywords: dict[str, Any], error: type[Exception], match: str
) -> None:
    manager, client = in_memory(echo)
    async with manager as server, client() as ws:
        with pytest.raises(error, match=match):
            await server.aclose(**keywords)
        # As if nothing had been asked.
        async with client() as other:
            for connection in (ws, other):
                await connection.send("x")
                assert await connection.recv() == "x"


async def test_closing_twice_and_at_once(autojump_clock: MockClock) -> None:
    manager, client = in_memory(stubborn)
    async with manager as server, client():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(functools.partial(server.aclose, timeout=5))
            nursery.start_soon(functools.partial(server.aclose, timeout=3))
        # The shorter time is the one that holds.
        assert trio.current_time() == 3
        await server.aclose()
        assert trio.current_time() == 3


async def test_a_handler_closes_its_server(autojump_clock: MockClock) -> None:
    ended = False

    async def handler(ws: ServerConnection) -> None:
        nonlocal ended
        try:
            await server.aclose(timeout=4)
        finally:
            ended = True

    listener = MemoryListener()
    async with trio.open_nursery() as nursery:
        server = await nursery.start(
            functools.partial(serve, handler, listeners=[listener])
        )
        async with connect("ws://testing/", stream=listener.connect()) as ws:
            with pytest.raises(ConnectionClosedOK, match="received 1001"):
                await ws.recv()
    assert ended
    assert trio.current_time() == 4


async def test_a_cancelled_closing(autojump_clock: MockClock) -> None:
    listener = MemoryListener()
    async with trio.open_nursery() as nursery:
        server = await nursery.start(
            functools.partial(serve, stubborn, listeners=[listener])
        )
        async with connect("ws://testing/", stream=listener.connect()) as ws:
            with trio.move_on_after(2) as scope:
                await server.aclose(False, timeout=None)
            assert scope.cancelled_caught
            assert listener.closed
            with pytest.raises(ConnectionClosedOK, match="received 1001"):
                await ws.recv()
    assert trio.current_time() == 2


async def test_a_cancelled_server_says_goodbye(autojump_clock: MockClock) -> None:
    listener = MemoryListener()
    async with trio.open_nursery() as outer:
        async with trio.open_nursery() as nursery:
            await nursery.start(
                functools.partial(serve, stubborn, listeners=[listener])
            )
            clients = [RawPeer(client=True) for _ in range(3)]
            for peer in clients:
                peer.stream = listener.connect()
                await peer.ask()
                await peer.skip_response()
            asking = listener.connect()
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        # Without waiting for any of them.
        assert trio.current_time() == 0
        assert listener.closed
        for peer in clients:
            assert await peer.read() == close_frame(1001)
            assert await peer.read() is None
        assert await asking.receive_some() == b""
        outer.cancel_scope.cancel()


async def test_leaving_the_block_closes(autojump_clock: MockClock) -> None:
    manager, client = in_memory(wait)
    async with trio.open_nursery() as nursery:
        ready = trio.Event()

        async def visit() -> None:
            async with client() as ws:
                ready.set()
                with pytest.raises(ConnectionClosedOK, match="received 1001"):
                    await ws.recv()

        async with manager as server:
            nursery.start_soon(visit)
            await ready.wait()
    assert server.connections == set()
    assert trio.current_time() == 0


async def test_leaving_the_block_by_an_exception_cancels(
    autojump_clock: MockClock,
) -> None:
    cancelled = False

    async def handler(ws: ServerConnection) -> None:
        nonlocal cancelled
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            cancelled = True
            raise

    error = KeyError("mine")
    listener = MemoryListener()
    peer = RawPeer(client=True)

    async def run() -> None:
        async with open_server(handler, listeners=[listener]):
            peer.stream = listener.connect()
            await peer.ask()
            await peer.skip_response()
            raise error

    with pytest.raises(KeyError) as caught:
        await run()
    assert caught.value is error
    assert error.__context__ is None
    assert cancelled
    assert await peer.read() == close_frame(1001)
    assert trio.current_time() == 0


async def test_a_block_that_is_cancelled(autojump_clock: MockClock) -> None:
    listener = MemoryListener()
    with trio.move_on_after(3) as scope:
        async with open_server(stubborn, listeners=[listener]):
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert listener.closed
    # Also while it is being left.
    listener = MemoryListener()
    peer = RawPeer(client=True)
    with trio.move_on_after(3) as scope:
        async with open_server(stubborn, listeners=[listener]):
            peer.stream = listener.connect()
            await peer.ask()
            await peer.skip_response()
    assert scope.cancelled_caught
    assert await peer.read() == close_frame(1001)


async def test_a_server_that_was_closed_within_its_block() -> None:
    manager, _ = in_memory(wait)
    async with manager as server:
        await server.aclose()


async def test_handlers_in_a_nursery_of_the_users(autojump_clock: MockClock) -> None:
    listener = MemoryListener()
    async with trio.open_nursery() as handlers, trio.open_nursery() as nursery:
        server = await nursery.start(
            functools.partial(
                serve, wait, listeners=[listener], handler_nursery=handlers
            )
        )
        async with connect("ws://testing/", stream=listener.connect()) as ws:
            assert len(handlers.child_tasks) == 1
            await server.aclose()
            assert handlers.child_tasks == set()
            with pytest.raises(ConnectionClosedOK, match="received 1001"):
                await ws.recv()


async def fails_when_cancelled(*_: object) -> None:
    async def fail() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("cleanup failed")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail)
        nursery.start_soon(trio.sleep_forever)


@pytest.mark.parametrize("hook", [False, True])
async def test_errors_of_a_handler_that_is_cancelled(
    autojump_clock: MockClock, log: pytest.LogCaptureFixture, hook: bool
) -> None:
    listener = MemoryListener()
    options: Any = {"process_request": fails_when_cancelled} if hook else {}
    with trio.move_on_after(1) as scope:
        async with open_server(fails_when_cancelled, listeners=[listener], **options):
            async with connect("ws://testing/", stream=listener.connect()):
                await trio.sleep_forever()
    assert scope.cancelled_caught
    [record] = [one for one in log.records if one.levelno == logging.ERROR]
    what = "opening handshake failed" if hook else "connection handler failed"
    assert record.getMessage() == what
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ExceptionGroup)
    assert repr(record.exc_info[1].exceptions) == "(ValueError('cleanup failed'),)"


async def test_a_close_in_good_order_as_a_handler_is_cancelled(
    autojump_clock: MockClock, log: pytest.LogCaptureFixture
) -> None:
    async def handler(ws: ServerConnection) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await ws.aclose()
                    await ws.send("too late")

    listener = MemoryListener()
    with trio.move_on_after(1):
        async with open_server(handler, listeners=[listener]):
            async with connect("ws://testing/", stream=listener.connect()):
                await trio.sleep_forever()
    assert [one for one in log.records if one.levelno == logging.ERROR] == []


async def test_closing_while_a_connection_is_accepted(
    autojump_clock: MockClock,
) -> None:
    for _ in range(20):  # the order of tasks within a turn is left to chance
        listener = MemoryListener()
        async with open_server(wait, listeners=[listener]) as server:
            await trio.testing.wait_all_tasks_blocked()
            stream = listener.connect()  # wakes who accepts it, in the next turn
            with trio.fail_after(5):
                await server.aclose()
            assert bytes(await stream.receive_some()).startswith(b"HTTP/1.1 503")


async def test_what_a_handler_leaves_is_in_no_cycle(
    autojump_clock: MockClock,
) -> None:
    class Local:
        pass

    found: list[weakref.ref[Local]] = []

    async def handler(ws: ServerConnection) -> None:
        local = Local()
        found.append(weakref.ref(local))
        await ws.recv()
        await ws.recv()  # raises; what is logged, pytest keeps

    listener = MemoryListener()
    gc.disable()
    try:
        async with open_server(handler, listeners=[listener]):
            async with connect("ws://testing/", stream=listener.connect()) as ws:
                await ws.send("x")
            await trio.testing.wait_all_tasks_blocked()
            assert found[0]() is None
    finally:
        gc.enable()


async def test_a_handler_nursery_that_has_ended(autojump_clock: MockClock) -> None:
    listener = MemoryListener()
    async with trio.open_nursery() as handlers:
        pass
    with pytest.RaisesGroup(
        pytest.RaisesExc(RuntimeError, match="Nursery is closed"),
        flatten_subgroups=True,
    ):
        async with trio.open_nursery() as nursery:
            server = await nursery.start(
                functools.partial(
                    serve, echo, listeners=[listener], handler_nursery=handlers
                )
            )
            listener.connect()
    with trio.fail_after(1):
        await server.aclose()  # waits for nobody


async def test_a_connection_that_cannot_be_closed_harms_no_other(
    autojump_clock: MockClock, log: pytest.LogCaptureFixture
) -> None:
    listener = MemoryListener()
    async with open_server(
        stubborn, listeners=[listener], close_timeout=2, loss_grace=0
    ) as server:
        peer = RawPeer(client=True, streams=trio.testing.lockstep_stream_pair())
        listener.add(peer.theirs)
        await peer.ask()
        await peer.skip_response()
        async with connect("ws://testing/", stream=listener.connect()) as ws:
            for connection in server.connections:
                await connection.send(bytes(100_000))
            await server.aclose(timeout=5)
            assert len([message async for message in ws]) == 1
            assert ws.close_code == 1001
    assert ("INFO", "closing failed") in logged(log)


# What the system does


@pytest.mark.parametrize(
    "code", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS]
)
async def test_a_shortage_of_a_listener_passes(
    autojump_clock: MockClock, log: pytest.LogCaptureFixture, code: int
) -> None:
    listener = MemoryListener()
    async with open_server(echo, listeners=[listener]):
        for _ in range(50):
            listener.fail(OSError(code, os.strerror(code)))
        async with connect("ws://testing/", stream=listener.connect()) as ws:
            await ws.send("x")
            assert await ws.recv() == "x"
        assert 4 <= trio.current_time() <= 6
        listener.fail(OSError(code, os.strerror(code)))
        async with connect("ws://testing/", stream=listener.connect()) as ws:
            await ws.send("x")
            assert await ws.recv() == "x"
    # Once for each time that it happens, not for each attempt.
    message = f"accepting no connections for now: [Errno {code}] {os.strerror(code)}"
    assert logged(log) == [("ERROR", message)] * 2


class Accepting:
    """Stands in for the sockets' accept(), which fails as it is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        self.errors: list[OSError] = []
        original = socket.socket.accept

        def accept(sock: socket.socket) -> tuple[socket.socket, Any]:
            self.calls += 1
            if self.errors:
                raise self.errors.pop()
            return original(sock)

        monkeypatch.setattr(socket.socket, "accept", accept)


async def test_a_stream_that_is_gone_before_it_is_accepted(
    autojump_clock: MockClock, log: pytest.LogCaptureFixture
) -> None:
    listener = MemoryListener()
    async with open_server(echo, listeners=[listener]):
        for _ in range(3):
            listener.fail(OSError(errno.ECONNABORTED, "aborted"))
        async with connect("ws://testing/", stream=listener.connect()) as ws:
            await ws.send("x")
            assert await ws.recv() == "x"
    assert trio.current_time() == 0
    assert logged(log) == []


async def test_a_client_that_is_gone_before_it_is_accepted(
    monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    accepting = Accepting(monkeypatch)
    async with open_server(echo, 0, host="127.0.0.1") as server:
        accepting.errors += [OSError(errno.ECONNABORTED, "aborted")] * 5
        async with connect(f"ws://127.0.0.1:{server.port}/") as ws:
            await ws.send("x")
            assert await ws.recv() == "x"
    assert not accepting.errors
    assert [line for line in logged(log) if "listening" not in line[1]] == []


@pytest.mark.realtime(seconds=0.2)
async def test_an_error_that_stays_does_not_make_it_spin(
    monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    accepting = Accepting(monkeypatch)
    async with open_server(echo, 0, host="127.0.0.1") as server:
        accepting.errors += [OSError(errno.EINVAL, "not listening")] * 10_000
        stream = await trio.open_tcp_stream("127.0.0.1", server.port)
        with trio.move_on_after(0.15):
            await trio.sleep_forever()
        assert accepting.calls < 10
        accepting.errors.clear()
        async with connect("ws://testing/", stream=stream) as ws:
            await ws.send("x")
            assert await ws.recv() == "x"
    assert len([line for line in logged(log) if line[0] == "ERROR"]) == 1


@pytest.mark.realtime(seconds=0.5)
def test_a_process_without_descriptors_recovers() -> None:
    # In a process of its own: the limit is one of the whole process.
    code = """
        import logging, os, resource, socket, time
        import trio, trio.testing, trio_ws

        logging.basicConfig(level=logging.INFO)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

        async def echo(ws):
            async for message in ws:
                await ws.send(message)

        async def main():
            async with trio_ws.open_server(echo, 0, host="127.0.0.1") as server:
                await trio.testing.wait_all_tasks_blocked()
                hold = []
                try:
                    while True:
                        hold.append(os.open("/dev/null", os.O_RDONLY))
                except OSError:
                    pass
                os.close(hold.pop())  # for the client, none for the server
                stream = await trio.open_tcp_stream("127.0.0.1", server.port)
                start = time.process_time()
                await trio.sleep(0.3)
                print("spent", time.process_time() - start < 0.15)
                for fd in hold:
                    os.close(fd)
                async with trio_ws.connect("ws://x/", stream=stream) as ws:
                    await ws.send("recovered")
                    print(await ws.recv())

        trio.run(main)
    """
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert process.stdout == "spent True\nrecovered\n", process.stderr
    assert process.stderr.count("accepting no connections for now") == 1
    assert process.stderr.count("\n") == 2


async def test_a_peer_that_is_gone_already(monkeypatch: pytest.MonkeyPatch) -> None:
    # getsockname() fails on some systems for a connection that was reset.
    def fails(sock: socket.socket, *_: object, **__: object) -> None:
        sock.close()
        raise OSError(errno.EINVAL, "gone")

    async with open_server(echo, 0, host="127.0.0.1") as server:
        with monkeypatch.context() as patched:
            patched.setattr("trio_ws._server.acceptor.make_transport", fails)
            async with await trio.open_tcp_stream("127.0.0.1", server.port):
                await trio.testing.wait_all_tasks_blocked(0.01)
        async with connect(f"ws://127.0.0.1:{server.port}/") as ws:
            await ws.send("x")
            assert await ws.recv() == "x"


def descriptors() -> int:
    """Count the open descriptors of this process, where the system tells."""
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return 0


async def test_many_clients_at_once() -> None:
    async def visit() -> None:
        async with connect(f"ws://127.0.0.1:{server.port}/") as ws:
            await ws.send("x")
            assert await ws.recv() == "x"

    before = descriptors(), trio.lowlevel.current_statistics().tasks_living
    async with open_server(echo, 0, host="127.0.0.1") as server:
        async with trio.open_nursery() as nursery:
            for _ in range(150):
                nursery.start_soon(visit)
    assert (descriptors(), trio.lowlevel.current_statistics().tasks_living) == before


async def test_the_port_is_known_after_closing() -> None:
    async with open_server(echo, 0, host="127.0.0.1") as server:
        port = server.port
    assert server.port == port


async def test_closing_waits_for_no_tls_handshake() -> None:
    # A connection opened ahead of time, as browsers do, says nothing.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with trio.fail_after(60):
        async with open_server(
            echo, 0, host="127.0.0.1", ssl=context, open_timeout=None
        ) as server:
            stream = await trio.open_tcp_stream("127.0.0.1", server.port)
            async with stream:
                while not server._sessions:
                    await trio.lowlevel.checkpoint()
                await server.aclose(timeout=None)
                assert await stream.receive_some() == b""


async def test_open_server_is_entered_once() -> None:
    manager = open_server(echo, 0, host="127.0.0.1")
    async with manager:
        with pytest.raises(RuntimeError, match="entered once"):
            async with manager:
                raise AssertionError("entered")
