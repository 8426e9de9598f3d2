"""What messages through Redis cost: messages a second, CPU and latency.

For 1, 2 and 4 processes, each with rooms of its own whose other member is on the next
process, so that with two or more each message goes from a client to a process, to
Redis, to another process and to its client, and also back to who sent it. The clients
share the machine: the CPU of a message carries over to others, the messages a second
and the latencies are this machine's, with whatever else it does.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import trio

from tests.programs.cluster.harness import Client, Cluster, Redis, installed, redis

ROOMS = 4  # of each process
WINDOW = 100  # messages of a room that are under way, at most
WORD = "x" * 64
TICK = os.sysconf("SC_CLK_TCK")


def cpu(pid: int) -> float:
    """Return the seconds of CPU that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


@dataclass
class Room:
    """A client that speaks, and one on the next process that listens."""

    sender: Client
    receiver: Client

    async def flood(self) -> None:
        base, sent = len(self.sender.got), 0
        while True:
            await self.sender.has(base + sent - WINDOW)
            await self.sender.say(WORD)
            sent += 1

    async def pace(self, every: float, latencies: list[float], count: int) -> None:
        for _ in range(count):
            due = len(self.receiver.got) + 1
            start = trio.current_time()
            await self.sender.say(WORD)
            await self.receiver.has(due)
            latencies.append(trio.current_time() - start)
            await trio.sleep_until(start + every)


async def open_rooms(
    stack: AsyncExitStack, clusters: list[Cluster]
) -> tuple[list[Room], trio.Nursery]:
    nursery = await stack.enter_async_context(trio.open_nursery())
    rooms = []
    for i, cluster in enumerate(clusters):
        other = clusters[(i + 1) % len(clusters)]
        for n in range(ROOMS):
            ends = [Client(c.port, f"r{i}-{n}", "c") for c in (cluster, other)]
            for client in ends:
                nursery.start_soon(client.run)
                await client.connected()
            rooms.append(Room(*ends))
    return rooms, nursery


async def measure(processes: int, seconds: float, server: Redis, folder: Path) -> str:
    async with AsyncExitStack() as stack:
        clusters = [
            Cluster(server.uri, folder / f"{processes}-{i}") for i in range(processes)
        ]
        for cluster in clusters:
            stack.enter_context(cluster.running(1))
        rooms, nursery = await open_rooms(stack, clusters)
        pids = [cluster.processes[0].pid for cluster in clusters]
        latencies: list[float] = []
        async with trio.open_nursery() as pacing:
            for room in rooms:
                every = len(rooms) / 100  # 100 messages a second, of all rooms
                count = math.ceil(seconds / every)
                pacing.start_soon(room.pace, every, latencies, count)
        async with trio.open_nursery() as flooding:
            for room in rooms:
                flooding.start_soon(room.flood)
            await trio.sleep(1)
            before = cpu(server.process.pid), sum(map(cpu, pids))
            had, start = sum(len(r.receiver.got) for r in rooms), trio.current_time()
            await trio.sleep(seconds)
            count = sum(len(r.receiver.got) for r in rooms) - had
            took = trio.current_time() - start
            after = cpu(server.process.pid), sum(map(cpu, pids))
            flooding.cancel_scope.cancel()
        redis_us, servers_us = (
            (b - a) / count * 1e6 for a, b in zip(before, after, strict=True)
        )
        nursery.cancel_scope.cancel()
    p50, p99 = (statistics.quantiles(latencies, n=100)[i] * 1e3 for i in (49, 98))
    return (
        f"{processes:9} {count / took:10,.0f} {redis_us:9.0f} {servers_us:13.0f}"
        f" {p50:8.1f} {p99:8.1f}"
    )


async def main(seconds: float) -> None:
    print(
        "processes messages/s  Redis us  processes us   p50 ms   p99 ms\n"
        "                            of CPU a message   at 100 messages/s"
    )
    for processes in (1, 2, 4):
        with tempfile.TemporaryDirectory() as name, redis(Path(name)) as server:
            await server.listening()
            print(await measure(processes, seconds, server, Path(name)), flush=True)
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, which others may use, too: load average {load:.1f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5)
    if not installed():
        sys.exit("needed: redis-server (on Debian: apt-get install redis-server)")
    trio.run(main, parser.parse_args().seconds)
