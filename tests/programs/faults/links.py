"""Row 8: links that lose, hold and repeat packets, and links whose queue is full."""

from __future__ import annotations

import random
import struct
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf
from typing import Any

import trio

from tests.programs.faults.emulator import Weather
from tests.programs.faults.harness import Bound, Figures, Rows, Size
from tests.programs.faults.tunnel import CLIENT, SERVER, SIDES, Networks, Tunnel, tunnel
from tests.programs.faults.ways import Way

rows = Rows()

MBIT = 1e6 / 8  # bytes a second
FULL = 12.0  # seconds in a queue
SLOW = Weather(delay=0.1, rate=MBIT, queue=FULL)
BAD = replace(SLOW, loss=0.05, twice=0.02, held=0.05, hold=0.05)
BRISK_AND_BAD = Weather(loss=0.05, twice=0.1, held=0.1, hold=0.005, delay=0.002)
BAD_AND_FULL = replace(BAD, queue=inf, others=FULL)
BEHIND_OTHERS = replace(SLOW, queue=inf, others=FULL)

SIZES = (0, 1, 125, 126, 1000, 4000, 20_000, 70_000)
FEW = SIZES[:-2] * 2
COUNT = {Size.QUICK: 10, Size.NORMAL: 50, Size.LONG: 500}
LIMIT = {Size.QUICK: 20.0, Size.NORMAL: 90.0, Size.LONG: 600.0}
BULK = (30_000,) * 40
# By default the keepalive pings after 20 s: then the queue is full, in the end its pong
# is here.
FULL_FROM, PONG_BY = 5.0, 20.0 + FULL + 3.0
HEAD = struct.Struct(">IB")


def message(number: int, side: int, size: int) -> bytes:
    """Return the message of a number, one half of which can be compressed."""
    half = random.Random(number * 2 + side).randbytes(size // 2)
    return HEAD.pack(number, side) + half + bytes(size - len(half))


@dataclass
class Talk:
    """Messages both ways at once over a link, on a connection in each way."""

    library: str
    sizes: tuple[Sequence[int], Sequence[int]]  # of what either side sends
    pause: float = 0.0  # after each of the server's
    options: dict[str, Any] = field(default_factory=dict)
    begin: trio.Event = field(default_factory=trio.Event)
    opened: trio.Event = field(default_factory=trio.Event)  # both ends of each
    ends: int = 0
    came: int = 0
    broken: int = 0
    latency: float = 0.0  # the most that a keepalive has measured
    seconds: float = 0.0
    packets: Counter[str] = field(default_factory=Counter)

    @property
    def ways(self) -> list[Way]:
        return [
            Way(self.library, secured, compression)
            for secured in (False, True)
            for compression in (None, "deflate")
        ]

    @property
    def all(self) -> int:
        """How many messages have to come."""
        return len(self.ways) * sum(map(len, self.sizes))

    async def over(self, link: Tunnel) -> None:
        """Open the connections, wait for ``begin``, and talk."""
        async with trio.open_nursery() as nursery:
            for way in self.ways:
                nursery.start_soon(self._pair, way, link)

    async def _pair(self, way: Way, link: Tunnel) -> None:
        done = [trio.Event(), trio.Event()]

        async def talk(ws: Any, side: int) -> None:
            try:
                await self._talk(ws, side)
                self.latency = max(self.latency, ws.latency)
            except Exception as exc:  # noqa: BLE001 - counts
                print(f"{way}: {exc!r}", file=sys.stderr)
                self.broken += 1
            done[side].set()
            for each in done:  # the other may have much to send still
                await each.wait()

        async def handle(ws: Any) -> None:
            await talk(ws, SERVER)
            async for _ in ws:
                self.broken += 1  # more than was sent

        async with trio.open_nursery() as nursery:
            listener = link.listen()
            # Of the packets of a handshake, one may be lost several times.
            given = {"open_timeout": 60, **self.options}
            nursery.start_soon(partial(way.serve, handle, [listener], **given))
            port = listener.socket.getsockname()[1]
            try:
                async with way.connect(link.host, port, **given) as ws:
                    await talk(ws, CLIENT)
            except Exception as exc:  # noqa: BLE001 - counts
                print(f"{way}: {exc!r}", file=sys.stderr)
                self.broken += 1
            nursery.cancel_scope.cancel()

    async def _talk(self, ws: Any, side: int) -> None:
        self.ends += 1
        if self.ends == len(SIDES) * len(self.ways):
            self.opened.set()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._receive, ws, 1 - side)
            await self.begin.wait()
            for number, size in enumerate(self.sizes[side]):
                await ws.send(message(number, side, size))
                await trio.sleep(self.pause if side == SERVER else 0)

    async def _receive(self, ws: Any, side: int) -> None:
        for number, size in enumerate(self.sizes[side]):
            if await ws.recv() != message(number, side, size):
                raise ValueError(f"not message {number}, but another, or a torn one")
            self.came += 1


