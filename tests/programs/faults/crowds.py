"""Rows 10 to 12: many connections at once, stuck, idle, or at their end."""

from __future__ import annotations

import math
import random
import select
import signal
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import trio

from tests.programs.faults.harness import (
    KIB,
    MIB,
    Bound,
    Figures,
    Rows,
    Size,
    Victim,
    victim,
)
from tests.programs.rivals.adapters import HOST
from tests.programs.rivals.wire import CLOSE, PING, PONG, REQUEST, frame

rows = Rows()

Came = Callable[[int, int, bytes], None]


class Many:
    """Clients without tasks; what comes is told by number, opcode and payload."""

    def __init__(self, port: int, came: Came) -> None:
        self._port = port
        self._came = came
        self._poll = select.epoll()
        self.sockets: dict[int, socket.socket] = {}
        self._buffers: dict[int, bytes] = {}
        self.ended: dict[int, float] = {}

    async def come(self, path: str, count: int, receive_buffer: int = 0) -> None:
        """Open so many, in good order."""
        request = REQUEST.replace("GET /", f"GET {path}").encode()
        waiting = []
        for number in range(count):
            one = socket.socket()
            if receive_buffer:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            one.connect((HOST, self._port))
            one.sendall(request)
            waiting.append(one)
            if number % 50 == 49 or number == count - 1:
                await trio.sleep(0.01)
                for opened in waiting:
                    await self._opened(opened, reads=not receive_buffer)
                waiting = []

    async def _opened(self, one: socket.socket, reads: bool) -> None:
        one.settimeout(20)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            data = one.recv(1)  # what follows the head stays
            assert data, "refused"
            head += data
        one.setblocking(False)
        self.sockets[one.fileno()] = one
        self._buffers[one.fileno()] = b""
        if reads:
            self._poll.register(one, select.EPOLLIN)

    def look(self) -> int:
        """Take in what has come; return from how many."""
        found = self._poll.poll(0)
        for number, _ in found:
            try:
                data = self.sockets[number].recv(65536)
            except OSError:
                data = b""
            if data:
                self._parse(number, self._buffers[number] + data)
            else:
                self.leave(number)
        return len(found)

    def _parse(self, number: int, data: bytes) -> None:
        """Tell of each frame of a server, all of which are below 64 KiB."""
        at = 0
        while len(data) - at >= 2:
            size, head = data[at + 1] & 127, 2
            if size == 126:
                if len(data) - at < 4:
                    break
                size, head = int.from_bytes(data[at + 2 : at + 4]), 4
            if len(data) - at < head + size:
                break
            opcode = data[at] & 15
            payload = data[at + head : at + head + size]
            at += head + size
            if opcode == PING:
                self.send(number, PONG, payload)
            self._came(number, opcode, payload)
        if number in self._buffers:
            self._buffers[number] = data[at:]

    def send(self, number: int, opcode: int, payload: bytes) -> None:
        try:
            self.sockets[number].send(frame(opcode, payload, client=True))
        except OSError:
            pass  # look() will see

    def leave(self, number: int, *, reset: bool = False) -> None:
        """Close one."""
        one = self.sockets.pop(number)
        self._buffers.pop(number)
        self.ended[number] = time.perf_counter()
        if reset:
            linger = struct.pack("ii", 1, 0)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        one.close()

    def close(self) -> None:
        for number in list(self.sockets):
            self.leave(number, reset=True)
        self._poll.close()


async def look_until(many: Many, done: Callable[[], bool], seconds: float) -> None:
    """Take in what comes until all is done, or it is too late."""
    with trio.move_on_after(seconds):
        while not done():
            if many.look():
                await trio.lowlevel.checkpoint()
            else:
                await trio.sleep(0.0005)


# 10 ----------------------------------------------------------------------------

ALL, STUCK = 1000, 100
ROUNDS = 40


