"""What ws.statistics() and server.statistics() tell, while it lasts and afterwards."""

from __future__ import annotations

import dataclasses
import logging
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import (
    MockClock,
    lockstep_stream_pair,
    memory_stream_pair,
    wait_all_tasks_blocked,
)

from tests import logs
from tests.handlers import echo, stubborn, wait
from tests.peers import raw_http
from tests.peers.certificates import contexts
from tests.peers.in_memory import (
    CLOSE,
    TEXT,
    MemoryListener,
    RawPeer,
    close_frame,
    frame,
)
from tests.peers.stream_peer import server_peer
from tests.server.serving import ask, in_memory
from tests.shortage import fails_at
from trio_ws import (
    ConnectionClosed,
    ConnectionClosedError,
    Headers,
    InvalidStatus,
    Request,
    Server,
    ServerConnection,
    State,
    accept,
    broadcast,
    connect,
    open_server,
)
from trio_ws._connection.scope import ConnectionScope
from trio_ws._protocol.closing import Close
from trio_ws.testing import open_pair

CHANGES: dict[str, Any] = {"compression": None, "ping_interval": None}


async def test_a_connection(autojump_clock: MockClock) -> None:
    options: Any = CHANGES
    async with open_pair(options, options) as (client, server):
        for message in "x", b"yy", ["a", "b", ""]:
            await client.send(message)
        await wait_all_tasks_blocked()
        await trio.sleep(5)
        sent = client.statistics()
        got = server.statistics()
        assert (sent.messages_sent, sent.messages_received) == (3, 0)
        assert (got.messages_sent, got.messages_received) == (0, 3)
        # The last is four frames, and a client's have 6 bytes of header.
        assert sent.bytes_sent == got.bytes_received == 6 * 6 + 1 + 2 + 2
        assert (got.messages_waiting, sent.messages_waiting) == (3, 0)
        assert got.bytes_waiting > 0
        assert sent.age == got.age == 5
        assert sent.latency == 0
        for _ in range(3):
            await server.recv()
        await client.ping()
        now = server.statistics()
        assert (now.messages_waiting, now.bytes_waiting) == (0, 0)
        assert now.messages_received == 3
        assert client.statistics().latency == client.latency
        assert dataclasses.replace(now) == server.statistics()
    ended = client.statistics()
    await trio.sleep(100)
    assert client.statistics() == ended
    assert ended.age == 5
    assert ended.messages_sent == 3


async def test_what_waits_for_the_socket() -> None:
    options: Any = {**CHANGES, "write_limit": 1000, "max_queue": 0}
    streams = lockstep_stream_pair()
    async with open_pair(options, options, streams) as (client, server):
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(client.send, bytes(100_000))
            await wait_all_tasks_blocked()
            now = client.statistics()
            assert now.bytes_unsent >= 1000
            assert now.tasks_waiting_send == 5 - now.messages_sent > 0
            assert broadcast([client], "x") == [client]
            assert client.statistics().broadcasts_skipped == 1
            for _ in range(5):
                await server.recv()
        await client.ping()
        then = client.statistics()
        assert (then.bytes_unsent, then.tasks_waiting_send) == (0, 0)
        assert then.messages_sent == 5


async def test_a_stream_of_pieces_is_one_message() -> None:
    options: Any = CHANGES
    async with open_pair(options, options) as (client, server):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, ["a" * 1000, "b" * 1000])
            async for _ in server.recv_streaming():
                pass
        assert server.statistics().messages_received == 1
        assert client.statistics().messages_sent == 1


async def test_compressed_bytes_are_those_on_the_wire() -> None:
    async with open_pair() as (client, server):
        await client.send("x" * 10_000)
        await server.recv()
        assert client.statistics().bytes_sent < 200
        assert server.statistics().bytes_received == client.statistics().bytes_sent


def kept(server: Server) -> dict[str, Any]:
    """What was counted, but for zeros."""
    return {
        name: value
        for name, value in dataclasses.asdict(server.statistics()).items()
        if value
    }


