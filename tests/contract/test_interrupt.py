"""Control-C at any moment: KeyboardInterrupt leaves, and nothing is left behind."""

from __future__ import annotations

import gc
import math
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator
from linecache import getline
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import trio
import trio.testing

import trio_ws
from tests.leaks import descriptors
from tests.peers.wsproto_peer import (
    BreakableStream,
    WsprotoPeer,
    open_against_peer,
    over,
)
from tests.platforms import needs_posix
from trio_ws._connection.scope import ConnectionScope
from trio_ws._endpoint import counter, writer
from trio_ws._endpoint.endpoint import Endpoint
from trio_ws._endpoint.keepalive import Keepalive

if TYPE_CHECKING:
    from types import FrameType

SIDES = pytest.mark.parametrize("client", [True, False], ids=["client", "server"])

AnyConnection = trio_ws.ClientConnection | trio_ws.ServerConnection
Run = Callable[[], Awaitable[None]]

PACKAGE = str(Path(trio_ws.__file__).parent) + os.sep


@pytest.fixture(autouse=True)
def sane_interpreter() -> Iterator[None]:
    """Control-C is what it was, and no loop is running."""
    before = signal.getsignal(signal.SIGINT)
    assert before is signal.default_int_handler  # or trio would leave it alone
    yield
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(RuntimeError):  # in_trio_run() is newer than trio 0.28
        trio.lowlevel.current_trio_token()


def run(main: Callable[[], Awaitable[None]]) -> None:
    """Run ``main``, in no real time, and see that its tasks are gone."""
    tasks = TaskCounter()
    clock = trio.testing.MockClock(autojump_threshold=0)
    try:
        trio.run(main, clock=clock, instruments=[tasks])
    finally:
        assert tasks.alive == 0


class TaskCounter(trio.abc.Instrument):
    """Counts tasks from their start to their end."""

    def __init__(self) -> None:
        self.alive = 0

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        self.alive += 1

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        self.alive -= 1


def interrupt_soon() -> None:
    """Raise SIGINT from where the interrupt can only go to the main task."""
    trio.lowlevel.current_trio_token().run_sync_soon(signal.raise_signal, signal.SIGINT)


async def wait_in_recv(ws: AnyConnection) -> None:
    await ws.recv()


async def wait_in_sleep(ws: AnyConnection) -> None:
    await trio.sleep_forever()


async def wait_for_child(ws: AnyConnection) -> None:
    # The body has ended: the scope itself waits.
    ws.nursery.start_soon(trio.sleep_forever)


@SIDES
@pytest.mark.parametrize("body", [wait_in_recv, wait_in_sleep, wait_for_child])
def test_interrupt_while_the_body_waits(
    body: Callable[[Any], Awaitable[None]], client: bool
) -> None:
    scope, stream, peer = open_against_peer(client=client)

    async def interrupt() -> None:
        await trio.sleep(1)
        interrupt_soon()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.run)
            nursery.start_soon(interrupt)
            start = trio.current_time()
            try:
                async with scope as ws:
                    await body(ws)
            finally:
                assert trio.current_time() - start == 1
                assert stream.closed
                with trio.CancelScope(shield=True):
                    await trio.testing.wait_all_tasks_blocked()
                assert peer.close_code == 1001

    # Bare at our scope; the test's own nursery is what groups it.
    with pytest.raises(BaseExceptionGroup) as caught:
        run(main)
    assert [type(exc) for exc in caught.value.exceptions] == [KeyboardInterrupt]


@SIDES
def test_interrupt_while_leaving(client: bool) -> None:
    # The block waits for a close frame that doesn't come.
    scope, stream, peer = open_against_peer(client=client)
    peer.answers_close = False

    async def interrupt() -> None:
        await trio.sleep(1)
        interrupt_soon()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.run)
            nursery.start_soon(interrupt)
            start = trio.current_time()
            try:
                async with scope:
                    pass
            finally:
                assert trio.current_time() - start == 1
                assert stream.closed

    with pytest.raises(BaseExceptionGroup) as caught:
        run(main)
    assert [type(exc) for exc in caught.value.exceptions] == [KeyboardInterrupt]
    assert peer.close_code == 1000


@SIDES
def test_tasks_of_the_connection_are_protected(
    client: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Else the interrupt could hit the reader while it closes the transport.
    protected: dict[str, bool] = {}

    def note(name: str) -> None:
        protected[name] = trio.lowlevel.currently_ki_protected()

    class NotingStream(BreakableStream):
        async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
            note("reader")
            return await super().receive_some(max_bytes)

        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            note("flusher")
            await super().send_all(data)

    def step(keepalive: Keepalive) -> None:
        note("pinger")
        keepalive._next_ping = math.inf

    monkeypatch.setattr(Keepalive, "step", step)
    ours, theirs = trio.testing.memory_stream_pair()
    scope, _, peer = over(
        NotingStream(ours), theirs, client=client, options={"ping_interval": 1}
    )

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.run)
            async with scope as ws:
                protected.clear()
                note("body")
                await ws.send("x")
                await trio.sleep(2)

    run(main)
    assert protected == {
        "reader": True,
        "flusher": True,
        "pinger": True,
        "body": False,  # the user's own code isn't
    }


