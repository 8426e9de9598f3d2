"""Delays that spare a server which comes back."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
import trio
import trio.testing

from trio_ws import backoff, reconnect
from trio_ws._client import reconnect as _reconnect
from trio_ws._client import retrying
from trio_ws._client.dialer import Dialer

URI = "ws://server/"


def test_backoff() -> None:
    limits = [5.0]
    while limits[-1] < 30:
        limits.append(min(limits[-1] * 1.1, 30))
    limits += [30.0] * 20
    rows = [list(itertools.islice(backoff(), len(limits))) for _ in range(200)]
    for limit, column in zip(limits, zip(*rows, strict=True), strict=True):
        # Full jitter: from 0 to the limit, evenly.
        assert 0 <= min(column) < 0.2 * limit
        assert 0.8 * limit < max(column) <= limit
        assert 0.4 * limit < sum(column) / len(column) < 0.6 * limit


CLIENTS = 2000
TICK = 0.02
WINDOW = 0.1


class FakeConnection:
    """What is known of a connection while nothing happens on it but its end."""

    def __init__(self, lost: trio.Event) -> None:
        self.lost = lost
        self.ending = self

    def error(self) -> str:
        return "lost"


class FakeScope(AbstractAsyncContextManager[None]):
    def __init__(self, connection: FakeConnection, endpoint: FakeConnection) -> None:
        pass

    async def __aexit__(self, *_: object) -> None:
        pass


class FakeServer:
    """A server that restarts: who opens a connection meanwhile is refused."""

    def __init__(self) -> None:
        self.up = True
        self.lost = trio.Event()
        self.attempts: list[float] = []
        self.connected = 0

    async def open(self) -> tuple[FakeConnection, FakeConnection]:
        self.attempts.append(trio.current_time())
        if not self.up:
            raise ConnectionRefusedError
        connection = FakeConnection(self.lost)
        return connection, connection  # which is its own endpoint, too

    def lose_all(self) -> None:
        lost, self.lost = self.lost, trio.Event()
        self.connected = 0
        self.attempts.clear()
        lost.set()

    async def client(self) -> None:
        async for attempt in reconnect(URI):
            async with attempt as ws:
                connection: Any = ws
                self.connected += 1
                await connection.lost.wait()


async def restart(
    clock: trio.testing.MockClock, server: FakeServer, down: float
) -> tuple[Sequence[float], float]:
    """Return when attempts were made after the loss, and when all were back."""
    clock.jump(1000)  # while all are connected
    assert server.connected == CLIENTS
    begin = trio.current_time()
    server.lose_all()
    for tick in itertools.count():
        server.up = tick * TICK >= down
        await trio.testing.wait_all_tasks_blocked()
        if server.connected == CLIENTS:
            break
        assert tick * TICK < down + 200
        clock.jump(TICK)
    return [at - begin for at in server.attempts], tick * TICK


def busiest(times: Sequence[float]) -> int:
    """Return how many there are in the fullest window."""
    first = most = 0
    for last, at in enumerate(times):
        while times[first] <= at - WINDOW + TICK / 2:
            first += 1
        most = max(most, last - first + 1)
    return most


async def test_a_server_that_restarts_is_not_stormed(
    mock_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = FakeServer()

    async def open_connection(_: Dialer) -> tuple[FakeConnection, FakeConnection]:
        return await server.open()

    monkeypatch.setattr(Dialer, "open", open_connection)
    monkeypatch.setattr(_reconnect, "ConnectionScope", FakeScope)
    monkeypatch.setattr(retrying, "random", random.Random(1))
    async with trio.open_nursery() as nursery:
        for _ in range(CLIENTS):
            nursery.start_soon(server.client)
        await trio.testing.wait_all_tasks_blocked()
        for down in (0, 2, 10, 30):
            times, took = await restart(mock_clock, server, down)
            mean = len(times) * WINDOW / took
            assert busiest(times) <= 3 * mean, down
            assert took <= down + 60
        nursery.cancel_scope.cancel()
