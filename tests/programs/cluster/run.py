"""The cluster under what happens to clusters: make cluster.

Each scenario says what held, and how long it took; the first thing that does not hold
ends the program with its traceback. Figures are of figures.py.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import trio

from tests.programs.cluster.harness import (
    Client,
    Cluster,
    Redis,
    check,
    clients,
    installed,
    node_of,
    redis,
    redis_cluster,
)

PROCESSES, CLIENTS = 3, 300


async def say_all(senders: list[Client], words: list[str]) -> set[str]:
    """Have each of them say all of the words; return what all are to get."""
    for word in words:
        for sender in senders:
            await sender.say(word)
    return {f"{sender.name}: {word}" for sender in senders for word in words}


async def have_all(members: list[Client], texts: set[str]) -> None:
    for member in members:
        await member.has(len(texts))
    check(members, texts)


@asynccontextmanager
async def crowd(folder: Path) -> AsyncIterator[tuple[Redis, Cluster, list[Client]]]:
    """Redis, the processes, and all clients in one room, while a block runs."""
    with redis(folder) as server:
        await server.listening()
        cluster = Cluster(server.uri, folder / "log")
        with cluster.running(PROCESSES):
            async with clients(cluster.port, "tea", CLIENTS) as members:
                yield server, cluster, members


async def messages(folder: Path) -> None:
    """A message to one process reaches all clients of all, once, in order."""
    async with crowd(folder) as (_, cluster, members):
        said = await say_all(members[:10], [f"word {i}" for i in range(10)])
        await have_all(members, said)
        async with clients(cluster.port, "tea", 1, "late") as (late,):
            await late.has(100)
            assert late.got == members[0].got[-100:]


async def redis_killed(folder: Path) -> None:
    """Redis is killed for 5 s: connections stay, and what was said in between comes."""
    async with crowd(folder) as (server, _, members):
        said = await say_all(members[:10], ["before"])
        await have_all(members, said)
        server.kill()
        ends = trio.current_time() + 5
        said |= await say_all(members[:10], [f"away {i}" for i in range(5)])
        for member in members:
            assert member.ws is not None
            with trio.fail_after(2):
                await member.ws.ping()
        await trio.sleep_until(ends)
        server.start()
        await server.listening()
        back = trio.current_time()
        await have_all(members, said)
        took = trio.current_time() - back
        print(f"  all is there {took:.2f} s after Redis is back")
        assert took < 2
        assert {member.connections for member in members} == {1}
    log = (folder / "log").read_text()
    assert log.count("is lost") == log.count("is back") == PROCESSES, log


async def process_killed(folder: Path) -> None:
    """A process is killed: its clients are back on others, and have missed nothing."""
    async with crowd(folder) as (_, cluster, members):
        said = await say_all(members[:10], ["before"])
        await have_all(members, said)
        start = trio.current_time()
        cluster.kill(cluster.processes[0])
        stayed = [member for member in members if await member.answers()]
        said |= await say_all(stayed[:10], ["meanwhile"])
        gone = [member for member in members if member not in stayed]
        for member in gone:
            await member.connected(2)
        took = trio.current_time() - start
        print(f"  {len(gone)} clients are back after {took:.2f} s")
        assert 0 < len(gone) < CLIENTS
        said |= await say_all(members[:10], ["after"])
        await have_all(members, said)


async def node_killed(folder: Path) -> None:
    """Of a Redis Cluster, one node of three is killed: the rooms of others go on."""
    names = sorted((f"room{i}" for i in range(100)), key=node_of)
    async with AsyncExitStack() as stack:
        nodes = await stack.enter_async_context(redis_cluster(folder))
        cluster = Cluster(nodes[1].uri, folder / "log")
        stack.enter_context(cluster.running(PROCESSES))
        groups = [
            await stack.enter_async_context(clients(cluster.port, name, 100))
            for name in (names[0], names[50], names[99])  # one of each node
        ]
        said = [await say_all(group[:5], ["before"]) for group in groups]
        for group, texts in zip(groups, said, strict=True):
            await have_all(group, texts)
        nodes[0].kill()
        ends = trio.current_time() + 5
        for group, texts in zip(groups, said, strict=True):
            texts |= await say_all(group[:5], ["away"])
        with trio.fail_after(2):
            await have_all(groups[1], said[1])
            await have_all(groups[2], said[2])
        assert len(groups[0][0].got) == 5
        await trio.sleep_until(ends)
        nodes[0].start()
        await nodes[0].listening()
        await nodes[0].in_cluster()
        back = trio.current_time()
        await have_all(groups[0], said[0])
        took = trio.current_time() - back
        print(f"  all is there {took:.2f} s after the node is back")
        assert took < 2
        assert {member.connections for group in groups for member in group} == {1}


SCENARIOS: list[Callable[[Path], Awaitable[None]]] = [
    messages,
    redis_killed,
    process_killed,
    node_killed,
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="of scenarios; all")
    names = parser.parse_args().names
    if not installed():
        sys.exit("needed: redis-server (on Debian: apt-get install redis-server)")
    for scenario in SCENARIOS:
        if names and scenario.__name__ not in names:
            continue
        start = time.monotonic()
        print(scenario.__doc__, flush=True)
        with tempfile.TemporaryDirectory() as folder:
            trio.run(bounded, scenario, Path(folder))
        print(f"  holds ({time.monotonic() - start:.1f} s)", flush=True)


async def bounded(scenario: Callable[[Path], Awaitable[None]], folder: Path) -> None:
    try:
        with trio.fail_after(60):
            await scenario(folder)
    except BaseException:
        log = folder / "log"
        print(log.read_text() if log.exists() else "no log", file=sys.stderr)
        raise


if __name__ == "__main__":
    main()