Course = Callable[[Tunnel, Talk], Awaitable[None]]


async def at_once(link: Tunnel, talk: Talk) -> None:
    talk.begin.set()
    await trio.lowlevel.checkpoint()


async def once_open(link: Tunnel, talk: Talk) -> None:
    await talk.opened.wait()
    await link.weather(BRISK_AND_BAD)
    talk.begin.set()


async def once_idle(link: Tunnel, talk: Talk) -> None:
    """Talk when the keepalive is about to ping: what is sent fills the queue."""
    await trio.sleep(FULL_FROM)
    talk.begin.set()


async def behind_others(link: Tunnel, talk: Talk) -> None:
    """Be idle while others fill the queue to the server, and talk then."""
    soon = trio.current_time() + PONG_BY
    await talk.opened.wait()
    await link.weather(BEHIND_OTHERS, CLIENT)
    await trio.sleep_until(soon)
    await link.weather(SLOW)
    talk.begin.set()


async def while_full(link: Tunnel, talk: Talk) -> None:
    """Talk when others have filled the queue to the server, and packets are lost."""
    await talk.opened.wait()
    await link.weather(BAD, SERVER)
    await link.weather(BAD_AND_FULL, CLIENT)
    await trio.sleep(FULL)
    talk.begin.set()


async def run(
    networks: Networks, weather: Weather, course: Course, talk: Talk, limit: float
) -> None:
    """Let them talk over a link of its own."""
    async with tunnel(networks) as link:
        await link.weather(weather)
        start = trio.current_time()
        with trio.move_on_after(limit):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(course, link, talk)
                await talk.over(link)
        talk.seconds = trio.current_time() - start
        talk.packets = await link.seen()


@rows.add(
    "8",
    "Messages both ways at once, TCP and TLS, compressed and not, between two network "
    "stacks with 1 Mbit/s and 200 ms there and back: 5 % of packets lost, others "
    "overtaken or twice; 12 s of queue, filled by these messages, or by others while "
    "the connections are idle; keepalives by their defaults (at full length, also all "
    "of it at once, without keepalives)",
    Bound("of the messages, came whole, once, in order", least=100, unit="%"),
    Bound("connections cut", 0),
    Bound("all is over after", 60, "s"),
    Bound("packets lost", least=1),
    Bound("packets overtaken", least=1),
    Bound("packets that came twice", least=1),
    Bound("that they fill, the queue was", least=8, unit="s"),
    Bound("behind others, the keepalive measured", least=FULL, unit="s"),
    seconds=120,
    quick=True,
)
async def bad_links(library: str, size: Size) -> Figures:
    networks = Networks()
    many = random.Random(1).choices(SIZES, k=COUNT[size])
    bad = Talk(library, (many, many))
    filled = Talk(library, (BULK, FEW), pause=0.5)
    idle = Talk(library, (FEW, FEW))
    # A ping or a pong that is lost comes too late for ping_timeout there.
    worst = Talk(library, (FEW, FEW), options={"ping_interval": None})
    courses: list[tuple[Weather, Course, Talk]] = [
        (BAD, at_once, bad),
        (SLOW, once_idle, filled),
        (SLOW, behind_others, idle),
        (SLOW, while_full, worst),
    ]
    if size is Size.QUICK:
        courses = [(Weather(), once_open, bad)]
    elif size is Size.NORMAL:
        courses.pop()
    async with trio.open_nursery() as nursery:
        for course in courses:
            nursery.start_soon(run, networks, *course, LIMIT[size])
    talks = [talk for _, _, talk in courses]
    figures = {
        "of the messages, came whole, once, in order": (
            sum(talk.came for talk in talks) / sum(talk.all for talk in talks) * 100
        ),
        "connections cut": sum(talk.broken for talk in talks),
        "packets lost": bad.packets["lost"],
        "packets overtaken": bad.packets["overtaken"],
        "packets that came twice": bad.packets["twice"],
    }
    if size is not Size.LONG:
        figures["all is over after"] = max(talk.seconds for talk in talks)
    if size is not Size.QUICK:
        figures |= {
            "that they fill, the queue was": filled.packets["queue"] / 1000,
            "behind others, the keepalive measured": idle.latency,
        }
    return figures
