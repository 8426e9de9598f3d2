"""Row 7: a network or a peer that fails, idle and at work."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import trio

from tests.peers.certificates import contexts
from tests.programs.faults.emulator import Weather
from tests.programs.faults.harness import (
    HERE,
    OURS,
    Bound,
    Figures,
    Rows,
    Size,
    Skipped,
    victim,
)
from tests.programs.faults.relay import Relay
from tests.programs.faults.tunnel import CLIENT, SERVER, Networks, tunnel
from tests.programs.faults.ways import Way, trusting
from tests.programs.rivals.adapters import HOST, Options

rows = Rows()

INTERVAL, TIMEOUT, CLOSING = 1.0, 1.0, 1.0
OPTIONS = Options(INTERVAL, TIMEOUT, CLOSING, loss_grace=0.3)
BRISK = Options(0.05, 0.05, 0.05)  # where it has to be over soon
BLOCK, PAUSE = 65536, 0.02
# In units of the close_timeout: for how long a connection is used before a fault, which
# is just after a ping has been answered, and how long one looks on afterwards.
SETTLED, ENOUGH = 1.1, 5.0

# 7 -----------------------------------------------------------------------------

DOING = ("idle", "sending", "pushing")
RELAYED = ("reset", "half-close", "black hole")
LINKED = (
    "black hole",
    "MTU black hole",
    "client without power",
    "server without power",
)
LONGEST = 600  # bytes of packets that an MTU black hole lets through
WAYS = Way(OURS), Way(OURS, secured=True)


@dataclass
class End:
    """When one end was told of the loss, and when it had left."""

    began: float = math.nan  # that the fault did
    told: float = math.nan
    left: float = math.nan


async def use(ws: Any, sends: bool) -> None:
    """Send, or receive, until that raises."""
    while True:
        if sends:
            await ws.send(bytes(BLOCK))
            await trio.sleep(PAUSE)
        else:
            await ws.recv()


@dataclass
class Pair:
    """A client and a server on a connection that breaks."""

    way: Way
    fault: str
    doing: str
    options: Options
    client: End = field(default_factory=End)
    server: End = field(default_factory=End)
    opened: trio.Event = field(default_factory=trio.Event)  # the server's end
    over: trio.Event = field(default_factory=trio.Event)  # both ends have left

    @property
    def lives(self) -> bool:
        """Whether nothing that it does suffers from the fault."""
        return self.fault == "MTU black hole" and self.doing == "idle"

    async def serve(self, listener: trio.SocketListener) -> None:
        """Serve until cancelled."""
        async with trio.open_nursery() as nursery:

            async def watch(ws: Any, ended: trio.Event) -> None:
                await ws.wait_closed()
                await ended.wait()
                self._left(self.server)

            async def handle(ws: Any) -> None:
                ended = trio.Event()
                nursery.start_soon(watch, ws, ended)
                try:
                    await self._use(ws, self.server, self.doing == "pushing")
                finally:
                    ended.set()

            await self.way.serve(handle, [listener], **vars(self.options))

    async def connect(self, host: str, port: int) -> None:
        """Connect, until the connection is lost."""
        try:
            async with self.way.connect(host, port, **vars(self.options)) as ws:
                await self._use(ws, self.client, self.doing == "sending")
        except self.way.closed:
            self._left(self.client)

    def _left(self, end: End) -> None:
        end.left = trio.current_time()
        if not math.isnan(self.client.left + self.server.left):
            self.over.set()

    async def _use(self, ws: Any, end: End, sends: bool) -> None:
        if end is self.server:
            self.opened.set()
        try:
            await use(ws, sends)
        except self.way.closed:
            end.told = trio.current_time()
            raise

    @property
    def ends(self) -> tuple[End, End]:
        return self.client, self.server

    def began(self) -> None:
        self.client.began = self.server.began = trio.current_time()


def port_of(listener: trio.SocketListener) -> int:
    port: int = listener.socket.getsockname()[1]
    return port


async def begun(pairs: list[Pair]) -> None:
    """Return when they are at what they do."""
    for pair in pairs:
        await pair.opened.wait()
    await trio.sleep(SETTLED * pairs[0].options.close_timeout)
    for pair in pairs:
        pair.began()


async def over(pairs: list[Pair]) -> None:
    """Return once they are over, or should have been."""
    with trio.move_on_after(ENOUGH * pairs[0].options.close_timeout):
        for pair in pairs:
            await pair.over.wait()


async def relayed(pair: Pair) -> None:
    """Break a connection at a relay between its ends."""
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host=HOST)
        relay = Relay(port_of(listener))
        port = await nursery.start(relay.run)
        nursery.start_soon(pair.serve, listener)
        nursery.start_soon(pair.connect, HOST, port)
        await begun([pair])
        (link,) = relay.links
        if pair.fault == "reset":
            link.reset()
        elif pair.fault == "half-close":
            await link.half_close()
        else:
            link.freeze()
        await over([pair])
        nursery.cancel_scope.cancel()


async def linked(networks: Networks, pairs: list[Pair]) -> None:
    """Break the link that connections have in common."""
    fault = pairs[0].fault
    async with tunnel(networks) as link, trio.open_nursery() as nursery:
        for pair in pairs:
            listener = link.listen()
            nursery.start_soon(pair.serve, listener)
            nursery.start_soon(pair.connect, link.host, port_of(listener))
        await begun(pairs)
        if fault == "black hole":
            await link.weather(Weather(dead=True))
        elif fault == "MTU black hole":
            await link.weather(Weather(longest=LONGEST))
        else:
            await link.cut(CLIENT if fault.startswith("client") else SERVER)
        await over(pairs)
        nursery.cancel_scope.cancel()


async def server_stopped(way: Way, sends: bool, end: End) -> None:
    """Let the server's process be stopped."""
    async with victim(OURS, compression=None, secured=way.secured) as server:
        try:
            async with way.connect(HOST, server.port, "read", **vars(OPTIONS)) as ws:
                await trio.sleep(SETTLED)
                end.began = trio.current_time()
                server.process.send_signal(signal.SIGSTOP)
                try:
                    await use(ws, sends)
                finally:
                    end.told = trio.current_time()
        except way.closed:
            end.left = trio.current_time()


