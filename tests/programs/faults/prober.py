"""Honest clients: what others' echoes take meanwhile.

python tests/programs/faults/prober.py PORT SECONDS

Prints JSON: the 99th percentile in milliseconds, of the best second.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from time import perf_counter

import trio

# A script's path starts at its own folder, and a checkout may not be installed.
sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.programs.faults.harness import opened
from tests.programs.rivals.wire import BINARY, CLOSE

CLIENTS = 10
PAUSE = 0.02  # seconds
FEW = 100  # of echoes in a second


async def main(port: int, seconds: float) -> None:
    taken: list[tuple[float, float]] = []
    end = perf_counter() + seconds

    async def ask() -> None:
        wire = await opened(port, "/echo")
        while perf_counter() < end:
            start = perf_counter()
            await wire.send(BINARY, bytes(32))
            await wire.read()
            taken.append((start, perf_counter() - start))
            await trio.sleep(PAUSE)
        await wire.send(CLOSE, (1000).to_bytes(2))
        await wire.read()

    async with trio.open_nursery() as nursery:
        for _ in range(CLIENTS):
            nursery.start_soon(ask)
    # Others on the machine disturb a second or two, but hardly all of them.
    seconds_of: dict[int, list[float]] = {}
    for at, one in taken:
        seconds_of.setdefault(int(end - at), []).append(one)
    full = [part for part in seconds_of.values() if len(part) >= FEW] or [
        [one for _, one in taken]
    ]
    at_99 = [sorted(part)[len(part) * 99 // 100] for part in full]
    print(json.dumps({"p99": min(at_99) * 1000}))


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]), float(sys.argv[2]))
