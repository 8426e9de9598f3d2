"""How a server closes, and what becomes of its connections."""

from __future__ import annotations

import functools
import gc
import logging
import ssl
import weakref
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.lowlevel
import trio.testing
import trustme

from tests import logs
from tests.handlers import echo, stubborn, wait
from tests.memory import counts_references
from tests.peers.in_memory import REQUEST, MemoryListener, RawPeer, close_frame
from tests.server.serving import in_memory, logged
from trio_ws import (
    ConnectionClosedOK,
    InvalidStatus,
    ServerConnection,
    State,
    connect,
    open_server,
    serve,
)

if TYPE_CHECKING:
    from trio.testing import MockClock


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "trio_ws.server")
    return caplog


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
        (
            {"close_connections": 1012},
            TypeError,
            "close_connections: expected a bool; got 1012; a code is a keyword: code=",
        ),
        ({"code": 1006}, ValueError, "close code: expected"),
        ({"reason": "x" * 124}, ValueError, "close reason: expected at most"),
        ({"reason": "a\r\nb"}, ValueError, "close reason: expected no CR"),
        ({"timeout": -1}, ValueError, "timeout: expected at least 0"),
        ({"timeout": "1"}, TypeError, "timeout: expected a number of seconds"),
        ({"spread": -1}, ValueError, "spread: expected a finite number .* at least 0"),
        ({"spread": "1"}, TypeError, "spread: expected a finite number of seconds"),
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
    assert logs.plain(record) == what
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


@counts_references
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


# In another thread


@pytest.mark.parametrize("run", [False, True], ids=["no run", "a run of its own"])
async def test_closing_in_another_thread(run: bool) -> None:
    def call() -> None:
        if run:
            trio.run(functools.partial(server.aclose, timeout=0))
        else:
            server.aclose().send(None)

    manager, client = in_memory(echo)
    async with manager as server, client() as ws:
        with pytest.raises(
            RuntimeError, match="outside the trio run of the server"
        ) as (caught):
            await trio.to_thread.run_sync(call)
        assert "trio.from_thread.run()" in str(caught.value)
        # As if it hadn't been called.
        async with client() as later:
            for each in (ws, later):
                await each.send("x")
                assert await each.recv() == "x"
        closing = functools.partial(trio.from_thread.run, server.aclose)
        with trio.fail_after(60):
            await trio.to_thread.run_sync(closing)
        assert [message async for message in ws] == []
        assert ws.close_code == 1001
