"""The open loop: messages go when they are due, whatever the server does meanwhile.

A schedule, made beforehand, says when each message is due and on which connection. A
message's latency counts from then, not from when it could be sent, so a server that
stalls is charged with all that waited for it (no coordinated omission).
"""

from __future__ import annotations

import gc
import random
import select
import socket
import statistics
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

LIMIT = 60.0  # seconds without anything from the server

#: The percentiles that are told.
PERCENTILES = ("p50", "p90", "p99", "p99.9")
STRETCHES = "p99 of a stretch"

#: So many messages in a row have 99 % of their own, of which the median is told, too.
#: Whoever stops both processes for some milliseconds, as the host of a virtual machine
#: does, is in few of these stretches, and in the 99 % of all.
STRETCH = 400

# The first part of the messages is not counted.
_WARM_UP = 1 / 8

# With so many seconds' worth of messages under way, sending stops.
MOST_UNDER_WAY = 0.25

# By so many seconds more than by a factor of two the median has to grow, from the
# second quarter of the messages to the last, to be a backlog's.
_GROWTH = 0.005


def schedule(
    rate: float, count: int, connections: int
) -> tuple[list[float], list[int]]:
    """Return when messages are due, in seconds, and on which connections.

    Poisson arrivals, of so many a second, the same whoever asks.
    """
    rng = random.Random(6455)
    due, now = [], 0.0
    for _ in range(count):
        now += rng.expovariate(rate)
        due.append(now)
    return due, [rng.randrange(connections) for _ in range(count)]


class OpenLoop:
    """Sends a frame by a schedule, and notes how long its echoes take.

    It never waits: to wake it would be the server's work, as part of its send.
    """

    def __init__(
        self, sockets: list[socket.socket], frame: bytes, expected: bytes
    ) -> None:
        self._sockets = sockets
        self._frame = frame
        self._expected = expected
        # When those under way were due, by connection, and what has come of an echo.
        self._waiting: list[deque[float]] = [deque() for _ in sockets]
        self._parts: dict[int, bytes] = {}
        self._latencies: list[float] = []
        self._lateness: list[float] = []  # of sending
        self._came = 0

    def run(self, rate: float, count: int) -> dict[str, Any]:
        due, where = schedule(rate, count, len(self._sockets))
        with select.epoll() as poll:
            for sock in self._sockets:
                sock.setblocking(False)
                poll.register(sock, select.EPOLLIN)
            gc.disable()
            try:
                carried, stopped = self._run(poll, due, where, rate)
            finally:
                gc.enable()
        return self._result(carried, stopped)

    def _run(
        self, poll: select.epoll, due: list[float], where: list[int], rate: float
    ) -> tuple[float, bool]:
        """Return how many echoes came a second while it sent; whether it gave up."""
        numbers = {sock.fileno(): n for n, sock in enumerate(self._sockets)}
        sends = [sock.send for sock in self._sockets]
        waiting, lateness, frame = self._waiting, self._lateness, self._frame
        clock, wait, read = time.perf_counter, poll.poll, self._read
        most = max(rate * MOST_UNDER_WAY, 1)
        count, sent, carried, stopped = len(due), 0, 0.0, False
        start = heard = clock()
        while self._came < count:
            now = clock() - start
            while sent < count and due[sent] <= now:
                number = where[sent]
                sends[number](frame)  # BlockingIOError: after thousands on each
                waiting[number].append(due[sent])
                lateness.append(now - due[sent])
                sent += 1
                if sent == count:
                    carried = self._came / now
            if sent < count and sent - self._came > most:
                count, stopped, carried = sent, True, self._came / now
            if events := wait(0, 64):
                for fd, _ in events:
                    read(numbers[fd], start)
                heard = clock()
            elif self._came < sent:
                assert clock() - heard < LIMIT, "the server says nothing"
        return carried, stopped

    def _read(self, number: int, start: float) -> None:
        data = self._sockets[number].recv(65536)
        now = time.perf_counter() - start
        expected, waiting = self._expected, self._waiting[number]
        if data == expected and number not in self._parts:
            self._latencies.append(now - waiting.popleft())
            self._came += 1
            return
        assert data, "the server has closed"
        data = self._parts.pop(number, b"") + data
        count, rest = divmod(len(data), len(expected))
        assert data == expected * count + expected[:rest], "wrong data"
        if rest:
            self._parts[number] = data[-rest:]
        for _ in range(count):
            self._latencies.append(now - waiting.popleft())
        self._came += count

    def _result(self, carried: float, stopped: bool) -> dict[str, Any]:
        """Return percentiles, in microseconds, and whether the rate was carried."""
        found = self._latencies[int(len(self._latencies) * _WARM_UP) :]
        quarter = len(self._latencies) // 4 or 1
        before, last = (
            statistics.median(self._latencies[part] or [0.0])
            for part in (slice(quarter, 2 * quarter), slice(-quarter, None))
        )
        stretches = [
            percentile(found[start : start + STRETCH], 99)
            for start in range(0, len(found) - STRETCH + 1, STRETCH)
        ]
        self._lateness.sort()
        return {
            **{name: percentile(found, float(name[1:])) for name in PERCENTILES},
            STRETCHES: statistics.median(stretches or [percentile(found, 99)]),
            "late": self._lateness[int(len(self._lateness) * 0.99)] * 1e6,
            "carried": carried,
            "backlog": stopped or last > 2 * before + _GROWTH,
        }


def percentile(seconds: list[float], percent: float) -> float:
    """Return what so many percent stay below, in microseconds."""
    return sorted(seconds)[int(len(seconds) * percent / 100)] * 1e6


def carries(times: Mapping[str, list[float]]) -> bool:
    """Whether most rounds had no backlog at the end."""
    return statistics.median(times["backlog"]) < 1