async def broadcasts(server: Victim, healthy: int, stuck: int) -> Figures:
    """Broadcast; return what share came, and how late the latest percent did."""
    late: list[float] = []

    def came(number: int, opcode: int, payload: bytes) -> None:
        if opcode == 2:
            late.append(time.perf_counter() - struct.unpack_from("d", payload)[0])

    many = Many(server.port, came)
    try:
        await many.come("/audience", healthy)
        await many.come("/stuck", stuck, receive_buffer=4 * KIB)
        for _ in range(120 if stuck else 10):  # until those are stuck
            await server.ask("broadcast", size=KIB)
            await look_until(many, lambda: False, 0.03)
        await look_until(many, lambda: False, 0.5)
        every: list[float] = []
        skipped = 0
        for _ in range(ROUNDS):
            late.clear()
            answer = await server.ask("broadcast", size=KIB)
            skipped += answer["skipped"]
            await look_until(many, lambda: len(late) >= healthy, 2)
            every += late
            await trio.sleep(0.01)
    finally:
        many.close()
    every.sort()
    return {
        "came": len(every) / (healthy * ROUNDS) * 100,
        "p99": every[len(every) * 99 // 100] * 1000,
        "skipped": skipped / max(stuck * ROUNDS, 1) * 100,
    }


@rows.add(
    "10",
    "broadcast() to 1,000 clients, 100 of which have stopped to read",
    Bound("of the messages, the healthy get", least=100, unit="%"),
    Bound("of those for the stuck, skipped are", least=100, unit="%"),
    Bound("p99 of the healthy, of what it is without", 1.2, "times", timed=True),
    others=(),
    why="websockets.trio has no broadcast()",
    seconds=90,
)
async def broadcast_to_stuck(library: str, size: Size) -> Figures:
    found: dict[int, list[Figures]] = {0: [], STUCK: []}
    for _ in range(2):  # the better of two: others are on the machine, too
        for stuck in found:
            async with victim(library, ping_interval=None) as server:
                found[stuck].append(await broadcasts(server, ALL - STUCK, stuck))
    without, with_them = (min(f["p99"] for f in found[n]) for n in (0, STUCK))
    return {
        "of the messages, the healthy get": min(f["came"] for f in found[STUCK]),
        "of those for the stuck, skipped are": min(f["skipped"] for f in found[STUCK]),
        "p99 of the healthy, of what it is without": with_them / without,
    }


# 11 ----------------------------------------------------------------------------

IDLE = {Size.QUICK: (100, 2), Size.NORMAL: (2000, 20), Size.LONG: (10_000, 600)}
COMING = {Size.QUICK: 200, Size.NORMAL: 4000, Size.LONG: 200_000}
AT_ONCE = 20


async def come_and_go(port: int, count: int) -> None:
    """Connect and close, many times; three of ten are aborted at any byte."""
    chance = random.Random(1)
    goodbye = frame(CLOSE, (1000).to_bytes(2), client=True)
    whole = REQUEST.replace("GET /", "GET /read").encode() + goodbye
    left = iter(range(count))

    async def client() -> None:
        for _ in left:
            stream = await trio.open_tcp_stream(HOST, port)
            async with stream:
                if chance.random() < 0.3:
                    await stream.send_all(whole[: chance.randrange(len(whole))])
                    linger = struct.pack("ii", 1, 0)
                    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                else:
                    await stream.send_all(whole)
                    async for _ in stream:
                        pass

    async with trio.open_nursery() as nursery:
        for _ in range(AT_ONCE):
            nursery.start_soon(client)


@rows.add(
    "11",
    "2,000 idle connections for 20 s with a ping every second, once the server has "
    "been stopped for most of a second, then 4,000 that come and go, three of ten "
    "aborted at any byte (at full length: 10,000 for ten minutes, with pings every "
    "20 s, and 200,000)",
    Bound("of the pings, came", least=90, unit="%", timed=True),
    Bound("CPU of the idle, of a core and 500 pings a second", 10, "%", timed=True),
    Bound("memory that drifts while idle", 1, "%"),
    Bound("descriptors left", 0),
    Bound("tasks left", 0),
    Bound("memory left, of a thousand that came", 0.2, "MiB"),
    seconds=120,
)
async def idle_and_gone(library: str, size: Size) -> Figures:
    count, seconds = IDLE[size]
    interval = 20 if size is Size.LONG else 1
    options = {"ping_interval": interval, "ping_timeout": 20, "watch": False}
    async with victim(library, **options) as server:
        await come_and_go(server.port, COMING[size] // 4)  # what is made once is there
        await trio.sleep(1)
        await server.ask("reset")
        base = await server.ask("reset")
        came = Counter[int]()
        many = Many(server.port, lambda number, opcode, payload: came.update([opcode]))
        try:
            await many.come("/read", count)
            # On a busy machine all may have to ping, and be answered, at once: memory
            # for that is used again, so it is no drift.
            server.process.send_signal(signal.SIGSTOP)
            await trio.sleep(0.8 * interval)
            server.process.send_signal(signal.SIGCONT)
            await look_until(many, lambda: False, 3 * interval)
            await server.ask("reset")
            start = await server.ask()
            came.clear()
            await look_until(many, lambda: False, seconds)
            end = await server.ask()
            pings = came[PING]
            await server.ask("reset")
            drifted = await server.ask()
        finally:
            many.close()
        # What the allocator keeps of so many at once is no leak.
        before = await settled(server, base)
        await come_and_go(server.port, COMING[size])
        left = await settled(server, base)
    drift = drifted["resident"] - start["resident"]
    return {
        "CPU of the idle, of a core and 500 pings a second": (
            (end["cpu"] - start["cpu"]) / max(pings, 1) * 500 * 100
        ),
        "of the pings, came": pings / (count * seconds / interval) * 100,
        "memory that drifts while idle": abs(drift) / start["resident"] * 100,
        "descriptors left": left["descriptors"] - base["descriptors"],
        "tasks left": left["tasks"] - base["tasks"],
        "memory left, of a thousand that came": (
            max(left["resident"] - before["resident"], 0) / MIB / COMING[size] * 1000
        ),
    }


async def settled(server: Victim, base: dict[str, Any]) -> dict[str, Any]:
    """Return what is left once those that went away have."""
    with trio.move_on_after(15):  # loss_grace, and a little
        await server.until("tasks", most=base["tasks"])
    await server.ask("reset")
    return await server.ask("reset")


# 12 ----------------------------------------------------------------------------

WINDOW, TIMEOUT, LAST = 3.0, 5.0, 3


@rows.add(
    "12",
    "SIGTERM to a server with 5,000 connections, each of which was just sent three "
    "messages; Server.aclose(spread=3, timeout=5)",
    Bound("connections accepted afterwards", 0),
    Bound("of three messages and 1001, all came to", least=100, unit="% of clients"),
    Bound("the first and the last 1001 are apart", least=WINDOW * 0.9, unit="s"),
    Bound("more than the window", 1.0, "s", timed=True),
    Bound("the process ends after", WINDOW + TIMEOUT, "s"),
    others=(),
    why="websockets.trio has no window",
    seconds=90,
)
async def sigterm(library: str, size: Size) -> Figures:
    count = 200 if size is Size.QUICK else 5000
    messages: dict[int, int] = {}
    goodbye: dict[int, float] = {}

    def came(number: int, opcode: int, payload: bytes) -> None:
        if opcode == CLOSE and payload[:2] == (1001).to_bytes(2):
            goodbye[number] = time.perf_counter()
            many.send(number, CLOSE, payload[:2])
        elif opcode == 2:
            messages[number] = messages.get(number, 0) + 1

    stopping = {"spread": WINDOW, "timeout": TIMEOUT}
    async with victim(library, stopping=stopping, watch=False) as server:
        many = Many(server.port, came)
        try:
            await many.come("/audience", count)
            for _ in range(LAST):
                await server.ask("broadcast", size=KIB)
            start = time.perf_counter()
            server.process.send_signal(signal.SIGTERM)
            await look_until(many, lambda: bool(goodbye), TIMEOUT)
            accepted = await accepts(server.port)
            await look_until(many, lambda: not many.sockets, WINDOW + TIMEOUT)
            with trio.move_on_after(TIMEOUT):
                await server.process.wait()
            ended = time.perf_counter() - start
        finally:
            many.close()
    times = sorted(goodbye.values()) or [start]
    whole = [n for n in goodbye if messages.get(n) == LAST]
    return {
        "connections accepted afterwards": accepted,
        "of three messages and 1001, all came to": len(whole) / count * 100,
        "the first and the last 1001 are apart": times[-1] - times[0],
        "more than the window": times[-1] - start - WINDOW,
        "the process ends after": ended if server.process.returncode == 0 else math.inf,
    }


async def accepts(port: int) -> int:
    """Whether one is let in still."""
    try:
        stream = await trio.open_tcp_stream(HOST, port)
    except OSError:
        return 0
    async with stream:
        return 1
