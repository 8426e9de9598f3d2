"""Accepting: what the system does, and in which steps."""

from __future__ import annotations

import errno
import logging
import os
import socket
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.lowlevel
import trio.testing

import trio_ws
from tests.handlers import echo, stubborn
from tests.leaks import living_tasks, open_descriptors
from tests.peers.in_memory import MemoryListener
from tests.platforms import needs_limits
from tests.server.serving import listens, logged
from trio_ws import connect, open_server, serve
from trio_ws._server import acceptor

if TYPE_CHECKING:
    from trio.testing import MockClock


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "trio_ws.server")
    return caplog


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


def tries(start: float) -> float:
    """How often one may have tried since, with a tenth of a second between two."""
    return (trio.current_time() - start) / 0.1 + 1


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


# ECONNRESET is Windows' word for it.
@pytest.mark.parametrize("code", [errno.ECONNABORTED, errno.ECONNRESET])
async def test_a_client_that_is_gone_before_it_is_accepted(
    monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture, code: int
) -> None:
    accepting = Accepting(monkeypatch)
    async with open_server(echo, 0, host="127.0.0.1") as server:
        accepting.errors += [OSError(code, "gone")] * 5
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
        start = trio.current_time()
        stream = await trio.open_tcp_stream("127.0.0.1", server.port)
        await trio.sleep(0.15)
        assert accepting.calls <= tries(start)
        accepting.errors.clear()
        async with connect("ws://testing/", stream=stream) as ws:
            await ws.send("x")
            assert await ws.recv() == "x"
    assert len([line for line in logged(log) if line[0] == "ERROR"]) == 1


class Waiting:
    """Stands in for trio.lowlevel.wait_readable(), which fails for listeners."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.errors: list[OSError] = []
        self.descriptor = -1
        original = trio.lowlevel.wait_readable

        async def wait_readable(sock: socket.socket) -> None:
            if listens(sock) and self.errors:
                self.descriptor = sock.fileno()
                raise self.errors.pop()
            await original(sock)

        monkeypatch.setattr(trio.lowlevel, "wait_readable", wait_readable)


@pytest.mark.parametrize("code", [errno.ENOMEM, errno.ENOSPC])
async def test_a_shortage_where_a_listener_is_waited_for(
    code: int, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("trio_ws._server.acceptor._SHORTAGE_SLEEP", 0)
    waiting = Waiting(monkeypatch)
    error = OSError(code, os.strerror(code))
    waiting.errors += [error] * 3
    async with open_server(echo, 0, host="127.0.0.1") as server:
        for _ in range(2):
            await connected(f"ws://127.0.0.1:{server.port}/")
    assert not waiting.errors
    message = f"accepting no connections for now: {error}"
    assert [line for line in logged(log) if "listening" not in line[1]] == [
        ("ERROR", message)
    ]


def check_closed_elsewhere(error: OSError, server: trio_ws.Server) -> None:
    assert error.__notes__ == [
        "a listener's descriptor was closed, not by its own aclose()"
    ]
    assert [sock.fileno() for sock in server.sockets] == [-1]


@pytest.mark.parametrize(
    ("owner", "name"),
    [(socket.socket, "accept"), (trio.lowlevel, "wait_readable")],
    ids=["accept", "wait_readable"],
)
async def test_a_descriptor_that_is_closed_elsewhere(
    owner: Any, name: str, monkeypatch: pytest.MonkeyPatch, log: Any
) -> None:
    # As a process that becomes a daemon closes all that it has.
    original = getattr(owner, name)

    def closing(sock: object) -> Any:
        if listens(sock):
            os.close(sock.fileno())
        return original(sock)

    async def visit(server: trio_ws.Server) -> None:
        async with connect(f"ws://127.0.0.1:{server.port}/") as ws:
            monkeypatch.setattr(owner, name, closing)
            async with await trio.open_tcp_stream("127.0.0.1", server.port):
                await ws.wait_closed()
                assert ws.close_code == 1001
                await trio.sleep_forever()

    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        async with open_server(stubborn, 0, host="127.0.0.1") as server:
            await visit(server)
    check_closed_elsewhere(caught.value, server)
    assert [line for line in logged(log) if line[0] == "ERROR"] == []


async def test_a_descriptor_that_is_anothers_by_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waiting = Waiting(monkeypatch)
    waiting.errors.append(OSError(errno.EBADF, "Bad file descriptor"))
    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        async with open_server(echo, 0, host="127.0.0.1") as server:
            await trio.sleep_forever()
    check_closed_elsewhere(caught.value, server)
    socket.close(waiting.descriptor)  # still open: it isn't the server's to close


async def test_a_listener_whose_descriptor_is_closed_elsewhere() -> None:
    listener = MemoryListener()
    error = OSError(errno.EBADF, "Bad file descriptor")
    listener.fail(error)
    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        async with open_server(echo, listeners=[listener]):
            await trio.sleep_forever()
    assert caught.value is error
    assert listener.closed


async def test_each_listener_is_closed_whatever_others_raise() -> None:
    class Broken(MemoryListener):
        async def aclose(self) -> None:
            await super().aclose()
            raise error

    error = ValueError("mine")
    listeners = [Broken(), MemoryListener(), Broken(), MemoryListener()]
    with pytest.raises(ValueError, match="mine") as caught:
        async with open_server(echo, listeners=listeners):
            pass
    assert caught.value is error
    assert all(listener.closed for listener in listeners)


@needs_limits
@pytest.mark.realtime(seconds=0.5)
def test_a_process_without_descriptors_recovers() -> None:
    # In a process of its own: the limit is one of the whole process.
    code = """
        import logging, os, resource, socket
        import trio, trio.testing, trio_ws

        logging.basicConfig(level=logging.INFO)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

        class Steps(trio.abc.Instrument):
            count = 0

            def before_task_step(self, task):
                self.count += 1

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
                steps = Steps()
                trio.lowlevel.add_instrument(steps)
                start = trio.current_time()
                await trio.sleep(0.3)
                trio.lowlevel.remove_instrument(steps)
                # Nobody else does anything; it may try each tenth of a second.
                turns = 2 * (trio.current_time() - start) / 0.1 + 5
                print("rests", 0 < steps.count <= turns)
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
    assert process.stdout == "rests True\nrecovered\n", process.stderr
    assert process.stderr.count("accepting no connections for now") == 1
    lines = [line.partition(":")[0] for line in process.stderr.splitlines()]
    assert lines == ["INFO", "ERROR", "INFO", "INFO"]