async def test_a_server(autojump_clock: MockClock) -> None:
    def hook(ws: ServerConnection, request: Any) -> Any:
        statuses = {"/health": 200, "/secret": 401}
        status = statuses.get(request.path)
        return status and ws.respond(status, "")

    listener = MemoryListener()
    async with open_server(
        echo,
        listeners=[listener],
        process_request=hook,
        **CHANGES,
    ) as server:
        assert kept(server) == {}
        slow = listener.connect()
        await wait_all_tasks_blocked()
        assert kept(server) == {"accepted": 1, "handshakes": 1, "places_taken": 1}
        await trio.aclose_forcefully(slow)
        for path, status in ("/health", 200), ("/secret", 401), ("/secret", 401):
            line = f"GET {path} HTTP/1.1".encode()
            assert (await ask(listener, line=line)).status == status
        answer = await ask(listener, without=b"Upgrade")
        assert answer.status == 426
        stream = listener.connect()
        async with connect("ws://t/", stream=stream, compression=None) as ws:
            await ws.send("x" * 10)
            await ws.recv()
            middle = kept(server)
            assert middle["connections"] == middle["opened"] == 1
        await wait_all_tasks_blocked()
        stream = listener.connect()
        async with connect("ws://t/", stream=stream, compression=None) as ws:
            await ws.send("y" * 10)
            await ws.recv()
            await ws.aclose(3000)
        await wait_all_tasks_blocked()
        lost = listener.connect()
        await lost.send_all(raw_http.request())
        await wait_all_tasks_blocked()
        await trio.aclose_forcefully(lost)
        await wait_all_tasks_blocked()
        assert kept(server) == {
            "accepted": 8,
            "opened": 3,
            "answered": 1,
            "refused": {"InvalidMessage": 1, "HTTP 401": 2, "InvalidUpgrade": 1},
            "closed": {("received", 1000): 1, ("received", 3000): 1},
            "lost": {"EOFError": 1},
            "messages_received": 2,
            "messages_sent": 2,
            "bytes_received": 2 * (6 + 10) + 2 * (6 + 2),
            "bytes_sent": 2 * (2 + 10) + 2 * (2 + 2),
        }
        stream = listener.connect()
        opening = connect("ws://t/", stream=stream, compression=None)
        async with trio.open_nursery() as nursery:

            async def stay() -> None:
                async with opening as ws:
                    with pytest.raises(ConnectionClosed):
                        await ws.recv()

            nursery.start_soon(stay)
            await wait_all_tasks_blocked()
            before = server.statistics()
            await server.aclose()
    after = server.statistics()
    assert before.connections == 1
    assert after.connections == 0
    assert after.closed["sent", 1001] == 1
    assert after.bytes_received > before.bytes_received


async def test_a_connection_that_is_closing_is_not_left_out(
    autojump_clock: MockClock,
) -> None:
    server, client = in_memory(wait, **CHANGES)
    async with server as running:
        async with client(compression=None) as ws:
            await ws.send("x")
            await wait_all_tasks_blocked()
            (connection,) = running.connections
            connection._endpoint.fail(1011, "", None)
            statistics = running.statistics()
            assert statistics.connections == 0
            assert statistics.messages_received == 1
            with pytest.raises(ConnectionClosed):
                await ws.recv()


async def test_refusals_for_want_of_room() -> None:
    server, client = in_memory(wait, max_connections=1)
    async with server as running:
        async with client():
            for _ in range(2):
                with pytest.raises(InvalidStatus):
                    async with client():
                        raise AssertionError("unreachable")
        assert running.statistics().refused == {"HTTP 503": 2}


