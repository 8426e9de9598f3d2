"""Two ends that send, receive and are cancelled at random, over real sockets.

    python tests/programs/soak.py [--seconds 60] [--seed 1]

Several senders on either side of each connection send messages of all sizes, whole and
in fragments, as text and binary; one task receives in all ways there are. Deadlines
cut calls at any moment. Each message must come once, whole, in the order of its
sender, unless its send() was cancelled: then not at all. Says how many did.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import struct
import sys
import time
from math import inf
from pathlib import Path

import trio

# A script's path starts at its own folder, and a checkout may not be installed.
sys.path.insert(0, str(Path(__file__).parents[2]))

import trio_ws
from tests.peers.certificates import contexts
from tests.programs.progress import Progress
from trio_ws._endpoint.options import OptionsDict

SENDERS = 3
# Around all that changes with the size: headers, compression, buffers, pieces.
SIZES = (0, 1, 99, 100, 200, 4000, 16_000, 16_400, 32_700, 32_800, 65_000, 66_000)
LARGE_SIZES = (131_072, 200_000, 400_001)
HEAD = struct.Struct(">BII16s")  # sender, number, size, and a digest of it all

# In seconds: how long messages are sent on one connection, how soon a deadline cuts a
# call at the latest, and how long nothing may come of what was sent.
ROUND, CUT, LATE = 0.7, 0.002, 20


class Wrong(Exception):
    """What came isn't what was sent."""


def packed(chance: random.Random, sender: int, number: int) -> str | bytes:
    """Make a message that says what it has to be."""
    size = chance.choice(SIZES if chance.random() < 0.8 else LARGE_SIZES)
    body = chance.randbytes(size)
    facts = sender.to_bytes() + number.to_bytes(4, "big")
    digest = hashlib.blake2b(facts + body, digest_size=16).digest()
    message = HEAD.pack(sender, number, size, digest) + body
    return message.hex() if chance.random() < 0.3 else message


class Inbox:
    """Checks what one side receives."""

    def __init__(self) -> None:
        self.count = 0
        self.came = trio.Event()  # another one each time
        self._latest = dict.fromkeys(range(SENDERS), -1)

    def check(self, message: str | bytes) -> None:
        data = bytes.fromhex(message) if isinstance(message, str) else message
        sender, number, size, digest = HEAD.unpack_from(data)
        body = data[HEAD.size :]
        facts = sender.to_bytes() + number.to_bytes(4, "big")
        if len(body) != size or digest != (
            hashlib.blake2b(facts + body, digest_size=16).digest()
        ):
            raise Wrong(f"message {number} of sender {sender}: {size} bytes differ")
        if number <= self._latest[sender]:
            raise Wrong(f"sender {sender}: {number} after {self._latest[sender]}")
        self._latest[sender] = number
        self.count += 1
        self.came.set()
        self.came = trio.Event()