class OneStreamListener(trio.abc.Listener[trio.abc.Stream]):
    """Listens for one connection, which is there already."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._streams = [stream]

    async def accept(self) -> trio.abc.Stream:
        if not self._streams:
            await trio.sleep_forever()
        return self._streams.pop()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


def test_scope_of_a_handler_is_entered_and_left_protected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # connect() and accept() are protected themselves; a server enters bare.
    protected: dict[str, bool] = {}

    def noting(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*arguments: object) -> Any:
            protected[name] = trio.lowlevel.currently_ki_protected()
            return method(*arguments)

        return noted

    for name, owner in (("start", Endpoint), ("_exit_error", ConnectionScope)):
        monkeypatch.setattr(owner, name, noting(name, getattr(owner, name)))

    async def handler(ws: trio_ws.ServerConnection) -> None:
        protected["handler"] = trio.lowlevel.currently_ki_protected()

    async def main() -> None:
        ours, theirs = trio.testing.memory_stream_pair()
        peer = WsprotoPeer(theirs, client=True)
        listeners = [OneStreamListener(ours)]
        async with trio_ws.open_server(handler, listeners=listeners):
            await peer.run()

    run(main)
    assert protected == {"start": True, "_exit_error": True, "handler": False}


# At any moment. A small run is played with SIGINT raised at a line inside the
# package, for every line that it passes: where the code is unprotected
# KeyboardInterrupt comes right there, else at the main task's next checkpoint.


async def small_run() -> None:
    """Open, talk, ping and close, over a socket pair of the kernel's."""
    # Made here, so that whatever the scopes don't close is seen to be open.
    ours, theirs = (
        trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        for sock in socket.socketpair()
    )

    async def serve() -> None:
        async with trio_ws.accept(theirs) as ws:
            async for message in ws:
                await ws.send(message)

    pinged = trio.Event()

    async def ping(ws: AnyConnection) -> None:
        await ws.ping()
        await ws.pong()
        pinged.set()

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            async with trio_ws.connect("ws://testing/", stream=ours) as ws:
                ws.nursery.start_soon(ping, ws)
                await ws.send("x")
                assert await ws.recv() == "x"
                await pinged.wait()
                for _ in range(4):  # quickly: in the end the receivers read
                    await ws.send("y")
                    assert await ws.recv() == "y"
                await ws.ping()
                await ws.aclose()
    finally:
        for stream in (ours, theirs):  # what no scope has taken over
            await trio.aclose_forcefully(stream)


async def server_run() -> None:
    """Serve one connection, over loopback."""
    # Opened here: trio itself can be interrupted while it opens them.
    stream, (listener,) = None, await trio.open_tcp_listeners(0, host="127.0.0.1")

    async def echo(ws: AnyConnection) -> None:
        async for message in ws:
            await ws.send(message)

    try:
        stream = await trio.testing.open_stream_to_socket_listener(listener)
        async with trio_ws.open_server(echo, listeners=[listener]) as server:
            async with trio_ws.connect("ws://testing/", stream=stream) as ws:
                await ws.send("x")
                assert await ws.recv() == "x"
            await server.aclose()
    finally:
        if stream is not None:
            await trio.aclose_forcefully(stream)
        await trio.aclose_forcefully(listener)


class Line(NamedTuple):
    path: str
    number: int


class Interrupter:
    """Raises SIGINT when a line of the package is run for the first time."""

    def __init__(self, at: Line | None) -> None:
        self._at = at
        self.seen: dict[Line, None] = {}  # in the order in which they were run

    def __enter__(self) -> None:
        self._before = sys.gettrace()  # of coverage
        sys.settrace(self._on_call)

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def _on_call(self, frame: FrameType, event: str, argument: object) -> Any:
        return self._on_line if is_swept(frame.f_code.co_filename) else None

    def _on_line(self, frame: FrameType, event: str, argument: object) -> Any:
        if event == "line":
            line = Line(frame.f_code.co_filename, frame.f_lineno)
            self.seen[line] = None
            if line == self._at:
                sys.settrace(None)
                signal.raise_signal(signal.SIGINT)
        return self._on_line