async def test_a_refusal_before_tls_is_up_is_no_answer(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trio_ws.server")
    _, for_server = contexts()
    listener = MemoryListener()
    async with open_server(wait, listeners=[listener], ssl=for_server) as server:
        listener.connect()
        await wait_all_tasks_blocked()
        await server.aclose()
    assert server.statistics().refused == {"Unanswered": 1}
    (record,) = logs.told(caplog)
    assert record.name == "trio_ws.server.strangers"
    assert "HTTP 503, before the end of the TLS handshake" in record.getMessage()


async def test_openings_that_end_otherwise_are_refused(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "rejected" not in record.msg:
                raise KeyError

    logger = logging.getLogger("failing")
    monkeypatch.setattr(logger, "handlers", [Failing()])
    monkeypatch.setattr(logger, "propagate", False)
    monkeypatch.setattr(logger, "level", logging.DEBUG)
    listener = MemoryListener()
    async with open_server(wait, listeners=[listener], logger=logger) as server:
        for _ in range(2):
            assert (await ask(listener)).status == 500
        await trio.sleep(2)
        assert server.statistics().refused == {"KeyError": 2}
    listener = MemoryListener()
    with trio.CancelScope() as scope:
        async with open_server(wait, listeners=[listener]) as server:
            listener.connect()
            await wait_all_tasks_blocked()
            scope.cancel()
    statistics = server.statistics()
    assert (statistics.accepted, statistics.handshakes) == (1, 0)
    assert statistics.refused == {"Cancelled": 1}


async def test_in_another_thread() -> None:
    async with open_pair() as (client, _):
        with pytest.raises(RuntimeError, match=r"statistics\(\) was called outside"):
            await trio.to_thread.run_sync(client.statistics)


# Bytes


class Push:
    """A handler that sends until nothing more is taken, and looks at its figures."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.size = 0
        self.seen: list[tuple[int, int, int]] = []

    async def __call__(self, ws: ServerConnection) -> None:
        if ws.socket is not None:
            ws.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        with suppress(trio.WouldBlock):
            while True:
                ws.send_nowait(b"x")
                self.size += 3
                now = ws.statistics()
                self.seen.append((now.bytes_sent, now.bytes_unsent, self.size))
                await trio.lowlevel.checkpoint()
        self.done.set()
        await ws.wait_closed()


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("kind", ["TCP", "Unix", "memory"])
async def test_bytes_sent_are_those_of_frames_and_never_fall(
    kind: str, tls: bool, path: Path
) -> None:
    """Also while TLS holds ciphertext that the socket doesn't take."""
    for_client, for_server = contexts()
    push = Push()
    client, theirs = lockstep_stream_pair()
    listener: Any = MemoryListener()
    if kind == "memory":
        listener.add(theirs)
    elif kind == "TCP":
        listener = socket.create_server(("127.0.0.1", 0))
    else:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen()
    stream: trio.abc.Stream = client
    options: Any = {"ssl": for_server if tls else None, "write_limit": 1000, **CHANGES}
    async with open_server(push, listeners=[listener], **options) as server:
        if kind != "memory":
            sock = trio.socket.socket(listener.family)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            await sock.connect(server.sockets[0].getsockname())
            stream = trio.SocketStream(sock)
        if tls:
            stream = trio.SSLStream(stream, for_client, server_hostname="localhost")
        async with trio.open_nursery() as nursery:  # TLS reads while it sends
            nursery.start_soon(stream.send_all, raw_http.request())
            came = len((await raw_http.read_switch(stream)).rest)
        await push.done.wait()
        sent = [sent for sent, _, _ in push.seen]
        assert sent == sorted(sent)
        assert all(s <= size <= s + unsent for s, unsent, size in push.seen)
        assert push.seen[-1][1] >= 1000
        while came < push.size:
            came += len(await stream.receive_some())
        (ws,) = server.connections
        while ws.statistics().bytes_unsent:  # until the flusher has seen it
            await trio.lowlevel.checkpoint()
        assert ws.statistics().bytes_sent == came == push.size
        await trio.aclose_forcefully(stream)
        await wait_all_tasks_blocked()
        assert server.statistics().bytes_sent == push.size


async def test_bytes_that_come_with_the_request(autojump_clock: MockClock) -> None:
    listener = MemoryListener()
    frames = frame(TEXT, b"hello", masked=True) * 10
    async with open_server(wait, listeners=[listener]) as server:
        stream = listener.connect()
        await stream.send_all(raw_http.request() + frames)
        await wait_all_tasks_blocked()
        (ws,) = server.connections
        assert ws.statistics().messages_received == 10
        assert ws.statistics().bytes_received == len(frames) == 110
        await stream.send_all(frames)
        await wait_all_tasks_blocked()
        assert ws.statistics().bytes_received == 220
        await stream.aclose()


async def test_bytes_that_another_server_has_read() -> None:
    ours, theirs = memory_stream_pair()
    frames = frame(TEXT, b"hello", masked=True) * 2
    headers = Headers(
        {
            "Host": "t",
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Version": "13",
        }
    )
    request = Request("/", headers)
    async with accept(ours, request=request, leftover=frames) as ws:
        assert ws.statistics().bytes_received == len(frames)
        assert ws.statistics().messages_received == 2
        await theirs.aclose()


async def test_bytes_that_come_with_the_response() -> None:
    peer = RawPeer(client=False)
    extra = frame(TEXT, b"hello")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.answer, extra, frame(CLOSE))
        async with connect("ws://t/", stream=peer.theirs) as ws:
            assert await ws.recv() == "hello"
            assert ws.statistics().bytes_received == len(extra) + 2
            await peer.stream.aclose()


# How connections ended


async def reads(ws: ServerConnection) -> None:
    async for _ in ws:
        pass


async def closes_in_the_end(ws: ServerConnection) -> None:
    try:
        await reads(ws)
    finally:
        await ws.aclose()


async def closes_after_a_loss(ws: ServerConnection) -> None:
    with suppress(ConnectionClosedError):
        await reads(ws)
    await ws.aclose()


@pytest.mark.parametrize(
    "handler", [reads, closes_in_the_end, closes_after_a_loss, wait]
)
@pytest.mark.parametrize("kind", ["end", "reset", "silence", "violation", "close"])
async def test_what_ended_is_counted_once_whatever_the_handler_does(
    kind: str, handler: Any, autojump_clock: MockClock
) -> None:
    ended: dict[str, dict[str, Any]] = {
        "end": {"lost": {"EOFError": 1}},
        "reset": {"lost": {"ConnectionResetError": 1}},
        "silence": {"lost": {"TimeoutError": 1}},
        "violation": {"closed": {("sent", 1002): 1}},
        "close": {"closed": {("received", 1011): 1}},
    }
    listener, peer = MemoryListener(), server_peer()
    async with open_server(handler, listeners=[listener]) as server:
        listener.add(peer)
        await wait_all_tasks_blocked()
        if kind == "end":
            peer.end()
        elif kind == "reset":
            peer.reset()
        elif kind == "violation":
            peer.feed(frame(3, masked=True))
        elif kind == "close":
            peer.feed(frame(CLOSE, b"\x03\xf3", masked=True))
        await trio.sleep(60)
        now = kept(server)
        assert now["opened"] == 1
        assert {k: v for k, v in now.items() if k in ("closed", "lost")} == ended[kind]


async def closes(ws: ServerConnection) -> None:
    await ws.aclose()


async def returns(ws: ServerConnection) -> None:
    pass


@pytest.mark.parametrize("handler", [closes, returns])
@pytest.mark.parametrize("answer", ["end", "reset", "none"])
async def test_a_client_that_does_not_answer_the_close_frame(
    handler: Any, answer: str, autojump_clock: MockClock
) -> None:
    listener, peer = MemoryListener(), server_peer()
    async with open_server(handler, listeners=[listener], close_timeout=1) as server:
        listener.add(peer)
        await wait_all_tasks_blocked()
        if answer != "none":
            peer.vanish(answer)
        await trio.sleep(5)
        assert server.statistics().closed == {("sent", 1000): 1}
        assert server.statistics().lost == {}


@pytest.mark.parametrize("how", ["aclose(timeout=0)", "cancelled", "aclose(timeout=1)"])
async def test_what_the_server_itself_ends_is_closed(
    how: str, autojump_clock: MockClock
) -> None:
    listener = MemoryListener()
    async with open_server(stubborn, listeners=[listener]) as server:
        for _ in range(3):
            listener.add(server_peer())
        await wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            if how == "cancelled":
                scope.cancel()
            await server.aclose(timeout=int(how == "aclose(timeout=1)"))
        await trio.sleep(20)
        assert server.statistics().closed == {("sent", 1001): 3}
        assert server.statistics().lost == {}


@pytest.mark.parametrize("reads_on", [False, True])
async def test_who_closed_first_where_the_other_frame_waits_unread(
    reads_on: bool, autojump_clock: MockClock
) -> None:
    # This side gives up before it has seen that the peer has closed.
    caught: list[ConnectionClosedError] = []

    async def handler(ws: ServerConnection) -> None:
        await wait_all_tasks_blocked()
        ws._endpoint.fail(1008, "reads too slowly", None)
        with suppress(ConnectionClosedError):
            while reads_on:
                await ws.recv()
        await ws.wait_closed()
        caught.append(ws._endpoint.ending.error())

    listener = MemoryListener()
    async with open_server(handler, listeners=[listener], max_queue=4) as server:
        stream = listener.connect()
        much = frame(TEXT, b"hi", masked=True) * 2000
        close = frame(CLOSE, b"\x03\xe8", masked=True)
        await stream.send_all(raw_http.request())
        await raw_http.read_switch(stream)
        await stream.send_all(much + close)
        await trio.sleep(60)
        assert server.statistics().closed == {("sent", 1008): 1}
        assert server.statistics().lost == {}
    (exc,) = caught
    assert exc.sent == Close(1008, "reads too slowly")
    if reads_on:
        assert exc.rcvd == Close(1000)
        assert exc.rcvd_then_sent is False
        assert "then received 1000" in str(exc)


@pytest.mark.parametrize("step", ["make", "enter"])
async def test_a_connection_that_gets_no_scope_is_counted_and_waited_for(
    step: str, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[int | None] = []

    async def log_end(ws: ServerConnection) -> None:
        await ws.wait_closed()
        ended.append(ws.close_code)

    listener = MemoryListener()
    async with trio.open_nursery() as nursery:

        def hook(ws: ServerConnection, *_: object) -> None:
            nursery.start_soon(log_end, ws)

        async with open_server(
            wait, listeners=[listener], process_response=hook
        ) as server:
            name = "__init__" if step == "make" else "_enter_user_side"
            failing = fails_at(getattr(ConnectionScope, name), 1, MemoryError())
            monkeypatch.setattr(ConnectionScope, name, failing)
            peer = RawPeer(client=True)
            peer.stream = listener.connect()
            await peer.ask()
            await peer.skip_response()
            assert await peer.read() == close_frame(1011)
            await wait_all_tasks_blocked()
            assert ended == [1006]
            assert server.statistics().closed == {("sent", 1011): 1}
            assert server.statistics().lost == {}


async def test_an_attempt_that_was_never_entered_is_closed() -> None:
    listener = MemoryListener()
    async with open_server(wait, listeners=[listener]) as server:
        opening = connect("ws://t/", stream=listener.connect())
        ws, endpoint = await opening._open()
        await endpoint.abort()
        await ws.wait_closed()
        assert ws.state is State.CLOSED
        await wait_all_tasks_blocked()
        assert server.statistics().lost == {"EOFError": 1}


# What waits, and for how long


async def test_what_waits_in_a_connection_that_is_lost_is_not_counted(
    autojump_clock: MockClock,
) -> None:
    async def handler(ws: ServerConnection) -> None:
        with suppress(ConnectionClosedError):
            await ws.send(bytes(3_000_000))
            await ws.send(b"x")
        await trio.sleep_forever()

    listener = MemoryListener()
    async with open_server(handler, listeners=[listener], **CHANGES) as server:
        peer = server_peer()
        peer.takes = 1000
        listener.add(peer)
        await wait_all_tasks_blocked()
        peer.feed(frame(TEXT, b"hello", masked=True) * 5)
        await wait_all_tasks_blocked()
        now = server.statistics()
        assert (now.messages_waiting, now.connections) == (5, 1)
        assert now.bytes_unsent > 2_000_000
        (ws,) = server.connections
        peer.reset()
        await wait_all_tasks_blocked()
        now = server.statistics()
        assert now.connections == 0
        assert (now.messages_waiting, now.bytes_waiting, now.bytes_unsent) == (0, 0, 0)
        assert (ws.statistics().messages_waiting, ws.statistics().bytes_unsent) == (
            5,
            0,
        )
        assert ws._engine.outbox.next_buffers(1) == []  # nor kept


async def test_places_are_taken_until_handlers_end(autojump_clock: MockClock) -> None:
    async def busy(ws: ServerConnection) -> None:
        await ws.wait_closed()
        await trio.sleep(3)

    server, client = in_memory(busy, max_connections=2)
    async with server as running:
        for _ in range(2):
            async with client():
                pass
        await wait_all_tasks_blocked()
        now = running.statistics()
        assert (now.connections, now.handshakes, now.places_taken) == (0, 0, 2)
        with pytest.raises(InvalidStatus):
            async with client():
                raise AssertionError("unreachable")
        await trio.sleep(4)
        assert running.statistics().places_taken == 0
        async with client():
            assert running.statistics().places_taken == 1


def test_after_the_run() -> None:
    kept: list[Any] = []

    async def main() -> None:
        server, client = in_memory(echo)
        async with server as running, client() as ws:
            await ws.send("x")
            await ws.recv()
        kept[:] = running, ws, running.statistics(), ws.statistics()

    trio.run(main)
    server, ws, of_server, of_ws = kept
    assert server.statistics() == of_server
    assert ws.statistics() == of_ws
    assert of_ws.messages_sent == of_server.messages_received == 1


async def test_a_running_server_in_another_thread() -> None:
    server, _ = in_memory(wait)
    async with server as running:
        with pytest.raises(RuntimeError, match=r"statistics\(\) was called outside"):
            await trio.to_thread.run_sync(running.statistics)