async def client_stopped(way: Way, sends: bool, end: End) -> None:
    """Let the client's process be stopped."""
    pair = Pair(way, "SIGSTOP", "pushing" if sends else "idle", OPTIONS, server=end)
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host=HOST)
        nursery.start_soon(pair.serve, listener)
        uri = f"{'wss' if way.secured else 'ws'}://{HOST}:{port_of(listener)}/"
        insecurely = ["--insecure"] if way.secured else []
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "trio_ws", "connect", *insecurely, uri],
            stdin=subprocess.PIPE,  # without an end: it stays
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=HERE.parents[2],
        )
        try:
            await pair.opened.wait()
            await trio.sleep(SETTLED)
            pair.began()
            process.send_signal(signal.SIGSTOP)
            await trio.sleep(ENOUGH)
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
        nursery.cancel_scope.cancel()


def worst(ends: list[End]) -> float:
    """Return how late the last was told."""
    return worst_of(end.told - end.began for end in ends)


def worst_of(values: Iterable[float]) -> float:
    """Return the most; a number that isn't one says that it never came."""
    return max(math.inf if math.isnan(value) else value for value in values)


@rows.add(
    "7",
    "A reset, a half-close, a black hole at a relay; a black hole, one for packets of "
    "more than 600 bytes, a client or a server whose network device is gone, on a link "
    "between two network stacks; SIGSTOP of the server or of the client; while idle, "
    "sending or pushing, TCP and TLS; ping_interval, ping_timeout and close_timeout "
    "are 1 s",
    Bound("told after", INTERVAL + TIMEOUT + 0.5, "s"),
    Bound("told of a link that fails after", INTERVAL + TIMEOUT + 0.5, "s"),
    Bound("told of a SIGSTOP after", INTERVAL + TIMEOUT + 0.5, "s"),
    Bound("told of a reset or a half-close after", 0.5, "s", timed=True),
    Bound("from there to the end of the scope", CLOSING + 0.5, "s"),
    Bound("cut though all that is sent gets through", 0),
    Bound("tasks left", 0),
    Bound("descriptors left", 0),
    others=(),
    why="only trio_ws was run",
    seconds=60,
    quick=True,
)
async def broken_networks(library: str, size: Size) -> Figures:
    networks = made(required=size is Size.QUICK)
    contexts(), trusting()  # takes a while, once
    tasks, files = left_behind()
    figures: Figures = {}
    ends: list[End] = []
    if networks is not None:
        pairs = await on_links(networks, size)
        losses = [end for pair in pairs if not pair.lives for end in pair.ends]
        lives = [end for pair in pairs if pair.lives for end in pair.ends]
        figures["told of a link that fails after"] = worst(losses)
        figures["cut though all that is sent gets through"] = sum(
            not math.isnan(end.told) for end in lives
        )
        ends += losses
    if size is not Size.QUICK:
        pairs, stops = await at_relays_and_stopped()
        relayed = [end for pair in pairs for end in pair.ends]
        quick = [pair for pair in pairs if pair.fault in ("reset", "half-close")]
        figures["told after"] = worst(relayed)
        figures["told of a SIGSTOP after"] = worst(stops)
        figures["told of a reset or a half-close after"] = worst(
            [end for pair in quick for end in pair.ends]
        )
        ends += relayed + stops
    tasks_now, files_now = left_behind()
    return figures | {
        "from there to the end of the scope": worst_of(
            end.left - end.told for end in ends
        ),
        "tasks left": tasks_now - tasks,
        "descriptors left": files_now - files,
    }


def made(*, required: bool) -> Networks | None:
    """Return networks for links, or, where there are none, whether one can go on."""
    try:
        return Networks()
    except Skipped:
        if required:
            raise
        return None


async def on_links(networks: Networks, size: Size) -> list[Pair]:
    """Let links fail, each with connections of all kinds."""
    ways, options = (WAYS[:1], BRISK) if size is Size.QUICK else (WAYS, OPTIONS)
    pairs: list[Pair] = []
    async with trio.open_nursery() as nursery:
        for fault in LINKED:
            one = [Pair(w, fault, d, options) for w in ways for d in DOING]
            nursery.start_soon(linked, networks, one)
            pairs += one
    return pairs


async def at_relays_and_stopped() -> tuple[list[Pair], list[End]]:
    """Let relays fail, and processes be stopped."""
    pairs = [Pair(w, f, d, OPTIONS) for w in WAYS for f in RELAYED for d in DOING]
    stops: list[End] = []
    async with trio.open_nursery() as nursery:
        for pair in pairs:
            nursery.start_soon(relayed, pair)
        for stop in (server_stopped, client_stopped):
            for way in WAYS:
                for sends in (False, True):
                    stops.append(End())
                    nursery.start_soon(stop, way, sends, stops[-1])
    return pairs, stops


def left_behind() -> tuple[int, int]:
    return (
        trio.lowlevel.current_statistics().tasks_living,
        len(os.listdir("/dev/fd")),
    )
