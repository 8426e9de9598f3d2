"""A bad link: moves packets between two TUN devices, late, twice, or not at all.

    python tests/programs/faults/emulator.py CLIENT SERVER

The arguments are the devices' descriptors, which nobody else may hold: who cuts one
takes the device away. Answers each line of its input with what became of packets, both
in JSON, and ends with its input.
"""

from __future__ import annotations

import heapq
import json
import os
import random
import select
import sys
import time
from collections import Counter
from dataclasses import dataclass
from itertools import count
from typing import Any

LONGEST = 65_536  # of a packet


@dataclass(frozen=True)
class Weather:
    """What happens to packets that go one way; times are in seconds."""

    loss: float = 0.0  # of packets, as those below
    twice: float = 0.0
    held: float = 0.0  # those that others may overtake
    hold: float = 0.0  # for how long at most
    delay: float = 0.0
    rate: float = 1e9  # bytes a second, behind a queue
    queue: float = 60.0  # how long that is before it overflows
    others: float = 0.0  # of which packets of others take so much, growing to that
    longest: int = LONGEST  # bytes; what is longer vanishes without a word
    dead: bool = False


class Way:
    """The packets that go from one device to the other."""

    def __init__(self, seen: Counter[str], chance: random.Random) -> None:
        self._seen = seen
        self._chance = chance
        self.meet(Weather(), 0.0)

    def meet(self, weather: Weather, now: float) -> None:
        """Go on under another weather, with nothing in the queue."""
        self._weather = weather
        self._since = now
        self._free = 0.0  # when the last packet will have left the queue

    def take(self, packet: bytes, now: float) -> list[float]:
        """Return when a packet arrives; several times, once or never."""
        weather, chance, seen = self._weather, self._chance, self._seen
        seen["packets"] += 1
        if weather.dead or len(packet) > weather.longest:
            seen["swallowed"] += 1
            return []
        if chance.random() < weather.loss:
            seen["lost"] += 1
            return []
        start = max(now + min(weather.others, now - self._since), self._free)
        if start - now > weather.queue:
            seen["overflowed"] += 1
            return []
        seen["queue"] = max(seen["queue"], round((start - now) * 1000))
        self._free = start + len(packet) / weather.rate
        due = self._free + weather.delay
        if chance.random() < weather.held:
            due += chance.random() * weather.hold
        if chance.random() < weather.twice:
            seen["twice"] += 1
            return [due, due + chance.random() * weather.hold]
        return [due]


class Link:
    """Two devices, and the packets that are under way."""

    def __init__(self, client: int, server: int) -> None:
        self.seen = Counter[str]()
        chance = random.Random(1)
        self._devices = [client, server]
        self._ways = [Way(self.seen, chance), Way(self.seen, chance)]
        self._under_way: list[tuple[float, int, int, bytes]] = []
        self._latest = [0, 0]  # of the numbers that have arrived
        self._numbers = count(1)
        self._commands = b""
        self._poll = select.poll()
        for number in (0, client, server):
            self._poll.register(number, select.POLLIN)

    def do(self, command: dict[str, Any]) -> dict[str, int]:
        match command.pop("do"):
            case "weather":
                for side in command.pop("sides"):
                    self._ways[side].meet(Weather(**command), time.monotonic())
            case "cut":
                side = command["side"]
                self._poll.unregister(self._devices[side])
                os.close(self._devices[side])
                self._devices[side] = -1
        return self.seen

    def run(self) -> None:
        """Move packets until the input ends."""
        while True:
            wait = 1000.0
            if self._under_way:
                wait = max(self._under_way[0][0] - time.monotonic(), 0) * 1000
            ready = [number for number, _ in self._poll.poll(wait)]
            self._deliver()
            if 0 in ready and not self._obey():
                return
            for side, device in enumerate(self._devices):
                if device in ready:
                    self._read(side, device)

    def _obey(self) -> bool:
        data = os.read(0, LONGEST)
        *lines, self._commands = (self._commands + data).split(b"\n")
        for line in lines:
            print(json.dumps(self.do(json.loads(line))), flush=True)
        return bool(data)

    def _read(self, side: int, device: int) -> None:
        try:
            packet = os.read(device, LONGEST)
        except BlockingIOError:
            return
        for due in self._ways[side].take(packet, time.monotonic()):
            item = due, next(self._numbers), 1 - side, packet
            heapq.heappush(self._under_way, item)

    def _deliver(self) -> None:
        while self._under_way and self._under_way[0][0] <= time.monotonic():
            _, number, side, packet = heapq.heappop(self._under_way)
            if self._devices[side] < 0:
                continue
            os.write(self._devices[side], packet)
            self.seen["overtaken"] += number < self._latest[side]
            self._latest[side] = max(number, self._latest[side])


if __name__ == "__main__":
    Link(int(sys.argv[1]), int(sys.argv[2])).run()
