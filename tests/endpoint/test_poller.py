"""The poller: what it reads, in which order, and what it leaves to others."""

from __future__ import annotations

import dataclasses
import errno
import logging
import os
import select
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.endpoint.link import receiving
from tests.handlers import echo, wait
from tests.leaks import open_descriptors
from tests.peers.certificates import contexts
from tests.peers.in_memory import PING, frame
from tests.peers.sockets import reset
from tests.peers.stream_peer import REQUEST
from tests.platforms import needs_linux
from trio_ws import (
    ClientConnection,
    ConnectionClosedError,
    Server,
    ServerConnection,
    connect,
    open_server,
    serve,
)
from trio_ws._endpoint import poller as _poller
from trio_ws._endpoint.poller import Poller
from trio_ws._endpoint.reader import OFFERED, PAUSED, POLLER, TASK, Reader, Reading
from trio_ws._transports.sockets import SocketTransport
from trio_ws.extensions import (
    ClientExtensionFactory,
    Extension,
    ExtensionParameter,
    Frame,
    ServerExtensionFactory,
)

pytestmark = needs_linux

Handler = Callable[[ServerConnection], Any]


def readers(server: Server) -> list[Reader]:
    return [ws._endpoint.reader for ws in server.connections]


def reading(server: Server) -> list[Reading]:
    return [reader.by for reader in readers(server)]


@asynccontextmanager
async def serving(
    handler: Handler, count: int, **options: Any
) -> AsyncIterator[tuple[Server, list[ClientConnection]]]:
    """A server, and so many clients of it."""
    async with open_server(handler, 0, host="127.0.0.1", **options) as server:
        async with trio.open_nursery() as nursery:
            clients: list[ClientConnection] = []
            uri, ssl = f"ws://localhost:{server.port}/", None
            if "ssl" in options:
                uri, ssl = f"wss://localhost:{server.port}/", contexts()[0]
            for _ in range(count):
                opened = trio.Event()
                nursery.start_soon(stay, connect(uri, ssl=ssl), clients, opened)
                await opened.wait()
            await wait_all_tasks_blocked()
            yield server, clients
            nursery.cancel_scope.cancel()


async def stay(
    opening: connect, clients: list[ClientConnection], opened: trio.Event
) -> None:
    try:
        async with opening as ws:
            clients.append(ws)
            await ws.ping()  # a connection that nothing came over reads for itself
            opened.set()
            await trio.sleep_forever()
    except ConnectionClosedError:
        pass


async def check_echo(ws: ClientConnection, message: str | bytes) -> None:
    await ws.send(message)
    assert await ws.recv() == message


# What a server's connections leave to it


@pytest.mark.parametrize("tls", [False, True])
async def test_it_reads_for_idle_connections(tls: bool, mock_clock: MockClock) -> None:
    options = {"ssl": contexts()[1]} if tls else {}
    async with serving(echo, 3, **options) as (server, clients):
        assert reading(server) == [POLLER] * 3
        for message in ("x", b"x" * 70_000, "x" * 1_000_000):
            for ws in clients:
                await check_echo(ws, message)
        await wait_all_tasks_blocked()
        assert reading(server).count(TASK) == 0


async def test_a_pause_is_the_tasks(mock_clock: MockClock) -> None:
    # Level-triggered, it would tell for ever of what nobody reads.
    async with serving(wait, 1, max_queue=4) as (server, (client,)):
        (reader,) = readers(server)
        for number in range(10):
            await client.send(str(number))
            await wait_all_tasks_blocked()
        assert reader.by is PAUSED
        (ws,) = server.connections
        assert [await ws.recv() for _ in range(10)] == [str(i) for i in range(10)]
        await client.send("after the pause")
        await wait_all_tasks_blocked()
        assert reader.by is POLLER


async def test_a_reader_that_is_woken_looks_again(
    mock_clock: MockClock, nursery: trio.Nursery
) -> None:
    # What woke it was not that there is something to read: receivers read now.
    async with serving(wait, 1) as (server, (client,)):
        (ws,) = server.connections
        reader = ws._endpoint.reader
        for _ in range(2):
            receiver = await receiving(nursery, ws)
            assert reader.by is POLLER
            await client.send("quick")
            while not receiver.ended:
                await trio.lowlevel.checkpoint()
        assert reader.by is OFFERED
        await client.send("for a receiver")
        await wait_all_tasks_blocked()
        assert reader.by is OFFERED
        assert ws._endpoint.engine.idle
        assert await ws.recv() == "for a receiver"


