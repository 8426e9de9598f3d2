"""The process of one peer: does what the driver asks for, when it is its turn.

Requests come on stdin and answers go to stdout, a line of JSON each. While it waits
for its turn it blocks, with its connections open and its loop standing still.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import json
import logging
import math
import os
import resource
import statistics
import sys
import time
import zlib
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from . import sampling
from .load import Load
from .peers import Drive, End, Options, Peer, Spec, Unsupported, spec_of
from .texts import ROW, json_texts
from .workloads import WORKLOADS, Workload

LOAD = Load()

# At first glibc's malloc gets blocks of 128 KiB or more from the system, and gives them
# back, each time; later only those larger than all that was freed so far. asyncio asks
# for 256 KiB for each read. A process that has freed as much before takes two thirds of
# the CPU time, and whether it has is chance; so all have.
FREED = 2**20

# Where a compiler first has to see what is hot, in seconds of CPU time.
WARM_UP = 0.0 if sys.implementation.name == "cpython" else 4.0


def answer(result: dict[str, Any]) -> None:
    for key, value in result.items():
        if isinstance(value, float):
            result[key] = float(f"{value:.4g}")
    print(json.dumps(result), flush=True)


def my_turn() -> bool:
    """Wait for it; False: there will be none."""
    return sys.stdin.readline() == "go\n"


def find(group: str, case: str) -> Workload:
    for workload in WORKLOADS:
        if (workload.group, workload.case) == (group, case):
            return workload
    raise LookupError((group, case))


# Compression -----------------------------------------------------------------------

#: How compressors were made, as far as peers may choose.
MADE: list[str] = []


def watch(module: Any, name: str, default_level: int) -> None:
    """Note how compressors of WebSocket are made from now on."""
    make = module.compressobj

    def compressobj(
        level: int = default_level,
        method: int = zlib.DEFLATED,
        wbits: int = zlib.MAX_WBITS,
        memLevel: int = zlib.DEF_MEM_LEVEL,  # noqa: N803 - zlib's name
        *arguments: Any,
    ) -> Any:
        if wbits < 0:  # else it is a trial
            window = f"{1 << -wbits >> 10} KiB" if wbits < -9 else f"{1 << -wbits} B"
            MADE.append(f"{name} level {level}, window {window}, memLevel {memLevel}")
        return make(level, method, wbits, memLevel, *arguments)

    module.compressobj = compressobj


def settings() -> dict[str, str]:
    """Say how this peer compresses, if it does: each end where they differ."""
    return {"deflate": "; ".join(dict.fromkeys(MADE))} if MADE else {}


# Time ----------------------------------------------------------------------------


async def measure(peer: Peer, group: str, case: str, seconds: float) -> None:
    """Answer with the count, then, each turn, with microseconds an operation.

    And with what the workload itself has found.
    """
    workload = find(group, case)
    try:
        async with workload.start(peer, LOAD) as drive:
            count = await calibrated(drive, seconds, workload.at_least)
            answer({"count": count} | settings())
            while my_turn():
                gc.collect()
                wall, cpu = time.perf_counter(), time.process_time()
                found = await drive(count)
                each = 1e6 / count / workload.per
                cpu = (time.process_time() - cpu) * each
                wall = (time.perf_counter() - wall) * each
                answer({"cpu": cpu, "wall": wall} | (found or {}))
    except Unsupported:
        answer({"unsupported": True})
        return
    answer({"over": True})


async def calibrated(drive: Drive, seconds: float, at_least: int) -> int:
    """Find out how often fits that time, which warms up, too."""
    count = 1
    warm = time.process_time() + WARM_UP
    while True:
        started = time.perf_counter()
        await drive(count)
        took = time.perf_counter() - started
        if took <= seconds / 4 and not count >= at_least > 1:
            count *= 2
        elif time.process_time() >= warm:
            return max(math.ceil(count * seconds / took), at_least)


async def profile(peer: Peer, group: str, case: str, seconds: float) -> None:
    """Answer with whose code the CPU time was in: shares of 1."""
    async with find(group, case).start(peer, LOAD) as drive:
        count = await calibrated(drive, seconds / 50, 1)
        with sampling.Sampler() as sampler:
            end = time.perf_counter() + seconds
            while time.perf_counter() < end:
                await drive(count)
    answer(sampler.shares())


# Memory --------------------------------------------------------------------------


def resident() -> int:
    """Return the bytes of this process that are in memory."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