async def test_a_peer_that_is_gone_already(monkeypatch: pytest.MonkeyPatch) -> None:
    # What is asked of its socket may fail.
    def fails(sock: socket.socket, *_: object, **__: object) -> None:
        sock.close()
        raise OSError(errno.EINVAL, "gone")

    async with open_server(echo, 0, host="127.0.0.1") as server:
        with monkeypatch.context() as patched:
            patched.setattr("trio_ws._transports.make.make_transport", fails)
            async with await trio.open_tcp_stream("127.0.0.1", server.port):
                await trio.testing.wait_all_tasks_blocked(0.01)
        async with connect(f"ws://127.0.0.1:{server.port}/") as ws:
            await ws.send("x")
            assert await ws.recv() == "x"


async def test_many_clients_at_once() -> None:
    async def visit() -> None:
        async with connect(f"ws://127.0.0.1:{server.port}/") as ws:
            await ws.send("x")
            assert await ws.recv() == "x"

    before = open_descriptors(), living_tasks()
    async with open_server(echo, 0, host="127.0.0.1") as server:
        async with trio.open_nursery() as nursery:
            for _ in range(150):
                nursery.start_soon(visit)
    assert (open_descriptors(), living_tasks()) == before


async def check_echo(ws: trio_ws.ClientConnection) -> None:
    await ws.send("round")
    assert await ws.recv() == "round"


async def connected(uri: str, **options: Any) -> None:
    """Connect, and see that a server answers."""
    async with trio_ws.connect(uri, **options) as ws:
        await check_echo(ws)


class Steps(trio.abc.Instrument):
    """Counts how often the tasks that accept had their turn."""

    def __init__(self) -> None:
        self.count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if "_accept_sockets" in task.name:
            self.count += 1


async def nothing(ws: trio_ws.ServerConnection) -> None:
    pass


# In which steps


async def test_what_waits_is_accepted_in_batches(mock_clock: MockClock) -> None:
    steps = Steps()
    async with trio_ws.open_server(nothing, 0, host="127.0.0.1") as server:
        await trio.testing.wait_all_tasks_blocked()
        address = ("127.0.0.1", server.port)
        clients = [socket.create_connection(address) for _ in range(200)]
        trio.lowlevel.add_instrument(steps)
        await trio.testing.wait_all_tasks_blocked()
        trio.lowlevel.remove_instrument(steps)
        assert len(server._sessions) == 200
        for client in clients:
            client.close()
    # Three full batches and the rest; one turn to wait for each.
    assert steps.count <= 8


@needs_limits
@pytest.mark.cpython("os.urandom() takes a descriptor on PyPy")
@pytest.mark.realtime(seconds=0.4)
async def test_no_descriptors_left(caplog: pytest.LogCaptureFixture) -> None:
    import resource

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    steps = Steps()
    async with trio_ws.open_server(echo, 0, host="127.0.0.1") as server:
        address = ("127.0.0.1", server.port)
        async with trio_ws.connect("ws://{}:{}/".format(*address)) as ws:
            waiting = [socket.create_connection(address) for _ in range(3)]
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
            try:
                trio.lowlevel.add_instrument(steps)
                start = trio.current_time()
                turns = 0
                # Those who are connected notice nothing.
                while trio.current_time() < start + 0.35 or turns < 10:
                    await check_echo(ws)
                    turns += 1
                trio.lowlevel.remove_instrument(steps)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            assert steps.count <= 2 * tries(start)
            errors = [one for one in caplog.records if one.levelno >= logging.ERROR]
            assert len(errors) == 1
            assert "accepting no connections for now" in errors[0].getMessage()
            # And who waits is served as soon as there are some.
            for sock in waiting:
                stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
                await connected("ws://h/", stream=stream)


async def test_no_descriptor_to_begin_with(monkeypatch: pytest.MonkeyPatch) -> None:
    original = acceptor._duplicate
    made: list[socket.socket] = []

    def duplicate(listener: trio.SocketListener) -> socket.socket:
        if made:
            raise OSError(errno.EMFILE, "Too many open files")
        made.append(original(listener))
        return made[0]

    monkeypatch.setattr(acceptor, "_duplicate", duplicate)
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    with pytest.raises(OSError, match="Too many open files"):
        await serve(echo, listeners=listeners)
    assert [sock.fileno() for sock in (*listeners, *made)] == [-1, -1, -1]