class WakesAsItWakes(trio.abc.Instrument):
    """Wakes a reader between the end of its nap and the step that this leads to."""

    def __init__(self, reader: Reader) -> None:
        self.reader: Reader | None = reader

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task.name == "trio_ws reader" and self.reader is not None:
            self.reader.wake()
            self.reader = None


async def test_a_reader_that_is_woken_as_its_nap_ends(
    mock_clock: MockClock, nursery: trio.Nursery
) -> None:
    async with serving(wait, 1) as (server, (client,)):
        (ws,) = server.connections
        reader = ws._endpoint.reader
        for _ in range(2):
            receiver = await receiving(nursery, ws)
            await client.send("quick")
            await wait_all_tasks_blocked()
        receiver = await receiving(nursery, ws)
        instrument = WakesAsItWakes(reader)
        trio.lowlevel.add_instrument(instrument)
        mock_clock.jump(1)
        await wait_all_tasks_blocked()
        trio.lowlevel.remove_instrument(instrument)
        assert instrument.reader is None
        assert reader.by is POLLER
        await client.send("x")
        await wait_all_tasks_blocked()
        assert receiver.got == ["x"]


async def test_many_receivers_do_not_read(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_poller, "_FEW", 2)
    async with serving(echo, 4) as (server, clients):
        for _ in range(5):
            for ws in clients:
                await check_echo(ws, "quick")
        await wait_all_tasks_blocked()
        by = reading(server)
        assert by.count(POLLER) == 2
        mock_clock.jump(1)
        await wait_all_tasks_blocked()
        for ws in clients[::-1]:
            await check_echo(ws, "slow")


# Connections that outlive it


async def test_connections_that_outlive_the_server(mock_clock: MockClock) -> None:
    handlers: list[ServerConnection] = []

    async def handler(ws: ServerConnection) -> None:
        handlers.append(ws)
        await echo(ws)

    async with trio.open_nursery() as outer:
        scope = trio.CancelScope()

        async def run(task_status: trio.TaskStatus[Server]) -> None:
            with scope:
                await serve(
                    handler,
                    0,
                    host="127.0.0.1",
                    handler_nursery=outer,
                    task_status=task_status,
                )

        server = await outer.start(run)
        async with connect(f"ws://127.0.0.1:{server.port}/") as ws:
            await ws.ping()
            await wait_all_tasks_blocked()
            assert [one._endpoint.reader.by for one in handlers] == [POLLER]
            before = open_descriptors()
            scope.cancel()
            await wait_all_tasks_blocked()
            # Of the server's none is left, that of its epoll included.
            assert open_descriptors() <= before - 2
            assert [one._endpoint.reader.by for one in handlers] == [TASK]
            await check_echo(ws, "still there")


# One connection's trouble


