"""Memory is short where a server starts, accepts or closes."""

from __future__ import annotations

import importlib
import itertools
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests import logs
from tests.handlers import echo, wait
from tests.leaks import living_tasks
from tests.peers import raw_http
from tests.peers.certificates import contexts
from tests.peers.in_memory import MemoryListener
from tests.server.serving import in_memory, listens, logged
from tests.shortage import fails_at
from trio_ws import Server, connect, open_server, serve, unix_serve
from trio_ws._server.acceptor import Acceptor
from trio_ws._server.sessions import Sessions

# Starting

OnStart = Callable[[], None]


class Status:
    """Is told by serve() that it has started."""

    def __init__(self, on_start: OnStart) -> None:
        self._on_start = on_start

    def started(self, value: Any = None) -> None:
        assert isinstance(value, Server)
        self._on_start()


async def by_port(path: Path, on_start: OnStart) -> None:
    await serve(echo, 0, host="127.0.0.1", task_status=Status(on_start))


async def by_shared_port(path: Path, on_start: OnStart) -> None:
    await serve(
        echo, 0, host="127.0.0.1", reuse_port=True, task_status=Status(on_start)
    )


async def by_sockets(path: Path, on_start: OnStart) -> None:
    ours = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    try:
        await serve(echo, listeners=ours, task_status=Status(on_start))
    finally:
        assert [sock.fileno() for sock in ours] == [-1, -1]


async def by_path(path: Path, on_start: OnStart) -> None:
    await unix_serve(echo, path, mode=0o600, task_status=Status(on_start))


async def as_block(path: Path, on_start: OnStart) -> None:
    async with open_server(echo, 0, host="127.0.0.1"):
        on_start()
        await trio.sleep_forever()


class Shortages:
    """Steps of a call that are short, one after the other."""

    def __init__(self, call: Callable[[OnStart], Awaitable[None]]) -> None:
        self._call = call

    async def count(self, owner: Any, name: str, check: Callable[[], None]) -> int:
        """Fail at each call of a function until it starts; return how often."""
        for number in itertools.count(1):  # pragma: no branch - without end
            scope = trio.CancelScope()
            patch = pytest.MonkeyPatch()
            failing = fails_at(getattr(owner, name), number, MemoryError())
            patch.setattr(owner, name, failing)

            def started(patch: Any = patch, scope: Any = scope) -> None:
                patch.undo()
                scope.cancel()

            try:
                with scope:
                    await self._call(started)
            except MemoryError:
                check()  # of what the frames of the traceback hold, too
                continue
            finally:
                patch.undo()
            assert scope.cancelled_caught
            check()
            return number - 1
        raise AssertionError("it never starts")  # pragma: no cover - nor gets here


def descriptors() -> int:
    return len(os.listdir("/dev/fd"))


