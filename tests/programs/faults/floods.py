"""Rows 4, 5 and 9: those who send, ask or come without end, and all the others."""

from __future__ import annotations

import math
import select
import socket
import ssl
import time
from dataclasses import dataclass, field

import trio

from tests.peers import wire
from tests.programs.faults.harness import (
    BARE,
    MIB,
    RIVAL,
    Bound,
    Figures,
    Rows,
    Size,
    Victim,
    opened,
    probed,
    victim,
)
from tests.programs.faults.memory import MASK, Deflated
from tests.programs.rivals.adapters import HOST
from tests.programs.rivals.wire import CLOSE, REQUEST, Wire

rows = Rows()

# 4 -----------------------------------------------------------------------------

FLOODERS = 4
BURST = 256 * 1024


def floods() -> dict[str, tuple[bytes, bytes]]:
    """Return what each flood begins with, and what it repeats."""
    empty = wire.frame(wire.BINARY, b"", key=MASK)
    start = wire.frame(wire.BINARY, bytes(16), fin=False, key=MASK)
    fragment = wire.frame(wire.CONT, bytes(16), fin=False, key=MASK)
    last = wire.frame(wire.CONT, bytes(16), key=MASK)
    fragments = start + fragment * 4000 + last
    ping = wire.frame(wire.PING, bytes(125), key=MASK)
    # No context taken over, or each message could not stand for all.
    context = Deflated()
    large = context.frame(wire.BINARY, bytes(MIB))
    return {
        "pings": (b"", ping * (BURST // len(ping))),
        "empty messages": (b"", empty * (BURST // len(empty))),
        "fragments": (b"", fragments * (BURST // len(fragments))),
        "compressed messages of 1 MiB": (large, large * (BURST // len(large))),
    }


async def flood(server: Victim, first: bytes, rest: bytes, deflate: bool) -> None:
    """Send without end; what comes back is read."""
    one = await opened(server.port, "/read", deflate=deflate)

    async def drain() -> None:
        try:
            async for _ in one.stream:
                pass
        except trio.BrokenResourceError:
            pass

    async with one.stream, trio.open_nursery() as nursery:
        nursery.start_soon(drain)
        try:
            await one.stream.send_all(first)
            while True:
                await one.stream.send_all(rest)
        except trio.BrokenResourceError:
            nursery.cancel_scope.cancel()  # the server has had enough


@rows.add(
    "4",
    "Four connections send without end: pings, empty messages, fragments of 16 bytes, "
    "compressed messages of 1 MiB; ten others want an echo every 20 ms",
    *(
        bound
        for kind in floods()
        for bound in (
            Bound(f"p99 of the others, {kind}", 5, "ms", over=BARE, timed=True),
            Bound(f"the loop is held, {kind}", 30, "ms of CPU", timed=True),
        )
    ),
    others=(RIVAL, BARE),
    seconds=60,
)
async def flooded(library: str, size: Size) -> Figures:
    figures: Figures = {}
    for kind, (first, rest) in floods().items():
        async with victim(library) as server, trio.open_nursery() as nursery:
            for _ in range(FLOODERS):
                # To trio's streams all bytes are the same.
                nursery.start_soon(flood, server, first, rest, library != BARE)
            await trio.sleep(0.5)
            await server.ask("reset")
            found = await probed(server, 3)
            facts = await server.ask()
            figures[f"p99 of the others, {kind}"] = found["p99"]
            figures[f"the loop is held, {kind}"] = facts["held"]
            nursery.cancel_scope.cancel()
    return figures


# 5 -----------------------------------------------------------------------------

OPEN_TIMEOUT = 4.0
HELLO = bytes.fromhex("160301020001")  # how a ClientHello begins


@dataclass
class Crowd:
    """Connections without a task of their own; notices when each is cut."""

    port: int
    count: int
    began: dict[int, float] = field(default_factory=dict)
    lasted: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sockets: dict[int, socket.socket] = {}
        self.poll = select.epoll()

    async def come(self) -> None:
        """Connect all, in about a second."""
        for number in range(self.count):
            one = socket.create_connection((HOST, self.port))
            one.setblocking(False)
            self.sockets[one.fileno()] = one
            self.began[one.fileno()] = time.perf_counter()
            self.poll.register(one, select.EPOLLIN | select.EPOLLRDHUP)
            if number % 50 == 0:
                await trio.sleep(0.005)

    def look(self) -> None:
        """Take in which have been answered or closed."""
        for number, _ in self.poll.poll(0):
            one = self.sockets[number]
            try:
                if one.recv(65536):
                    continue  # what it is told before
            except OSError:
                pass
            self.lasted.append(time.perf_counter() - self.began[number])
            self.leave(number)

    def leave(self, number: int) -> None:
        self.poll.unregister(number)
        self.sockets.pop(number).close()

    def close(self) -> None:
        for number in list(self.sockets):
            self.leave(number)
        self.poll.close()


async def watch(crowd: Crowd, drip: bytes, silent: int) -> None:
    """Wait until all have been cut; those that aren't silent send a byte a second."""
    dripping = dict(list(crowd.sockets.items())[silent:])
    sent: dict[int, int] = {}
    turn = 0
    while crowd.sockets:
        turn += 1
        for number, one in dripping.items():
            if number % 20 == turn % 20 and number in crowd.sockets:
                at = sent.get(number, 0)
                sent[number] = at + 1
                try:
                    one.send(drip[at : at + 1])
                except OSError:
                    pass  # look() will see
        crowd.look()
        await trio.sleep(0.05)


async def connects(
    port: int, taken: list[float], context: ssl.SSLContext | None
) -> None:
    """Open and close honest connections, one after the other."""
    while True:
        start = time.perf_counter()
        stream: trio.abc.Stream = await trio.open_tcp_stream(HOST, port)
        if context is not None:
            stream = trio.SSLStream(stream, context, server_hostname="localhost")
        await stream.send_all(REQUEST.replace("GET /", "GET /hold").encode())
        head = b""
        while b"\r\n\r\n" not in head:
            data = await stream.receive_some()
            assert data, "refused"
            head += data
        taken.append(time.perf_counter() - start)
        await trio.aclose_forcefully(stream)
        await trio.sleep(0.02)


async def besieged(library: str, count: int, silent: int, secured: bool) -> Figures:
    """Return how late connections were cut, and what honest ones took."""
    context = None
    if secured:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    dripped = HELLO if secured else REQUEST.encode()
    taken: list[float] = []
    async with victim(library, open_timeout=OPEN_TIMEOUT, secured=secured) as server:
        crowd = Crowd(server.port, count)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connects, server.port, taken, context)
                await crowd.come()
                with trio.move_on_after(3 * OPEN_TIMEOUT):
                    await watch(crowd, dripped, silent)
                nursery.cancel_scope.cancel()
            late = max(crowd.lasted, default=math.inf) - OPEN_TIMEOUT
            early = OPEN_TIMEOUT - min(crowd.lasted, default=0)
            if crowd.sockets:
                late = 3 * OPEN_TIMEOUT
        finally:
            crowd.close()
    taken.sort()
    return {
        "cut": max(late, early),
        "p99": taken[len(taken) * 99 // 100] * 1000,
    }


# How many of them are silent, whether in place of TLS, and p99 at most.
KINDS = {
    "silent": (5000, False, 250),
    "dripping": (0, False, 250),
    "half of each, TLS": (2500, True, 500),
}


@rows.add(
    "5",
    "5,000 clients open a connection and say nothing, or a byte a second, before the "
    "request or before TLS; an honest client connects again and again",
    *(
        bound
        for kind, (_, _, most) in KINDS.items()
        for bound in (
            Bound(
                f"cut off from open_timeout, {kind}", 0.5, "s", over=BARE, timed=True
            ),
            Bound(
                f"p99 of an honest client, {kind}", most, "ms", over=BARE, timed=True
            ),
        )
    ),
    others=(RIVAL, BARE),
    seconds=90,
)
async def slow_handshakes(library: str, size: Size) -> Figures:
    figures: Figures = {}
    for kind, (silent, secured, _) in KINDS.items():
        if library == RIVAL and kind == "silent":
            continue  # what drips asks more of all
        found = await besieged(library, 5000, silent, secured)
        figures[f"cut off from open_timeout, {kind}"] = found["cut"]
        figures[f"p99 of an honest client, {kind}"] = found["p99"]
    return figures


# 9 -----------------------------------------------------------------------------

CLIENTS, DESCRIPTORS = 400, 256


async def no_descriptors(library: str, size: Size) -> Figures:
    async with victim(library, ping_interval=None) as server:
        await server.ask("descriptors", most=DESCRIPTORS)
        figures: Figures = {}
        async with trio.open_nursery() as nursery:

            async def probe() -> None:
                found = await probed(server, 4)
                figures["p99 of those connected"] = found["p99"]

            nursery.start_soon(probe)
            await trio.sleep(1)  # the probe has its connections
            crowd = [await knock(server.port) for _ in range(CLIENTS)]
            await trio.sleep(1)
            start = time.perf_counter()
            for one in crowd:
                reset(one)
            last = await opened(server.port, "/echo")
            figures["accepts again after"] = time.perf_counter() - start
            await last.send(CLOSE, (1000).to_bytes(2))
            await last.read()
        facts = await server.ask()
        figures["lines in the log"] = facts["logged"]
        return figures


async def knock(port: int) -> trio.SocketStream:
    """Ask for a connection, and don't wait for the answer."""
    stream = await trio.open_tcp_stream(HOST, port)
    await stream.send_all(REQUEST.replace("GET /", "GET /hold").encode())
    return stream


def reset(stream: trio.SocketStream) -> None:
    Wire(stream, client=True).reset()


rows.add(
    "9",
    "A server with 256 descriptors and 400 clients more than ten that are served; then "
    "the 400 go away at once",
    Bound("p99 of those connected", 5, "ms", over=BARE, timed=True),
    Bound("accepts again after", 0.2, "s", over=BARE, timed=True),
    Bound("lines in the log", 1),
    others=(RIVAL, BARE),
)(no_descriptors)
