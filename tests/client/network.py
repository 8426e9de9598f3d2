"""A network for reconnect(): a server over memory streams, and failures."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from tests.peers.in_memory import MemoryListener
from trio_ws import Headers, InvalidStatus, Response, ServerConnection, open_server

URI = "ws://server/"


class Network:
    """What connects to URI: a server over memory streams, or a failure.

    ``script`` says what the next attempts meet with; after it they succeed.
    """

    def __init__(self) -> None:
        self.listener = MemoryListener()
        self.script: list[Exception | None] = []
        self.times: list[float] = []  # of the attempts
        self.streams: list[trio.abc.Stream] = []

    async def open(self) -> trio.abc.Stream:
        self.times.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        outcome = self.script.pop(0) if self.script else None
        if outcome is not None:
            raise outcome
        self.streams.append(self.listener.connect())
        return self.streams[-1]

    async def check_closed(self) -> None:
        for stream in self.streams:
            with pytest.raises(trio.ClosedResourceError):
                await stream.send_all(b"")

    @property
    def pauses(self) -> list[float]:
        return [b - a for a, b in itertools.pairwise(self.times)]


Handler = Callable[[ServerConnection], Awaitable[None]]


async def greet(ws: ServerConnection) -> None:
    await ws.send("hello")
    await ws.wait_closed()


async def greet_and_close(ws: ServerConnection) -> None:
    await ws.send("hello")
    await ws.aclose(1012, "restart")


@asynccontextmanager
async def served(
    network: Network, handler: Handler = greet, **options: Any
) -> AsyncIterator[None]:
    """Serve, and check that nothing is left of any connection."""
    async with open_server(handler, listeners=[network.listener], **options):
        await trio.testing.wait_all_tasks_blocked()
        before = trio.lowlevel.current_statistics().tasks_living
        yield
        await trio.testing.wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().tasks_living == before
    await network.check_closed()


def delays(*seconds: float) -> Callable[[], Iterator[float]]:
    return lambda: iter(seconds)


def no_delays() -> Iterator[float]:
    return itertools.repeat(0.0)


def refusal(status: int, **headers: str) -> InvalidStatus:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return InvalidStatus(Response(status, "", Headers(named)))