@pytest.mark.parametrize(
    ("way", "owner", "name", "least"),
    [
        (way, owner, name, 1)
        for way in (by_port, by_sockets, by_path, as_block)
        for owner, name in (
            (Sessions, "__init__"),
            (Acceptor, "__init__"),
            (Server, "__init__"),
            (trio, "CancelScope"),
            (trio, "Event"),
            (trio, "open_nursery"),
            (trio.Nursery, "start_soon"),
            (trio.lowlevel, "current_task"),
        )
        if way is as_block or name != "current_task"
    ]
    + [
        (as_block, trio.Nursery, "start", 1),
        (by_sockets, trio.Nursery, "start_soon", 2),
        (by_shared_port, trio.SocketListener, "__init__", 1),
        (by_path, trio.SocketListener, "__init__", 1),
        (by_path, os, "stat", 1),
        (by_path, os, "chmod", 1),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_a_server_that_cannot_start(
    way: Callable[[Path, OnStart], Awaitable[None]],
    owner: Any,
    name: str,
    least: int,
    tmp_path: Path,
) -> None:
    path = tmp_path / "socket"
    before = descriptors(), living_tasks()

    def check() -> None:
        assert (descriptors(), living_tasks()) == before
        assert os.listdir(tmp_path) == []

    call = Shortages(lambda on_start: way(path, on_start))
    assert await call.count(owner, name, check) >= least


# Accepting


@pytest.fixture
def no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accept again at once after a shortage."""
    monkeypatch.setattr("trio_ws._server.acceptor._SHORTAGE_SLEEP", 0)


def fail_to_serve(monkeypatch: pytest.MonkeyPatch, number: int) -> list[object]:
    """Let the session that is started as this one fail; return what it was given."""
    start_soon = trio.Nursery.start_soon
    given: list[object] = []

    def failing(nursery: trio.Nursery, function: Any, *args: Any, **named: Any) -> None:
        if named.get("name") == "trio_ws session":
            given.append(args[1])
            if len(given) == number:
                raise MemoryError
        start_soon(nursery, function, *args, **named)

    monkeypatch.setattr(trio.Nursery, "start_soon", failing)
    return given


@pytest.mark.parametrize("kind", ["TCP", "TLS", "SSLListener"])
async def test_a_connection_that_cannot_be_served(
    kind: str, no_rest: None, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    for_client, for_server = contexts()
    keywords: dict[str, Any] = {"port": 0, "host": "127.0.0.1"}
    options: dict[str, Any] = {}
    if kind != "TCP":
        options = {"ssl": for_client, "host": "127.0.0.1"}
    if kind == "TLS":
        keywords["ssl"] = for_server
    [tcp] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with tcp:
        port = tcp.socket.getsockname()[1]
        if kind == "SSLListener":
            listener = trio.SSLListener(tcp, for_server, https_compatible=True)
            keywords = {"listeners": [listener]}
        async with open_server(echo, **keywords) as server:
            port = port if kind == "SSLListener" else server.port
            uri = f"{'ws' if kind == 'TCP' else 'wss'}://localhost:{port}/"
            options.setdefault("host", "127.0.0.1")
            async with connect(uri, **options) as good:
                given = fail_to_serve(monkeypatch, 1)
                async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                    assert await stream.receive_some() == b""
                (refused,) = given
                if isinstance(refused, trio.SSLStream):
                    refused = refused.transport_stream.socket
                assert isinstance(refused, (socket.socket, trio.socket.SocketType))
                assert refused.fileno() == -1
                async with connect(uri, **options) as later:
                    for ws in (good, later):
                        await ws.send("x")
                        assert await ws.recv() == "x"
    message = "accepting no connections for now: MemoryError()"
    assert logged(caplog) == [("ERROR", message)]


async def test_a_stream_that_cannot_even_be_closed(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    class Broken(trio.abc.Stream):
        closed = False

        async def aclose(self) -> None:
            self.closed = True
            raise trio.BrokenResourceError

        async def send_all(self, data: object) -> None:
            raise AssertionError

        async def wait_send_all_might_not_block(self) -> None:
            raise AssertionError

        async def receive_some(self, max_bytes: int | None = None) -> bytes:
            raise AssertionError

    listener = MemoryListener()
    stream = Broken()
    async with open_server(echo, listeners=[listener]):
        fail_to_serve(monkeypatch, 1)
        listener.add(stream)
        async with connect("ws://x/", stream=listener.connect()) as ws:
            await ws.send("x")
            assert await ws.recv() == "x"
    assert stream.closed
    assert trio.current_time() == 0.1
    assert [level for level, _ in logged(caplog)] == ["ERROR"]


@pytest.mark.parametrize(
    ("owner", "name"),
    [(socket.socket, "accept"), (trio.lowlevel, "wait_readable")],
    ids=["accept", "wait_readable"],
)
async def test_memory_is_short_where_it_is_accepted(
    owner: Any, name: str, no_rest: None, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    original = getattr(owner, name)
    short = True

    def failing(sock: object) -> Any:
        nonlocal short
        if short and listens(sock):
            short = False
            raise MemoryError
        return original(sock)

    async with open_server(echo, 0, host="127.0.0.1") as server:
        monkeypatch.setattr(owner, name, failing)
        for _ in range(2):
            async with connect(f"ws://127.0.0.1:{server.port}/") as ws:
                await ws.send("x")
                assert await ws.recv() == "x"
    message = "accepting no connections for now: MemoryError()"
    assert logged(caplog) == [("ERROR", message)]


@pytest.mark.parametrize(
    ("module", "name", "answer"),
    [
        ("_server.opening", "transport_of", b""),
        ("_server.opening", "Endpoint", b"HTTP/1.1 500 "),
        ("_server.opening", "make_connection", b"HTTP/1.1 500 "),
        ("_connection.opener", "ConnectionScope", b"HTTP/1.1 101 "),
    ],
)
async def test_memory_is_short_where_it_is_opened(
    module: str,
    name: str,
    answer: bytes,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: Any,
) -> None:
    listener = MemoryListener()
    error = MemoryError()
    async with open_server(echo, listeners=[listener]):
        async with connect("ws://x/", stream=listener.connect()) as good:
            with monkeypatch.context() as patch:
                owner = importlib.import_module(f"trio_ws.{module}")
                failing = fails_at(getattr(owner, name), 1, error)
                patch.setattr(owner, name, failing)
                stream = listener.connect()
                await stream.send_all(raw_http.request())
                received = await raw_http.read_to_end(stream)
                assert received.startswith(answer)
                assert bool(received) == bool(answer)
            async with connect("ws://x/", stream=listener.connect()) as later:
                for ws in (good, later):
                    await ws.send("x")
                    assert await ws.recv() == "x"
    [record] = logs.told(caplog)
    assert logs.plain(record) == "opening handshake failed"
    assert record.exc_info is not None
    assert record.exc_info[1] is error


async def test_scopes_are_short_where_it_is_opened(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    listener = MemoryListener()
    async with open_server(echo, listeners=[listener], max_connections=2) as server:
        failed = 0
        while not server.connections:
            with monkeypatch.context() as patch:
                failing = fails_at(trio.CancelScope, failed + 1, MemoryError())
                patch.setattr(trio, "CancelScope", failing)
                stream = listener.connect()
                await stream.send_all(raw_http.request())
                await trio.testing.wait_all_tasks_blocked()
            if not server.connections:
                failed += 1
                # All of them are closed, and logged.
                await raw_http.read_to_end(stream)
                assert len(logs.told(caplog)) == failed, caplog.text
                async with connect("ws://x/", stream=listener.connect()):
                    pass
                await trio.testing.wait_all_tasks_blocked()
                # No place is lost.
                now = server.statistics()
                assert (now.places_taken, now.handshakes) == (0, 0)
        await stream.aclose()
    assert failed >= 3


# Closing


async def test_a_closing_that_is_short(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = MemoryError()
    manager, client = in_memory(wait)
    async with trio.open_nursery() as nursery:
        async with manager as server:
            ws = await nursery.start(_visit, client)
            failing = fails_at(trio.Nursery.start_soon, 1, error)
            monkeypatch.setattr(trio.Nursery, "start_soon", failing)
            with pytest.raises(MemoryError) as caught:
                await server.aclose()
            assert caught.value is error
            # As if it were cancelled.
            await ws.wait_closed()
            assert ws.close_code == 1001
    assert trio.current_time() == 0


async def _visit(client: Any, task_status: trio.TaskStatus[Any]) -> None:
    async with client() as ws:
        task_status.started(ws)
        await ws.wait_closed()