@pytest.mark.parametrize("error", [MemoryError(), ZeroDivisionError()])
async def test_a_read_that_raises_harms_no_other(
    error: Exception,
    mock_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    read = SocketTransport.read
    broken: list[SocketTransport] = []

    def failing(transport: SocketTransport, *args: int) -> bytes | None:
        if transport in broken:
            broken.remove(transport)
            raise error
        return read(transport, *args)

    monkeypatch.setattr(SocketTransport, "read", failing)
    async with serving(echo, 3) as (server, clients):
        transport = readers(server)[1]._transport
        assert isinstance(transport, SocketTransport)
        broken.append(transport)
        await clients[1].send("x")
        with pytest.raises(ConnectionClosedError) as caught:
            await clients[1].recv()
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1011
        await wait_all_tasks_blocked()
        assert reading(server) == [POLLER] * 2
        for ws in (clients[0], clients[2]):
            await check_echo(ws, "y")
    assert not broken


async def test_a_reset_ends_one_connection(mock_clock: MockClock) -> None:
    async with serving(echo, 1) as (server, (client,)):
        peer = socket.create_connection(("127.0.0.1", server.port))
        peer.sendall(REQUEST)
        await wait_all_tasks_blocked()
        peer.sendall(frame(PING, b"", masked=True))
        await wait_all_tasks_blocked()
        assert reading(server) == [POLLER] * 2
        reset(peer)
        await wait_all_tasks_blocked()
        assert reading(server) == [POLLER]
        await check_echo(client, "x")


async def test_what_reading_raises_ends_one_connection(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_some = Reader.read_some
    errors = [ZeroDivisionError()]

    def fails(reader: Reader) -> int | None:
        if errors:
            raise errors.pop()
        return read_some(reader)

    async with serving(echo, 2) as (_, (bad, good)):
        await bad.send("x")
        monkeypatch.setattr(Reader, "read_some", fails)
        with pytest.raises(ConnectionClosedError, match="received 1011"):
            await bad.recv()
        await check_echo(good, "x")


# The system's


@pytest.fixture
def no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_poller, "_SHORTAGE_SLEEP", 0)


async def test_no_epoll_is_to_be_had(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(_poller, "select", Epolls(fail))
    async with serving(echo, 2) as (server, clients):
        assert reading(server) == [TASK] * 2
        for ws in clients:
            await check_echo(ws, "x")


class Epolls:
    """Stands in for the module select."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.epoll = make
        self.EPOLLIN = select.EPOLLIN


class LimitedEpoll:
    """An epoll that takes one socket, and one that is waited for."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self.left = 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._epoll, name)

    def register(self, fd: int, events: int) -> None:
        if not self.left:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.left -= 1
        self._epoll.register(fd, events)


async def test_a_limit_of_sockets_to_wait_for(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_poller, "select", Epolls(LimitedEpoll))
    async with serving(echo, 2) as (server, clients):
        assert reading(server) == [POLLER, TASK]
        for ws in clients:
            await check_echo(ws, "x")


# What asking the system meets with, and whether for good.
ERRORS = [
    (MemoryError(), False),
    (OSError(errno.ENOMEM, "short"), False),
    (OSError(errno.EBADF, "it is closed"), True),
]


@pytest.mark.usefixtures("no_rest")
@pytest.mark.parametrize(
    ("error", "for_good"),
    [
        *ERRORS,
        (OSError(errno.EPERM, "its number is another's"), True),
        (trio.BusyResourceError(), True),  # the same
    ],
)
async def test_waiting_fails(
    error: Exception,
    for_good: bool,
    mock_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wait_readable = trio.lowlevel.wait_readable
    failed = 0

    def failing(sock: Any) -> Any:
        nonlocal failed
        if isinstance(sock, select.epoll) and failed < 3:
            failed += 1
            raise error
        return wait_readable(sock)

    monkeypatch.setattr(trio.lowlevel, "wait_readable", failing)
    async with serving(echo, 2) as (server, clients):
        for ws in clients:
            await check_echo(ws, "x")
        assert failed == (1 if for_good else 3)
        assert reading(server) == [TASK if for_good else POLLER] * 2


class FailingEpoll:
    """An epoll that raises when it is asked, a few times."""

    left = 3

    def __init__(self, error: Exception) -> None:
        self._epoll = select.epoll()
        self._error = error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._epoll, name)

    def poll(self, timeout: float, most: int) -> list[tuple[int, int]]:
        if self.left:
            self.left -= 1
            raise self._error
        return self._epoll.poll(timeout, most)


@pytest.mark.usefixtures("no_rest")
@pytest.mark.parametrize(("error", "for_good"), ERRORS)
async def test_asking_fails(
    error: Exception,
    for_good: bool,
    mock_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    epoll = FailingEpoll(error)
    epoll.left = 0
    monkeypatch.setattr(_poller, "select", Epolls(lambda: epoll))
    async with serving(echo, 2) as (server, clients):
        epoll.left = 3
        for ws in clients:
            await check_echo(ws, "x")
        assert reading(server) == [TASK if for_good else POLLER] * 2
        assert not epoll.left or for_good


async def test_somebody_closes_its_descriptor(poller: Poller) -> None:
    # Nobody is told, until a connection ends that doesn't find itself in it.
    pairs = [socket.socketpair() for _ in range(2)]
    ends, stays = (FakeReader() for _ in pairs)
    assert poller.add(pairs[0][0].fileno(), ends)
    assert poller.add(pairs[1][0].fileno(), stays)
    stays.then = lambda: poller.remove(pairs[1][0].fileno())
    await wait_all_tasks_blocked()
    os.close(max(n for n in range(100) if _is_epoll_of_sockets(n)))
    assert not poller.add(pairs[0][1].fileno(), FakeReader())
    poller.remove(pairs[0][0].fileno())
    pairs[1][1].send(b"x")
    await wait_all_tasks_blocked()
    assert stays.reads == 1
    for pair in pairs:
        for sock in pair:
            sock.close()


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.EMFILE, "")])
@pytest.mark.usefixtures("no_rest")
async def test_no_other_epoll_is_to_be_had(
    error: Exception, poller: Poller, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = [error]

    def fail() -> object:
        if errors:
            raise errors.pop()
        return select.epoll()

    await wait_all_tasks_blocked()
    monkeypatch.setattr(_poller, "select", Epolls(fail))
    left, fake = socket.socketpair(), FakeReader()
    fake.wake = lambda: poller.remove(left[0].fileno())  # type: ignore[method-assign]
    assert poller.add(left[0].fileno(), fake)
    closed = close_behind_its_back(poller)
    await wait_all_tasks_blocked()
    assert not errors
    fake.then = fake.wake
    left[1].send(b"x")
    await wait_all_tasks_blocked()
    assert fake.reads == isinstance(error, MemoryError)
    for sock in (*left, *closed):
        sock.close()


async def test_somebody_closes_another_of_its_number(mock_clock: MockClock) -> None:
    # As a connection does whose descriptor was closed before the epoll was made.
    async with serving(echo, 2) as (server, clients):
        for number in range(3, 100):
            if _is_epoll_of_sockets(number):
                trio.lowlevel.notify_closing(number)
        for ws in clients:
            await check_echo(ws, "x")
        assert reading(server).count(TASK) == 0


def _is_epoll_of_sockets(number: int) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{number}") == "anon_inode:[eventpoll]"
    except OSError:
        return False


# Who is read, and when


class FakeReader:
    """Counts how often it is read; there is always more."""

    calls_user = False

    def __init__(self) -> None:
        self.reads = 0
        self.woken = 0
        self.then: Callable[[], object] = lambda: None

    def read_on(self, few: bool) -> None:
        self.reads += 1
        self.then()

    def wake(self) -> None:
        self.woken += 1


@pytest.fixture
async def poller(nursery: trio.Nursery) -> AsyncIterator[Poller]:
    poller = Poller()
    await nursery.start(poller.run)
    yield poller
    poller.stop()


@pytest.fixture
def fakes(poller: Poller) -> Iterator[list[FakeReader]]:
    """As many as are read in two batches, each with a socket to be read."""
    pairs = [socket.socketpair() for _ in range(2 * _poller._BATCH)]
    fakes = [FakeReader() for _ in pairs]
    for (ours, theirs), fake in zip(pairs, fakes, strict=True):
        theirs.send(b"x")
        assert poller.add(ours.fileno(), fake)
    yield fakes
    for ours, theirs in pairs:
        poller.remove(ours.fileno())
        ours.close()
        theirs.close()


class Turns(trio.abc.Instrument):
    """Counts the turns of the loop."""

    count = 0

    def before_io_wait(self, timeout: float) -> None:
        self.count += 1


@pytest.mark.parametrize("alone", [True, False])
async def test_who_receives_has_it_in_the_same_turn(
    alone: bool, poller: Poller, nursery: trio.Nursery
) -> None:
    turns, fake, read, received = Turns(), FakeReader(), trio.Event(), 0
    ours, theirs = socket.socketpair()
    read_in: list[int] = []

    async def receive() -> None:
        nonlocal received
        await read.wait()
        received = turns.count

    def take() -> None:
        ours.recv(1)
        read_in.append(turns.count)
        read.set()

    fake.then = take
    assert poller.add(ours.fileno(), fake)
    nursery.start_soon(receive)
    await wait_all_tasks_blocked()
    trio.lowlevel.add_instrument(turns)
    theirs.send(b"x")
    while not alone and not received:  # a loop that never waits
        await trio.lowlevel.checkpoint()
    await wait_all_tasks_blocked()
    trio.lowlevel.remove_instrument(turns)
    assert [received] == read_in
    poller.remove(ours.fileno())
    for sock in (ours, theirs):
        sock.close()


class Raised(BaseException):
    """What a handler of a signal raises, as SystemExit, wherever the program is."""


async def test_what_is_raised_there_is_raised_by_the_task() -> None:
    # trio would log it, and go on without an instrument.
    poller, fake = Poller(), FakeReader()
    ours, theirs = socket.socketpair()

    def take() -> None:
        ours.recv(1)
        poller.remove(ours.fileno())
        raise Raised

    fake.then = take
    with ours, theirs, pytest.RaisesGroup(Raised):
        async with trio.open_nursery() as nursery:
            await nursery.start(poller.run)
            assert poller.add(ours.fileno(), fake)
            await wait_all_tasks_blocked()
            theirs.send(b"x")
            await trio.sleep_forever()
    assert fake.reads == 1


def current_task_name(*_: object) -> str:
    return trio.lowlevel.current_task().name


class Asking(Extension):
    """An extension that asks trio something."""

    name = "x-asking"

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        if frame.opcode & 8:
            return frame
        return dataclasses.replace(frame, data=current_task_name().encode())

    def encode(self, frame: Frame) -> Frame:
        return frame


class ClientAsking(ClientExtensionFactory):
    name = Asking.name

    def get_request_params(self) -> Sequence[ExtensionParameter]:
        return []

    def process_response_params(
        self, params: Sequence[ExtensionParameter], accepted: Sequence[Extension]
    ) -> Extension:
        return Aside()


class Aside(Asking):
    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        return frame


class ServerAsking(ServerExtensionFactory):
    name = Asking.name

    def process_request_params(
        self, params: Sequence[ExtensionParameter], accepted: Sequence[Extension]
    ) -> tuple[Sequence[ExtensionParameter], Extension]:
        return [], Asking()


async def test_an_extension_is_called_in_a_task(mock_clock: MockClock) -> None:
    async with open_server(echo, 0, host="127.0.0.1", extensions=[ServerAsking()]) as (
        server
    ):
        async with connect(
            f"ws://127.0.0.1:{server.port}/", extensions=[ClientAsking()]
        ) as ws:
            await ws.ping()
            await wait_all_tasks_blocked()
            assert reading(server) == [POLLER]
            await ws.send(b"who?")
            assert await ws.recv() != b"who?"


async def test_a_log_is_written_in_a_task(
    mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "trio_ws.server")
    asked: list[str] = []

    def ask(record: logging.LogRecord) -> bool:
        asked.append(current_task_name())
        return True

    caplog.handler.addFilter(ask)
    try:
        async with serving(echo, 2) as (server, clients):
            assert reading(server) == [POLLER] * 2
            asked.clear()
            for ws in clients:
                await check_echo(ws, "x")
            assert len(asked) == 4  # a line for each that came and each that went
    finally:
        caplog.handler.removeFilter(ask)


async def test_trio_calls_it_no_more(poller: Poller) -> None:
    # As if it had raised, for want of memory. What it waits for is still to be read.
    ours, theirs = socket.socketpair()
    fake = FakeReader()
    fake.then = lambda: ours.recv(1)
    assert poller.add(ours.fileno(), fake)
    trio.lowlevel.remove_instrument(poller)
    for count in range(1, 10):
        theirs.send(b"x")
        await wait_all_tasks_blocked()
        assert fake.reads == count
    poller.remove(ours.fileno())
    for sock in (ours, theirs):
        sock.close()


@pytest.mark.parametrize("seconds", [0.0, 0.0004, 1.0])
async def test_each_has_its_turn_and_others_too(
    seconds: float, fakes: list[FakeReader], monkeypatch: pytest.MonkeyPatch
) -> None:
    now, most = 1000.0, 0

    def passing() -> float:
        nonlocal now
        now += seconds
        return now

    monkeypatch.setattr(_poller, "perf_counter", passing)
    await trio.lowlevel.checkpoint()  # a batch may have begun before
    before = sum(fake.reads for fake in fakes)
    while before < 10 * len(fakes):
        await trio.lowlevel.checkpoint()
        done = sum(fake.reads for fake in fakes)
        most, before = max(most, done - before), done
    counts = [fake.reads for fake in fakes]
    assert max(counts) - min(counts) <= 1
    assert most <= {0.0: _poller._BATCH, 0.0004: 3, 1.0: 1}[seconds]


async def test_one_that_is_removed_is_not_read(
    poller: Poller, nursery: trio.Nursery
) -> None:
    pairs = [socket.socketpair() for _ in range(2)]
    fakes = [FakeReader() for _ in pairs]
    fds = [ours.fileno() for ours, _ in pairs]

    def remove_all() -> None:
        for fd in fds:
            poller.remove(fd)

    for fd, fake in zip(fds, fakes, strict=True):
        fake.then = remove_all
        assert poller.add(fd, fake)
    for _, theirs in pairs:
        theirs.send(b"x")
    await wait_all_tasks_blocked()
    assert sorted(fake.reads for fake in fakes) == [0, 1]
    for pair in pairs:
        for sock in pair:
            sock.close()


async def test_a_number_that_is_anothers_by_now(poller: Poller) -> None:
    # Somebody has closed the first one's descriptor.
    first, second = FakeReader(), FakeReader()
    ours, theirs = socket.socketpair()
    other, its_peer = socket.socketpair()
    number = ours.fileno()

    def remove() -> None:
        first.woken += 1
        poller.remove(number)

    first.wake = remove  # type: ignore[method-assign]
    assert poller.add(number, first)
    os.dup2(other.fileno(), number)
    assert poller.add(number, second)
    assert first.woken == 1
    second.then = lambda: poller.remove(number)
    its_peer.send(b"x")
    await wait_all_tasks_blocked()
    assert (first.reads, second.reads) == (0, 1)
    for sock in (ours, theirs, other, its_peer):
        sock.close()


async def test_a_copy_of_what_somebody_closed(poller: Poller) -> None:
    # It goes on being readable: to wait for it would be to turn for ever.
    stays, removed = FakeReader(), FakeReader()
    ours, theirs = socket.socketpair()
    stays.then = lambda: poller.remove(ours.fileno())
    assert poller.add(ours.fileno(), stays)
    copy, its_peer = close_behind_its_back(poller, removed)
    its_peer.send(b"x")
    with trio.fail_after(30):
        await wait_all_tasks_blocked()
    assert removed.reads == 0
    theirs.send(b"x")
    await wait_all_tasks_blocked()
    assert stays.reads == 1
    for sock in (ours, theirs, copy, its_peer):
        sock.close()


async def test_what_somebody_closed_and_nobody_removed(poller: Poller) -> None:
    # Another's descriptor, closed too, is how it comes to light.
    forgotten = FakeReader()
    ours, theirs = socket.socketpair()
    removals = []

    def remove() -> None:
        removals.append(number)
        poller.remove(number)

    forgotten.wake = remove  # type: ignore[method-assign]
    number = os.dup2(ours.fileno(), 500)  # a number that nothing else gets
    assert poller.add(number, forgotten)
    os.close(number)
    closed = close_behind_its_back(poller)
    await wait_all_tasks_blocked()
    assert removals == [number]
    for sock in (ours, theirs, *closed):
        sock.close()


def close_behind_its_back(
    poller: Poller, reader: FakeReader | None = None
) -> tuple[socket.socket, socket.socket]:
    """Close a descriptor that is read for, then remove it; return a copy and its peer.

    That copy is open.
    """
    ours, theirs = socket.socketpair()
    number = ours.fileno()
    assert poller.add(number, reader or FakeReader())
    copy = ours.dup()
    os.close(ours.detach())
    poller.remove(number)
    return copy, theirs


async def test_it_ends_where_its_start_is_cancelled() -> None:
    poller = Poller()
    before = open_descriptors()
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            scope.cancel()
            await nursery.start(poller.run)
    assert open_descriptors() == before
    assert not poller.add(0, FakeReader())