async def memory(peer: Peer, connections: int, deflate: bool, use: bool) -> None:
    """Answer with KiB an idle connection."""
    text = json_texts(1, 1024 // ROW)[0]

    async def more(count: int) -> None:
        def ask() -> None:
            LOAD.ask(
                "open", port=port, count=count, upgrade=peer.upgrades, deflate=deflate
            )
            if use:
                LOAD.ask("deflated", text=text)

        await peer.in_thread(ask)
        await peer.sleep(0.1)

    async with peer.echo_server(Options(1024, deflate=deflate)) as port:
        await more(100)  # what is made once is not part of it
        before = resident()
        await more(connections)
        used = resident() - before
        await peer.in_thread(lambda: LOAD.ask("close"))
    answer({"kib": used / connections / 1024})


# Fairness ------------------------------------------------------------------------

NAP = 0.002


async def lateness(
    peer: Peer, connections: int, receiving: bool, seconds: float
) -> None:
    """Answer with how late a short sleep wakes beside a firehose: milliseconds."""
    size = 32
    message = bytes(size)
    late: list[float] = []
    count = 0
    over = False
    begin = peer.event()

    async def receive(end: End) -> None:
        nonlocal count
        while True:
            assert await end.recv() == message
            count += 1

    async def send(end: End) -> None:
        nonlocal count
        await begin.wait()
        while True:
            await end.send(message)
            count += 1

    async def nap() -> None:
        while not over:
            started = time.perf_counter()
            await peer.sleep(NAP)
            late.append((time.perf_counter() - started - NAP) * 1000)

    async def flow() -> None:
        nonlocal over
        begin.set()
        what = "flood" if receiving else "drain"
        await peer.in_thread(lambda: LOAD.ask(what, seconds=seconds, size=size))
        over = True
        await peer.in_thread(lambda: LOAD.ask("close"))

    handler = receive if receiving else send
    async with peer.server(handler, Options(size)) as port:
        await peer.in_thread(lambda: LOAD.ask("open", port=port, count=connections))
        await peer.both(nap, flow)
    late.sort()
    answer(
        {
            "median": statistics.median(late),
            "99 %": late[int(len(late) * 0.99)],
            "maximum": late[-1],
            "messages a second": count / seconds,
        }
    )


# The process ---------------------------------------------------------------------


def about(spec: Spec) -> dict[str, str]:
    """Return versions, and what is compiled."""
    found = {}
    for package in spec.packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # a checkout
            module: Any = importlib.import_module(package)
            found[package] = module.__version__
    if "trio_ws" in found:
        library: Any = importlib.import_module("trio_ws")
        found["trio_ws"] += f" {library.codec()}"
    for name, speedups in {
        "websockets": "websockets.speedups",
        "aiohttp": "aiohttp._websocket.reader_c",
    }.items():
        if name in found:
            compiled = importlib.util.find_spec(speedups) is not None
            found[name] += " compiled" if compiled else " python"
    return found


def main() -> None:
    bytearray(FREED)
    spec = spec_of(sys.argv[1])
    for module in spec.hidden:
        sys.modules[module] = None  # type: ignore[assignment]
    watch(zlib, "zlib", 6)
    with suppress(ImportError):
        watch(importlib.import_module("isal.isal_zlib"), "ISA-L", 2)
    # A connection of the load generator ends without goodbye.
    logging.disable()
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (1 << 15, 1 << 15))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        peer = spec.make()
    except ImportError as error:
        answer({"missing": str(error)})
        return
    answer({"about": about(spec), "pid": os.getpid()})
    functions = {
        function.__name__: function for function in (measure, profile, memory, lateness)
    }
    while line := sys.stdin.readline():
        what, arguments = json.loads(line)
        peer.run(lambda: functions[what](peer, **arguments))  # noqa: B023


if __name__ == "__main__":
    main()
