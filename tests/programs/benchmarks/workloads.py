"""What is measured: each workload by its group, its case, and who takes part."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from .load import Load
from .peers import (
    AIOHTTP,
    BARE_LOOP,
    CANCELLABLE,
    CHANNEL,
    PEERS,
    PICOWS,
    PURE,
    RAW_SOCKETS,
    RAW_TRIO,
    TRIO_WS,
    UVLOOP,
    WEBSOCKETS,
    WEBSOCKETS_TRIO,
    WITH_ISAL,
    Drive,
    Options,
    Peer,
)
from .texts import ROW, json_texts

Start = Callable[[Peer, Load], AbstractAsyncContextManager[Drive]]


@dataclass(frozen=True)
class Workload:
    group: str
    case: str
    start: Start
    peers: tuple[str, ...]
    #: In how many processes, one after the other, that do nothing but this; each
    #: has at least three rounds. 0: in the one that does all the rest.
    sessions: int = 0
    #: How often at least in a round; otherwise as often as fits its time.
    at_least: int = 1
    #: How many rounds at most.
    rounds: int = 1000
    #: How many of what is counted one operation has.
    per: int = 1


def name_of(size: int) -> str:
    for unit, name in (1 << 20, "MiB"), (1 << 10, "KiB"):
        if size >= unit:
            return f"{size // unit} {name}"
    return f"{size} B"


def sessions_for(size: int) -> int:
    """Return 3 for what takes up to twice as long with bad luck.

    What takes megabytes has good or bad luck with the caches as long as its process
    lives.
    """
    return 3 if size >= 1 << 16 else 0


# In one process, on one loop -----------------------------------------------------


def round_trip(size: int, *, tls: bool = False) -> Start:
    def start(peer: Peer, load: Load) -> AbstractAsyncContextManager[Drive]:
        return peer.round_trips(Options(size, tls=tls), [os.urandom(size)])

    return start


def one_way(size: int, *, from_client: bool) -> Start:
    def start(peer: Peer, load: Load) -> AbstractAsyncContextManager[Drive]:
        options = Options(size, max_size=size if size > 1 << 20 else None)
        return peer.one_way(options, os.urandom(size), from_client=from_client)

    return start


def compressed(size: int) -> Start:
    def start(peer: Peer, load: Load) -> AbstractAsyncContextManager[Drive]:
        texts = json_texts(64, size // ROW)
        return peer.round_trips(Options(size, deflate=True), texts)

    return start


def connects(peer: Peer, load: Load) -> AbstractAsyncContextManager[Drive]:
    return peer.connects(Options(200))


# A server in this process, clients in the load generator -------------------------


# The load generator answers no pings.


def saturated(
    connections: int, *, busy: int | None = None, spins: bool = False
) -> Start:
    @asynccontextmanager
    async def start(peer: Peer, load: Load) -> AsyncIterator[Drive]:
        size = 64

        async def drive(count: int) -> None:
            await peer.in_thread(
                lambda: load.ask(
                    "echo",
                    count=count,
                    size=size,
                    masked=peer.upgrades,
                    busy=busy,
                    spins=spins,
                )
            )

        async with peer.echo_server(Options(size, keepalive=False)) as port:
            await peer.in_thread(
                lambda: load.ask(
                    "open", port=port, count=connections, upgrade=peer.upgrades
                )
            )
            yield drive
            await peer.in_thread(lambda: load.ask("close"))

    return start


def two_cores() -> tuple[int, int] | None:
    """Return a core for the server and one for the load generator, if there are two.

    The first and the last: they are rarely halves of one.
    """
    if not hasattr(os, "sched_getaffinity"):
        return None
    cores = sorted(os.sched_getaffinity(0))
    return (cores[0], cores[-1]) if len(cores) > 1 else None


def paced(connections: int, rate: int) -> Start:
    @asynccontextmanager
    async def start(peer: Peer, load: Load) -> AsyncIterator[Drive]:
        size = 64
        cores = two_cores()

        async def drive(count: int) -> dict[str, Any]:
            found: dict[str, Any] = await peer.in_thread(
                lambda: load.ask(
                    "paced", rate=rate, count=count, size=size, masked=peer.upgrades
                )
            )
            return found | {"pinned": cores is not None}

        async with peer.echo_server(Options(size, keepalive=False)) as port:
            if cores is not None:
                os.sched_setaffinity(0, {cores[0]})
                await peer.in_thread(lambda: load.ask("pin", core=cores[1]))
            await peer.in_thread(
                lambda: load.ask(
                    "open", port=port, count=connections, upgrade=peer.upgrades
                )
            )
            yield drive
            await peer.in_thread(lambda: load.ask("close"))

    return start


def broadcast(connections: int) -> Start:
    @asynccontextmanager
    async def start(peer: Peer, load: Load) -> AsyncIterator[Drive]:
        size = 64
        options = Options(size, keepalive=False)

        async def drive(count: int) -> None:
            for _ in range(count):
                await send(bytes(size))
            await peer.in_thread(
                lambda: load.ask("read", count=count, size=size, masked=peer.upgrades)
            )

        async with peer.broadcasting(options) as (port, send):
            await peer.in_thread(
                lambda: load.ask(
                    "open", port=port, count=connections, upgrade=peer.upgrades
                )
            )
            await peer.sleep(0.1)  # the server may be behind its last answers
            yield drive
            await peer.in_thread(lambda: load.ask("close"))

    return start


def pieces(count: int, size: int, step: int = 0) -> Start:
    @asynccontextmanager
    async def start(peer: Peer, load: Load) -> AsyncIterator[Drive]:
        async def drive(times: int) -> None:
            for _ in range(times):
                await peer.in_thread(
                    lambda: load.ask("pieces", count=count, size=size, step=step)
                )

        async with peer.echo_server(Options(count * size, keepalive=False)) as port:
            await peer.in_thread(lambda: load.ask("open", port=port, count=1))
            yield drive
            await peer.in_thread(lambda: load.ask("close"))

    return start


# All of them ---------------------------------------------------------------------

SIZES = (32, 1 << 10, 1 << 16, 1 << 20)
NO_NETWORK = (CHANNEL, CANCELLABLE)
ALL = tuple(
    peer
    for peer in PEERS
    if peer not in (RAW_SOCKETS, BARE_LOOP, *NO_NETWORK, WITH_ISAL)
)
DEFLATING = (
    TRIO_WS,
    PURE,
    WITH_ISAL,
    WEBSOCKETS_TRIO,
    WEBSOCKETS,
    WEBSOCKETS + UVLOOP,
    AIOHTTP,
    AIOHTTP + UVLOOP,
    PICOWS,
    PICOWS + UVLOOP,
)

#: What takes part where a server has many connections.
SERVING = (
    RAW_TRIO,
    BARE_LOOP,
    TRIO_WS,
    WEBSOCKETS,
    WEBSOCKETS + UVLOOP,
    AIOHTTP,
    AIOHTTP + UVLOOP,
    PICOWS,
    PICOWS + UVLOOP,
)
#: Of so many messages a second all of them carry the most part, on most machines.
COMMON_RATE = 40_000
PACED_RATES = [COMMON_RATE * percent // 100 for percent in (20, 50, 80)]
PACED_SECONDS = 2

ROUND_TRIP = "round trip"
FROM_CLIENT, FROM_SERVER = "one way, client to server", "one way, server to client"
SATURATED, JSON, TLS = "saturated server", "compressed JSON", "TLS round trip"
CONNECT, BROADCAST = "connect, upgrade, close", "broadcast"
BY_CONNECTIONS, BY_MESSAGES = "growth with connections", "growth with messages"
BY_SIZE, BY_PIECES = "growth with size", "growth with pieces"
LATENCY = "latency"
LATENCY_ON = {count: f"{LATENCY}, {count:,} connections" for count in (100, 1000)}
# Those that aren't measured in turns.
MEMORY, FAIRNESS, PROFILES = "memory", "fairness", "profiles"

WORKLOADS = [
    *(
        Workload(
            ROUND_TRIP,
            name_of(size),
            round_trip(size),
            ALL,
            sessions=sessions_for(size),
        )
        for size in SIZES
    ),
    *(
        Workload(
            FROM_CLIENT if from_client else FROM_SERVER,
            name_of(size),
            one_way(size, from_client=from_client),
            (RAW_SOCKETS, *(NO_NETWORK if size == SIZES[0] else ()), *ALL),
            sessions=sessions_for(size),
        )
        for from_client in (True, False)
        for size in SIZES
        if size != 1 << 10
    ),
    *(
        Workload(
            SATURATED,
            f"32 connections, 64 B{', spinning' if spins else ''}",
            saturated(32, spins=spins),
            (BARE_LOOP, *ALL),
            at_least=1000,
        )
        for spins in (False, True)
    ),
    *(
        Workload(
            LATENCY_ON[connections],
            f"{rate:,}/s",
            paced(connections, rate),
            SERVING,
            sessions=1,
            at_least=rate * PACED_SECONDS,
            rounds=3,
        )
        for connections in LATENCY_ON
        for rate in PACED_RATES
    ),
    *(
        Workload(JSON, name_of(size), compressed(size), DEFLATING)
        for size in (1 << 10, 1 << 12, 1 << 14)
    ),
    *(
        Workload(TLS, name_of(size), round_trip(size, tls=True), ALL)
        for size in (32, 1 << 16)
    ),
    Workload(CONNECT, "once", connects, ALL),
    *(
        Workload(
            BROADCAST,
            f"{connections:,} connections, 64 B",
            broadcast(connections),
            (RAW_SOCKETS, TRIO_WS, PURE, WEBSOCKETS, WEBSOCKETS + UVLOOP),
            sessions=1,
        )
        for connections in (1000, 10_000)
    ),
    *(
        Workload(
            BY_CONNECTIONS,
            f"{connections:,}" if busy is None else f"{busy} busy of {connections:,}",
            saturated(connections, busy=busy),
            SERVING,
            sessions=1,
            at_least=max(2000, 3 * (busy or connections)),
            rounds=3,
        )
        for connections, busy in (
            *((count, None) for count in (1, 10, 100, 1000, 5000, 10_000)),
            (5000, 32),
        )
    ),
    *(
        Workload(
            BY_MESSAGES,
            f"{messages:,}",
            one_way(32, from_client=True),
            (TRIO_WS,),
            at_least=messages,
            rounds=3 if messages < 10**6 else 1,
        )
        for messages in (1000, 10_000, 100_000, 10**6)
    ),
    *(
        Workload(
            BY_SIZE,
            name_of(size),
            one_way(size, from_client=True),
            (RAW_SOCKETS, TRIO_WS),
            rounds=3,
            per=size >> 10,
        )
        for size in (1 << exponent for exponent in range(10, 25, 2))
    ),
    *(
        Workload(
            BY_PIECES,
            case,
            pieces(count, size, step),
            (TRIO_WS,),
            rounds=3,
            per=per,
        )
        for case, count, size, step, per in (
            ("6,000 fragments of 16 B", 6000, 16, 0, 6000),
            ("60,000 fragments of 16 B", 60_000, 16, 0, 60_000),
            ("4 KiB byte by byte", 1, 1 << 12, 1, 1 << 12),
            ("64 KiB byte by byte", 1, 1 << 16, 1, 1 << 16),
        )
    ),
]
