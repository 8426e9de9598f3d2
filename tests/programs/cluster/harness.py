"""A cluster for tests and figures: Redis servers, processes, clients that come back."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
from binascii import crc_hqx
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import trio

from examples.cluster.__main__ import free_port, redis_command
from trio_ws import ClientConnection, ConnectionClosed, reconnect

ROOT = Path(__file__).parents[3]
HOST = "127.0.0.1"
# For three nodes: what is lost with one is the rooms that it has.
CLUSTERED = [
    *("--cluster-enabled", "yes", "--cluster-require-full-coverage", "no"),
    *("--cluster-node-timeout", "1000"),
]


class Redis:
    """A redis-server that can be killed and started again."""

    def __init__(self, folder: Path, *options: str) -> None:
        folder.mkdir()
        self.port = free_port()
        self.uri = f"redis://{HOST}:{self.port}"
        self._command = redis_command(self.port, str(folder), *options)
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    async def listening(self) -> None:
        while True:
            try:
                stream = await trio.open_tcp_stream(HOST, self.port)
            except OSError:
                await trio.sleep(0.02)
            else:
                return await stream.aclose()

    async def in_cluster(self) -> None:
        """Wait until it takes what it is asked; after a restart that takes it 2 s."""
        command = ["redis-cli", "-p", str(self.port), "cluster", "info"]
        while True:
            info = await trio.run_process(command, capture_stdout=True)
            if b"cluster_state:ok" in info.stdout:
                return
            await trio.sleep(0.05)


def node_of(room: str) -> int:
    """Return which of three nodes has a room, as redis-cli deals them out."""
    return crc_hqx(room.encode(), 0) % 16384 * 3 // 16384


@contextmanager
def redis(folder: Path) -> Iterator[Redis]:
    """Run a Redis while a block runs."""
    server = Redis(folder / "redis")
    try:
        yield server
    finally:
        server.kill()


@asynccontextmanager
async def redis_cluster(folder: Path) -> AsyncGenerator[list[Redis]]:
    """Run a Redis Cluster of three nodes, without replicas, while a block runs."""
    nodes = [Redis(folder / f"node{i}", *CLUSTERED) for i in range(3)]
    try:
        for node in nodes:
            await node.listening()
        addresses = [f"{HOST}:{node.port}" for node in nodes]
        create = ["redis-cli", "--cluster", "create", *addresses, "--cluster-yes"]
        await trio.run_process(create, capture_stdout=True)
        for node in nodes:
            await node.in_cluster()
        yield nodes
    finally:
        for node in nodes:
            node.kill()


class Cluster:
    """The processes of the example, on one port."""

    def __init__(self, redis: str, log: Path) -> None:
        self.port = free_port()
        self.processes: list[subprocess.Popen[str]] = []
        self.log = log
        self._redis = redis

    @contextmanager
    def running(self, count: int) -> Iterator[None]:
        command = [sys.executable, "-m", "examples.cluster.server"]
        command += [self._redis, str(self.port)]
        with self.log.open("w") as log:
            try:
                self.processes = [
                    subprocess.Popen(
                        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True
                    )
                    for _ in range(count)
                ]
                for process in self.processes:
                    assert process.stdout is not None
                    line = process.stdout.readline()
                    assert line.startswith("serving"), self.log.read_text()
                yield
            finally:
                for process in self.processes:
                    process.kill()
                    process.communicate()

    def kill(self, process: subprocess.Popen[str]) -> None:
        process.send_signal(signal.SIGKILL)
        process.wait()


class Client:
    """A member of a room that comes back, and writes down what it gets."""

    def __init__(self, port: int, room: str, name: str) -> None:
        self.name = name
        self.uri = f"ws://{HOST}:{port}/{room}?name={name}"
        self.got: list[tuple[str, str]] = []  # IDs, and what was said
        self.ws: ClientConnection | None = None
        self.connections = 0
        self._changed = trio.Event()

    async def run(self) -> None:
        delays = lambda: itertools.repeat(0.2)  # noqa: E731
        async for attempt in reconnect(self.uri, reconnect_delays=delays):
            async with attempt as ws:
                await ws.send(self.got[-1][0] if self.got else "0")
                self.connections += 1
                self.ws = ws
                self._wake()
                async for message in ws:
                    id_, _, text = str(message).partition(" ")
                    self.got.append((id_, text))
                    self._wake()
            self.ws = None

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def say(self, text: str) -> None:
        assert self.ws is not None
        await self.ws.send(text)

    async def answers(self) -> bool:
        """Whether the other end is there."""
        if self.ws is None:
            return False
        try:
            await self.ws.ping()
        except ConnectionClosed:
            return False
        return True

    async def connected(self, times: int = 1) -> None:
        while self.connections < times:
            await self._changed.wait()

    async def has(self, count: int) -> None:
        while len(self.got) < count:
            await self._changed.wait()


@asynccontextmanager
async def clients(
    port: int, room: str, count: int, prefix: str = "c"
) -> AsyncGenerator[list[Client]]:
    """Have connected clients in a room while a block runs."""
    made = [Client(port, room, f"{prefix}{i}") for i in range(count)]
    async with trio.open_nursery() as nursery:
        for client in made:
            nursery.start_soon(client.run)
        for client in made:
            await client.connected()
        yield made
        nursery.cancel_scope.cancel()


def check(clients: list[Client], texts: set[str]) -> None:
    """Each has had all of these, once, in the same order as all others."""
    first = [text for _, text in clients[0].got]
    assert len(first) == len(set(first)), "something came twice"
    assert set(first) >= texts, f"lost: {texts - set(first)}"
    for client in clients:
        assert client.got == clients[0].got, f"{client.name} has another order"


def installed() -> bool:
    """Whether there is what this needs: redis-server, redis-cli, SO_REUSEPORT."""
    programs = shutil.which("redis-server") and shutil.which("redis-cli")
    return bool(programs) and hasattr(socket, "SO_REUSEPORT") and os.name == "posix"
