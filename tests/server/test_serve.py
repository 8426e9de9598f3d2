"""serve(), unix_serve() and open_server(): how a server starts."""

from __future__ import annotations

import errno
import functools
import os
import socket
import ssl
import stat
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.lowlevel
import trio.testing
import trustme

from tests.connection.blocks import (
    check_text,
    corrupts,
    drop_garbage,
    dropped_generators,
    raised_elsewhere,
)
from tests.handlers import echo, wait
from tests.peers.in_memory import MemoryListener
from tests.platforms import needs_unix_sockets
from tests.server.serving import in_memory
from trio_ws import (
    Server,
    ServerConnection,
    connect,
    open_server,
    serve,
    unix_connect,
    unix_serve,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


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


@needs_unix_sockets
async def test_a_unix_socket_has_no_port(tmp_path: Any) -> None:
    sock = trio.socket.socket(socket.AF_UNIX)
    await sock.bind(str(tmp_path / "socket"))
    sock.listen()
    async with open_server(echo, listeners=[trio.SocketListener(sock)]) as server:
        with pytest.raises(ValueError, match="port: expected a server with a TCP"):
            _ = server.port


@needs_unix_sockets
async def test_a_unix_server_removes_its_file_from_anywhere(
    tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    server = await nursery.start(unix_serve, echo, "socket")
    monkeypatch.chdir("/")
    await server.aclose()
    await trio.testing.wait_all_tasks_blocked()
    assert not os.listdir(tmp_path)


@needs_unix_sockets
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
        (
            (echo, 0),
            {"ssl": ssl.create_default_context()},
            ValueError,
            "ssl: expected a server's context, as of .*; got a client's",
        ),
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
        ((echo, "80"), {}, TypeError, "port: expected an int; got '80'$"),
        ((echo, "localhost"), {}, TypeError, "a host is a keyword: host='localhost'"),
        ((echo, 70000), {}, ValueError, "port: expected 0 to 65535; got 70000"),
        ((echo, -1), {}, ValueError, "port: expected 0 to 65535; got -1"),
        (
            (echo, 0),
            {"host": "a" * 70},
            ValueError,
            "host: expected a host name",
        ),
        ((echo, 0), {"host": ""}, ValueError, "host: hostname isn't provided"),
        ((echo, 0), {"host": 1}, TypeError, "host: expected a str or None; got 1"),
        ((echo, 0), {"backlog": "1"}, TypeError, "backlog: expected an int or None"),
        ((echo, 0), {"backlog": True}, TypeError, "backlog: expected an int or None"),
        ((echo, 0), {"backlog": -1}, ValueError, "backlog: expected at least 0; got -"),
        (
            (echo, "localhost", 8765),
            {},
            TypeError,
            r"write: (serve|open_server)\(echo, 8765, host='localhost'\)",
        ),
    ],
)
async def test_wrong_arguments(
    arguments: Any, keywords: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        await serve(*arguments, **keywords)
    with pytest.raises(error, match=match):
        open_server(*arguments, **keywords)


async def test_what_to_write_instead() -> None:
    coroutine: Any = serve(echo, 0)
    with pytest.raises(TypeError, match=r"^serve\(\) .* write: async with open_server"):
        async with coroutine:
            raise AssertionError("entered")
    with pytest.raises(RuntimeError, match="cannot reuse already awaited"):
        await coroutine  # closed, so that Python warns of nothing
    coroutine = serve(echo, 0)
    with pytest.raises(KeyError, match="thrown"):
        coroutine.throw(KeyError("thrown"))
    server: Any = open_server(echo, 0)
    with pytest.raises(TypeError, match=r"async with open_server\(\.\.\.\) as server:"):
        await server


async def test_a_coroutine_in_place_of_a_function(nursery: trio.Nursery) -> None:
    coroutine: Any = serve(echo, 0)
    with pytest.raises(TypeError, match=r"start_soon\(serve, \.\.\.\) +# correct"):
        nursery.start_soon(coroutine)


async def test_trio_shows_what_serve_is_at(nursery: trio.Nursery) -> None:
    await nursery.start(serve, echo, 0)
    [task] = nursery.child_tasks
    names = [frame.f_code.co_name for frame, _ in task.iter_await_frames()]
    assert names[:2] == ["serve", "run_server"]
    assert task.name == "trio_ws.serve"
    nursery.cancel_scope.cancel()


async def test_a_port_in_use() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        with pytest.raises(OSError, match=r"listening on 127\.0\.0\.1:") as caught:
            await serve(echo, sock.getsockname()[1], host="127.0.0.1")
    assert caught.value.errno == errno.EADDRINUSE


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


async def test_open_server_is_entered_once() -> None:
    manager = open_server(echo, 0, host="127.0.0.1")
    async with manager:
        with pytest.raises(RuntimeError, match="entered once"):
            async with manager:
                raise AssertionError("entered")


# By another task, or once too often


async def test_another_task_leaves_the_block_of_a_server() -> None:
    block = open_server(wait, 0, host="127.0.0.1")
    leave = functools.partial(block.__aexit__, None, None, None)
    server = await block.__aenter__()
    async with connect(f"ws://127.0.0.1:{server.port}/") as ws:
        error = await raised_elsewhere(leave)
        check_text(error, "", "")
        # As if the block were cancelled: goodbye, and nobody listens.
        assert [message async for message in ws] == []
        assert ws.close_code == 1001
        while server.sockets[0].fileno() >= 0:
            await trio.lowlevel.checkpoint()
    await leave()  # by the task of the block
    with pytest.raises(RuntimeError, match="left already, or never entered"):
        await leave()


async def test_a_server_is_in_a_generator_that_is_dropped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def servers() -> AsyncIterator[Server]:
        async with open_server(echo, 0, host="127.0.0.1") as server:
            yield server

    async def drops() -> None:
        async for server in servers():
            sockets.extend(server.sockets)
            break
        drop_garbage()
        while sockets[0].fileno() >= 0:
            await trio.lowlevel.checkpoint()

    sockets: list[trio.socket.SocketType] = []
    tasks = trio.lowlevel.current_statistics().tasks_living
    with dropped_generators(caplog) as raised:
        with corrupts():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(drops, name="drops")
        # The server's tasks have lost their parent; trio must not end before them.
        while trio.lowlevel.current_statistics().tasks_living > tasks:
            await trio.lowlevel.checkpoint()
    (error,) = raised
    check_text(error, "drops", "close asyncgen")


async def test_leaving_a_server_that_was_never_entered() -> None:
    block = open_server(echo, 0, host="127.0.0.1")
    with pytest.raises(RuntimeError, match="left already, or never entered"):
        await block.__aexit__(None, None, None)
    async with block as server:
        assert server.port
