"""What ws.statistics() and server.statistics() tell, while it lasts and afterwards."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import pytest
import trio
from trio.testing import MockClock, lockstep_stream_pair, wait_all_tasks_blocked

from tests.handlers import echo, wait
from tests.peers import raw_http
from tests.peers.in_memory import MemoryListener
from tests.server.serving import ask, in_memory
from trio_ws import (
    ConnectionClosed,
    InvalidStatus,
    Server,
    ServerConnection,
    broadcast,
    connect,
    open_server,
)
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
        assert kept(server) == {"accepted": 1, "handshakes": 1}
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
