"""examples/cluster with a real redis-server; make cluster has what takes longer."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest
import trio

from examples.cluster.redis_link import open_client
from examples.cluster.rooms import PUBLISH, Room, open_rooms
from examples.cluster.server import chat
from tests.processes import ran
from tests.programs.cluster.harness import (
    Cluster,
    Redis,
    check,
    clients,
    installed,
    redis,
)
from trio_ws import ClientConnection, ConnectionClosedError, connect, open_server
from trio_ws.testing import open_pair

needs_redis = pytest.mark.skipif(
    not installed(), reason="no redis-server: apt-get install redis-server"
)
# coredis closes its connections, but not the streams of those that never opened.
pytestmark = pytest.mark.filterwarnings("ignore:Unclosed <MemoryObject:ResourceWarning")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Redis]:
    with redis(tmp_path) as server:
        yield server


@needs_redis
@pytest.mark.realtime(seconds=2)
async def test_clients_of_several_processes(server: Redis, tmp_path: Path) -> None:
    with trio.fail_after(60):
        await server.listening()
        cluster = Cluster(server.uri, tmp_path / "log")
        with cluster.running(2):
            async with clients(cluster.port, "tea", 12) as members:
                for i in range(12):
                    await members[i].say(f"word {i}")
                said = {f"c{i}: word {i}" for i in range(12)}
                # Redis away, and back: what is said meanwhile comes.
                server.kill()
                await members[0].say("away")
                said.add("c0: away")
                await trio.sleep(0.3)
                server.start()
                for member in members:
                    await member.has(len(said))
                check(members, said)
                assert {member.connections for member in members} == {1}
                # A process is killed: its clients are back on the other.
                cluster.kill(cluster.processes[0])
                gone = [member for member in members if not await member.answers()]
                for member in gone:
                    await member.connected(2)
                await members[0].say("after")
                for member in members:
                    await member.has(len(said) + 1)
                check(members, {*said, "c0: after"})
    assert "is back after" in (tmp_path / "log").read_text()


@needs_redis
async def test_history_and_presence(server: Redis) -> None:
    await server.listening()
    async with open_rooms(server.uri, history=3) as rooms, open_pair() as (client, ws):
        async with rooms.join(ws, "}t/e a{", "alice") as room:
            for i in range(5):
                await room.send(f"{i}")
                assert str(await client.recv()).endswith(f" {i}")
            last = room.log[-2][0]
            async with open_pair() as (other, their_ws):
                async with rooms.join(their_ws, "}t/e a{", "bob b."):
                    got = [str(await other.recv()).split(" ")[1] for _ in range(3)]
                    assert got == ["2", "3", "4"]
                    while await rooms.here(room) != {"alice", "bob b."}:
                        await trio.lowlevel.checkpoint()
            async with open_pair() as (again, their_ws):
                async with rooms.join(their_ws, "}t/e a{", "bob", last):
                    assert str(await again.recv()).endswith(" 4")
    # Another process, which knows nothing of the room yet.
    async with open_rooms(server.uri, history=3) as rooms, open_pair() as (client, ws):
        async with rooms.join(ws, "}t/e a{", "carol"):
            got = [str(await client.recv()).split(" ")[1] for _ in range(3)]
            assert got == ["2", "3", "4"]


@needs_redis
async def test_what_is_published_again_is_there_once(server: Redis) -> None:
    await server.listening()
    room = Room("tea", 10, 10)
    keys = [room.key, f"{room.key}:count", f"{room.key}:by:{room.origin}"]
    async with open_client(server.uri) as client:
        publish = client.register_script(PUBLISH)
        await publish(keys, [1, 10, 60, "one", "two"])
        await publish(keys, [1, 10, 60, "one", "two"])
        await publish(keys, [2, 10, 60, "two", "three"])
        found = await client.xrange(room.key, "-", "+")
        texts = [entry.field_values[b"t"] for entry in found]
        assert texts == [b"one", b"two", b"three"]


@needs_redis
async def test_what_is_lost_is_counted(
    server: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    await server.listening()
    async with open_rooms(server.uri) as rooms, open_pair() as (client, ws):
        async with rooms.join(ws, "tea", "alice") as room:
            await room.send("first")
            assert str(await client.recv()).endswith(" first")
            # As if seven had come and gone while this process was cut off.
            await rooms.client.incrby(f"{room.key}:count", 7)
            await room.send("last")
            assert str(await client.recv()).endswith(" last")
            assert rooms.lost == 7
            # Redis begins anew; that is logged, and nobody knows how much it had.
            await rooms.client.flushall()
            await room.send("again")
            assert str(await client.recv()).endswith(" again")
            assert rooms.lost == 7
    errors = [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR]
    assert errors == [
        "ws:{tea}: 7 lost between messages 1 and 9",
        "ws:{tea}: 0 lost between messages 9 and 1",
    ]


@needs_redis
async def test_who_reads_too_slowly_is_closed_and_holds_nobody(server: Redis) -> None:
    await server.listening()
    async with AsyncExitStack() as stack:
        rooms = await stack.enter_async_context(open_rooms(server.uri))
        handler = partial(chat, rooms)
        serving = open_server(handler, 0, host="127.0.0.1", compression=None)
        port = (await stack.enter_async_context(serving)).port
        uri = f"ws://127.0.0.1:{port}/tea"
        quick = await stack.enter_async_context(connect(uri))
        async with connect(uri, max_queue=1) as slow:
            for ws in slow, quick:
                await ws.send("0")
            # Sockets buffer some megabytes.
            while not rooms.slow_clients:
                await quick.send("x" * 500_000)
                assert len(await quick.recv()) > 500_000
            with pytest.raises(ConnectionClosedError, match="1008"):
                await drain(slow)


async def drain(ws: ClientConnection) -> None:
    async for _ in ws:
        pass


def command(*arguments: str, path: str | None = None) -> str:
    """Run the example's command, which fails; return the line that it prints."""
    environment = dict(os.environ) if path is None else {**os.environ, "PATH": path}
    result = ran("-m", "examples.cluster", *arguments, env=environment)
    assert result.returncode == 1
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return line


def test_no_redis_server(tmp_path: Path) -> None:
    line = command(path=str(tmp_path))
    assert line.startswith("redis-server is missing: apt-get install redis-server")


def test_no_redis_answers() -> None:
    uri = "redis://127.0.0.1:1"
    assert command("--redis", uri) == f"no Redis answers at {uri}: is it running there?"