# Not the opening handshake's parsing and building, nor options: all of that changes
# nothing but what is made there.
NOT_SWEPT = tuple(
    PACKAGE + name.replace("/", os.sep)
    for name in ("_protocol/handshake/", "_protocol/http/", "_protocol/uri.")
)


def is_swept(path: str) -> bool:
    return (
        path.startswith(PACKAGE)
        and not path.startswith(NOT_SWEPT)
        and Path(path).stem != "options"
    )


def leaves_of(exc: BaseException) -> list[BaseException]:
    if isinstance(exc, BaseExceptionGroup):
        return [leaf for member in exc.exceptions for leaf in leaves_of(member)]
    return [exc]


def interrupt_at(line: Line, run: Run) -> None:
    """Play a run, interrupted at a line; check what is left of it."""
    interrupter = Interrupter(line)
    tasks = TaskCounter()
    left: list[BaseException] = []
    try:
        with interrupter:
            trio.run(run, instruments=[tasks])
    except (KeyboardInterrupt, BaseExceptionGroup) as exc:
        left = leaves_of(exc)
    if line not in interrupter.seen:
        return  # the tasks ran in another order
    kinds = {type(exc) for exc in left}
    assert KeyboardInterrupt in kinds
    # The other end of the pair may find its connection, or the opening of it, cut.
    kinds.discard(KeyboardInterrupt)
    assert all(
        issubclass(kind, trio_ws.ConnectionClosed | trio_ws.InvalidHandshake | OSError)
        for kind in kinds
    )
    assert tasks.alive == 0
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(RuntimeError):  # in_trio_run() is newer than trio 0.28
        trio.lowlevel.current_trio_token()


@needs_posix
@pytest.mark.usefixtures("all_is_quick")
@pytest.mark.parametrize("run", [small_run, server_run])
def test_interrupt_at_any_line(run: Run) -> None:
    survey = Interrupter(None)
    with survey:
        trio.run(run)
    assert len(survey.seen) > 300
    if run is small_run:
        assert any("reader.by = RECEIVER" in getline(*line) for line in survey.seen)
    gc.collect()
    before = descriptors()
    for line in survey.seen:
        try:
            interrupt_at(line, run)
            # Without the collector: what only it closes is a leak.
            assert descriptors() == before
        except Exception as exc:
            exc.add_note(f"interrupted at {line}")
            raise


@pytest.mark.parametrize(
    "hook", ["process_request", "process_response", "select_subprotocol"]
)
def test_interrupt_in_a_hook(hook: str) -> None:
    # It is the user's code, and may take long.
    interrupted = True

    def slow(*_: object) -> None:
        nonlocal interrupted
        signal.raise_signal(signal.SIGINT)
        interrupted = False

    async def main() -> None:
        async def echo(ws: AnyConnection) -> None: ...

        options: Any = {hook: slow}
        async with trio_ws.open_server(echo, 0, host="127.0.0.1", **options) as server:
            async with trio_ws.connect(f"ws://127.0.0.1:{server.port}/"):
                raise AssertionError("entered")

    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
    assert interrupted


def received_around(interrupter: Interrupter) -> list[str]:
    """Interrupt the second of three messages, which is gathered with others.

    Return which of them the peer gets, "?" for anything else.
    """
    texts = {name: os.urandom(500).hex() for name in "123"}
    texts["3"] += texts["2"]  # compressed by reference to it, if it was sent
    received: list[str | bytes] = []

    async def receive(ws: trio_ws.ServerConnection) -> None:
        received.extend([message async for message in ws])

    async def main() -> None:
        async with trio_ws.open_server(receive, 0, host="127.0.0.1") as server:
            async with trio_ws.connect(f"ws://127.0.0.1:{server.port}/") as ws:
                await ws.send(texts["1"])
                while not ws._engine.outbox.batch_limit:
                    await ws.send("")
                try:
                    with interrupter:
                        await ws.send(texts["2"])
                    await trio.lowlevel.checkpoint()
                except KeyboardInterrupt:
                    pass
                await ws.send(texts["3"])
            await server.aclose()

    trio.run(main)
    names = {text: name for name, text in texts.items()}
    return [names.get(str(message), "?") for message in received if message]


def test_interrupt_at_any_line_while_a_message_is_gathered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # So that messages follow each other at once, and are gathered; and that nobody
    # else has a turn, for want of time, between two of them.
    for module in (counter, writer):
        monkeypatch.setattr(module, "perf_counter", lambda: 1000.0)
    survey = Interrupter(None)
    assert received_around(survey) == ["1", "2", "3"]
    assert any("deflate" in Path(line.path).name for line in survey.seen)
    for line in survey.seen:
        assert received_around(Interrupter(line)) in (["1", "2", "3"], ["1", "3"]), line