class Side:
    """What happens at one end."""

    def __init__(self, ws: trio_ws.Connection, chance: random.Random) -> None:
        self._ws = ws
        self._chance = chance
        self.sent = 0
        self.inbox = Inbox()
        self.cut = 0

    async def send(self, sender: int) -> None:
        """Send until the round is over."""
        chance = self._chance
        end = trio.current_time() + ROUND
        number = 0
        while trio.current_time() < end:
            number += 1
            message = packed(chance, sender, number)
            with trio.CancelScope() as scope:
                # A fragmented message that is cut costs the connection.
                if message and chance.random() < 0.1:
                    size = len(message) // chance.randint(1, 5) + 1
                    await self._ws.send(
                        [message[i : i + size] for i in range(0, len(message), size)]
                    )
                else:
                    scope.deadline = self._deadline()
                    await self._ws.send(message)
                self.sent += 1
            self.cut += scope.cancelled_caught
            if chance.random() < 0.02:
                await self._ws.ping()
            if chance.random() < 0.1:
                await trio.sleep(chance.random() * CUT)

    def _deadline(self) -> float:
        if self._chance.random() < 0.8:
            return inf
        return trio.current_time() + self._chance.random() * CUT

    async def receive(self) -> None:
        """Receive, in all ways there are, until the connection is closed."""
        try:
            while True:
                with trio.CancelScope() as scope:
                    await self._receive_one(scope)
                self.cut += scope.cancelled_caught
                if self._chance.random() < 0.01:
                    await trio.sleep(10 * CUT)
        except trio_ws.ConnectionClosedOK:
            pass

    async def _receive_one(self, scope: trio.CancelScope) -> None:
        how = self._chance.random()
        if how < 0.1:
            try:
                self.inbox.check(self._ws.recv_nowait())
            except trio.WouldBlock:
                await trio.lowlevel.checkpoint()
        elif how < 0.2:
            # Left in the middle, the rest would be discarded.
            pieces = [piece async for piece in self._ws.recv_streaming()]
            self.inbox.check(
                "".join(piece for piece in pieces if isinstance(piece, str))
                or b"".join(piece for piece in pieces if isinstance(piece, bytes))
            )
        else:
            scope.deadline = self._deadline()
            self.inbox.check(await self._ws.recv())


async def all_came(sides: tuple[Side, Side]) -> None:
    """Wait until each has received what the other has sent."""
    with trio.move_on_after(LATE):
        for sender, receiver in (sides, sides[::-1]):
            while receiver.inbox.count != sender.sent:
                await receiver.inbox.came.wait()
        return
    raise Wrong(
        f"of {[side.sent for side in sides]} messages came "
        f"{[side.inbox.count for side in reversed(sides)]}"
    )


async def one_round(chance: random.Random, secured: bool) -> tuple[int, int]:
    """Open a connection and use it; return how many messages and cut calls it had."""
    options: OptionsDict = {
        "compression": chance.choice([None, "deflate"]),
        "write_limit": chance.choice([1, 100, 5000, 65_536, 10**6]),
        "max_queue": chance.choice([1, 16, None]),
    }
    client_context, server_context = contexts() if secured else (None, None)
    sides: list[Side] = []

    async def use(ws: trio_ws.Connection) -> Side:
        side = Side(ws, random.Random(chance.random()))
        sides.append(side)
        ws.nursery.start_soon(side.receive)
        async with trio.open_nursery() as nursery:
            for sender in range(SENDERS):
                nursery.start_soon(side.send, sender)
        return side

    async def handle(ws: trio_ws.ServerConnection) -> None:
        await use(ws)
        done.set()
        await ws.wait_closed()

    done = trio.Event()
    with trio.fail_after(2 * LATE):
        async with (
            trio_ws.open_server(
                handle, 0, host="localhost", ssl=server_context, **options
            ) as server,
            trio_ws.connect(
                f"{'wss' if secured else 'ws'}://localhost:{server.port}/",
                ssl=client_context,
                **options,
            ) as ws,
        ):
            await use(ws)
            await done.wait()
            client, other = sides
            await all_came((client, other))
            await ws.aclose()
    return sum(side.inbox.count for side in sides), sum(side.cut for side in sides)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    given = parser.parse_args()
    chance = random.Random(given.seed)
    print(f"trio_ws {trio_ws.codec()}, seed {given.seed}", flush=True)
    start = time.perf_counter()
    passed = 0.0
    rounds = messages = cut = 0
    with Progress(given.seconds, "seconds") as progress:
        while rounds == 0 or passed < given.seconds:
            found = trio.run(one_round, chance, rounds % 3 == 2)
            rounds += 1
            messages += found[0]
            cut += found[1]
            passed = time.perf_counter() - start
            progress.at(passed, f"{rounds} connections, {messages} messages")
    print(f"{rounds} connections, {messages} messages, {cut} calls cut: all is well")


if __name__ == "__main__":
    main()
