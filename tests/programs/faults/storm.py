"""Row 15: pairs that talk through a bad network, and are cancelled at random."""

from __future__ import annotations

import hashlib
import random
import struct
from collections import Counter
from math import inf

import trio

import trio_ws
from tests.programs.faults.harness import Bound, Figures, Rows, Size
from tests.programs.faults.relay import Link, Relay
from tests.programs.rivals.adapters import HOST

rows = Rows()

PAIRS, SENDERS = 200, 2
# In seconds: for how long a connection is used, how soon a deadline cuts a call, and
# the most that a connection may take to open, be told and end.
LIFE, CUT, DEADLINE = 2.0, 0.01, 30.0
SIZES = (0, 1, 100, 1000, 4000, 16_384, 65_000, 140_000)
HEAD = struct.Struct(">QBI16s")  # connection, sender, number, digest of it all
ACK = struct.Struct(">BI")


def packed(connection: int, sender: int, number: int) -> bytes:
    body = random.randbytes(random.choice(SIZES))
    facts = struct.pack(">QBI", connection, sender, number)
    digest = hashlib.blake2b(facts + body, digest_size=16).digest()
    return HEAD.pack(connection, sender, number, digest) + body


class Storm:
    """What was sent, what came, and what was wrong."""

    def __init__(self) -> None:
        self.arrived: set[tuple[int, int, int]] = set()
        self.acknowledged: set[tuple[int, int, int]] = set()
        self.taken_back: set[tuple[int, int, int]] = set()
        self.faults: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.connections = 0

    # The server's side

    async def handle(self, ws: trio_ws.ServerConnection) -> None:
        """Check each message, and acknowledge it."""
        latest: dict[int, int] = {}
        try:
            while True:
                with trio.CancelScope(deadline=self._deadline()):
                    message = await ws.recv()
                    assert isinstance(message, bytes)
                    sender, number = self._check(message, latest)
                    # A cancelled answer is a message that isn't acknowledged.
                    await ws.send(ACK.pack(sender, number))
        except trio_ws.ConnectionClosed:
            pass

    def _check(self, message: bytes, latest: dict[int, int]) -> tuple[int, int]:
        connection, sender, number, digest = HEAD.unpack_from(message)
        facts = struct.pack(">QBI", connection, sender, number)
        whole = hashlib.blake2b(facts + message[HEAD.size :], digest_size=16).digest()
        if digest != whole:
            self.wrong.append(f"message {number} of {sender} is torn")
        if number <= latest.get(sender, 0):
            self.wrong.append(f"{number} of {sender} after {latest[sender]}")
        latest[sender] = number
        self.arrived.add((connection, sender, number))
        return sender, number

    def _deadline(self) -> float:
        if random.random() < 0.8:
            return inf
        return trio.current_time() + random.random() * CUT

    # The client's

    async def send(self, ws: trio_ws.Connection, connection: int, sender: int) -> None:
        end = trio.current_time() + LIFE
        number = 0
        while trio.current_time() < end:
            number += 1
            message = packed(connection, sender, number)
            with trio.CancelScope() as scope:
                if random.random() < 0.1:
                    half = len(message) // 2 + 1
                    await ws.send([message[:half], message[half:]])
                else:
                    scope.deadline = self._deadline()
                    await ws.send(message)
            if scope.cancelled_caught:
                self.taken_back.add((connection, sender, number))
            await trio.sleep(random.uniform(0, 0.3))

    async def receive(self, ws: trio_ws.Connection, connection: int) -> None:
        try:
            while True:
                with trio.CancelScope(deadline=self._deadline()):
                    answer = await ws.recv()
                    assert isinstance(answer, bytes)
                    sender, number = ACK.unpack(answer)
                    self.acknowledged.add((connection, sender, number))
        except trio_ws.ConnectionClosedOK:
            pass

    async def one(self, port: int, connection: int) -> None:
        """Use a connection once; errors of the network are what is expected."""
        try:
            with trio.fail_after(DEADLINE):
                async with trio_ws.connect(
                    f"ws://{HOST}:{port}/",
                    open_timeout=5,
                    ping_interval=0.5,
                    ping_timeout=1.5,
                    close_timeout=2,
                    loss_grace=1,
                    write_limit=random.choice([1, 5000, 65_536]),
                    compression=random.choice([None, "deflate"]),
                ) as ws:
                    self.connections += 1
                    ws.nursery.start_soon(self.receive, ws, connection)
                    async with trio.open_nursery() as nursery:
                        for sender in range(SENDERS):
                            nursery.start_soon(self.send, ws, connection, sender)
                    await ws.aclose()
        except* (trio_ws.WebSocketException, trio_ws.OpenTimeoutError, OSError):
            pass  # as documented
        except* trio.TooSlowError:
            self.wrong.append("a connection has no end")
        except* Exception as group:  # noqa: BLE001 - it is counted
            self.wrong.append(f"not documented: {group.exceptions!r}")

    # The network

    async def weather(self, link: Link) -> None:
        """Let one thing happen to a link."""
        await trio.sleep(random.uniform(0, LIFE))
        what = random.choice(
            ["latency", "slicing", "truncation", "reset", "freeze", "black hole", ""]
        )
        self.faults[what or "nothing"] += 1
        match what:
            case "latency":
                link.weather.latency = 0.2
            case "slicing":
                link.weather.piece = random.randint(1, 2000)
            case "truncation":
                link.weather.truncate = random.randint(0, 100_000)
            case "reset":
                link.reset()
            case "freeze":
                link.freeze()
                await trio.sleep(1)
                link.thaw()
            case "black hole":
                link.freeze()

    def verdict(self) -> Figures:
        """Add up."""
        return {
            "connections": self.connections,
            "messages that were acknowledged": len(self.acknowledged),
            "of those, not arrived": len(self.acknowledged - self.arrived),
            "cancelled and arrived": len(self.taken_back & self.arrived),
            "torn, twice, out of order, without an end, or undocumented": len(
                self.wrong
            ),
        }


@rows.add(
    "15",
    "200 pairs through a relay that delays, slices, truncates, resets, freezes and "
    "swallows, both ends cancelled at random, for 20 s",
    Bound("connections", least=PAIRS),
    Bound("messages that were acknowledged", least=1000),
    Bound("of those, not arrived", 0),
    Bound("cancelled and arrived", 0),
    Bound("torn, twice, out of order, without an end, or undocumented", 0),
    others=(),
    why="only trio_ws was run",
    seconds=90,
)
async def storm(library: str, size: Size) -> Figures:
    seconds = {Size.QUICK: 3, Size.NORMAL: 20, Size.LONG: 600}[size]
    pairs = 10 if size is Size.QUICK else PAIRS
    found = Storm()

    async def pair(number: int, port: int) -> None:
        end = trio.current_time() + seconds
        while trio.current_time() < end:
            await found.one(port, number)
            number += pairs

    async with (
        trio_ws.open_server(
            found.handle,
            0,
            host=HOST,
            ping_interval=0.5,
            ping_timeout=1.5,
            loss_grace=1,
            close_timeout=2,
        ) as server,
        trio.open_nursery() as nursery,
    ):
        relay = Relay(server.port, on_link=found.weather)
        port = await nursery.start(relay.run)
        async with trio.open_nursery() as inner:
            for number in range(pairs):
                inner.start_soon(pair, number, port)
        nursery.cancel_scope.cancel()
    for one in found.wrong[:10]:
        print(one)
    return found.verdict()
