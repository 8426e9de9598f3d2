"""The short benchmark: CPU time of an echo, beside raw streams and other libraries.

    python tests/benchmarks/quick.py [--json FILE] [--rounds 9]

Both ends live in one process, on one trio loop, joined by a TCP connection over
loopback, so process_time() is what a round trip costs both of them together.
Rounds are interleaved (A B C D A B C D ...), so that a slow phase of the machine
hits everybody alike. Compression is off, keepalive as each library has it by
default (20 s; trio-websocket has none), and every message that comes back is
compared with what was sent: wrong data is the only failure, slowness never is.

To add a workload, write its two ends and a line in WORKLOADS; to add a peer, a
context manager like those below and a line in PEERS.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import importlib.util
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import trio

# A script's path starts at its own folder, and a checkout may not be installed.
sys.path.insert(0, str(Path(__file__).parents[2]))

HOST = "127.0.0.1"
WARM_UP = 50  # round trips before the clock starts


class WrongData(Exception):
    pass


class End(NamedTuple):
    """One end of a connection. The library's own methods: no wrapper is timed."""

    send: Callable[[bytes], Awaitable[object]]
    recv: Callable[[], Awaitable[Any]]


Serve = Callable[[End], Awaitable[None]]


# Workloads ---------------------------------------------------------------------


@dataclass(frozen=True)
class Workload:
    name: str
    size: int  # bytes of each message
    count: int  # operations a round
    serve: Serve  # the server's end; runs until its connection closes
    drive: Callable[[End, bytes, int], Awaitable[None]]  # the end that is timed


async def echo(end: End) -> None:
    send, recv = end
    while True:
        await send(await recv())


async def round_trips(end: End, message: bytes, count: int) -> None:
    send, recv = end
    for _ in range(count):
        await send(message)
        if await recv() != message:
            raise WrongData(f"an echo of {len(message)} bytes differs")


WORKLOADS = [
    Workload("echo of 32 bytes", 32, 2000, echo, round_trips),
    Workload("echo of 64 KiB", 65536, 200, echo, round_trips),
]


# Peers -------------------------------------------------------------------------

# Given the size of every message and the server's end of the workload, serve one
# connection and yield the client's end of it.
Opener = Callable[[int, Serve], AbstractAsyncContextManager[End]]


async def listen() -> tuple[list[trio.SocketListener], int]:
    listeners = await trio.open_tcp_listeners(0, host=HOST)
    return list(listeners), listeners[0].socket.getsockname()[1]


@asynccontextmanager
async def raw_streams(size: int, serve: Serve) -> AsyncIterator[End]:
    """trio.SocketStream with no protocol at all: what the loop itself costs."""

    def end(stream: trio.SocketStream) -> End:
        async def recv() -> bytes:
            data = await stream.receive_some(size)
            if len(data) == size:
                return data
            parts = bytearray(data)
            while data and len(parts) < size:
                data = await stream.receive_some(size - len(parts))
                parts += data
            return bytes(parts)

        return End(stream.send_all, recv)

    async def handler(stream: trio.SocketStream) -> None:
        await serve(end(stream))

    listeners, port = await listen()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, handler, listeners)
        stream = await trio.open_tcp_stream(HOST, port)
        yield end(stream)
        nursery.cancel_scope.cancel()
        await stream.aclose()


@asynccontextmanager
async def trio_ws(size: int, serve: Serve) -> AsyncIterator[End]:
    library: Any = importlib.import_module("trio_ws")

    async def handler(ws: Any) -> None:
        await serve(End(ws.send, ws.recv))

    async with (
        library.open_server(handler, 0, host=HOST, compression=None) as server,
        library.connect(f"ws://{HOST}:{server.port}/", compression=None) as ws,
    ):
        assert "Sec-WebSocket-Extensions" not in ws.response.headers
        yield End(ws.send, ws.recv)


@asynccontextmanager
async def websockets(size: int, serve: Serve) -> AsyncIterator[End]:
    client: Any = importlib.import_module("websockets.trio.client")
    server: Any = importlib.import_module("websockets.trio.server")

    async def handler(ws: Any) -> None:
        await serve(End(ws.send, ws.recv))

    async def run() -> None:
        await server.serve(handler, listeners=listeners, compression=None)

    listeners, port = await listen()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        async with client.connect(
            f"ws://{HOST}:{port}/", compression=None, proxy=None
        ) as ws:
            yield End(ws.send, ws.recv)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def trio_websocket(size: int, serve: Serve) -> AsyncIterator[End]:
    library: Any = importlib.import_module("trio_websocket")

    async def on_request(request: Any) -> None:
        ws = await request.accept()
        with suppress(library.ConnectionClosed):  # else its server ends with it
            await serve(End(ws.send_message, ws.get_message))

    listeners, port = await listen()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(library.WebSocketServer(on_request, listeners).run)
        async with library.open_websocket_url(f"ws://{HOST}:{port}/") as ws:
            yield End(ws.send_message, ws.get_message)
        nursery.cancel_scope.cancel()


RAW, WEBSOCKETS, TRIO_WS = "trio streams", "websockets.trio", "trio_ws"
PEERS: dict[str, Opener] = {
    RAW: raw_streams,
    TRIO_WS: trio_ws,
    WEBSOCKETS: websockets,
    "trio-websocket": trio_websocket,
}
MODULES = {
    RAW: "trio",
    TRIO_WS: "trio_ws",
    WEBSOCKETS: "websockets",
    "trio-websocket": "trio_websocket",
}


# Measuring ---------------------------------------------------------------------


async def one_round(opener: Opener, workload: Workload) -> float:
    """Microseconds of CPU an operation."""
    message = os.urandom(workload.size)
    async with opener(workload.size, workload.serve) as end:
        await workload.drive(end, message, min(WARM_UP, workload.count))
        gc.collect()
        started = time.process_time()
        await workload.drive(end, message, workload.count)
        used = time.process_time() - started
    return used / workload.count * 1e6


Results = dict[str, dict[str, list[float]]]


async def measure(peers: list[str], rounds: int) -> Results:
    results: Results = {w.name: {peer: [] for peer in peers} for w in WORKLOADS}
    for _ in range(rounds):
        for workload in WORKLOADS:
            for peer in peers:
                used = await one_round(PEERS[peer], workload)
                results[workload.name][peer].append(used)
    return results


def versions() -> dict[str, str]:
    found = {"python": f"{platform.python_implementation()} {sys.version.split()[0]}"}
    found["system"] = f"{platform.system()} {platform.machine()}"
    for package in ("trio", "trio_ws", "websockets", "trio-websocket", "wsproto"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # trio_ws may be a checkout
            module = sys.modules.get(package)
            found[package] = getattr(module, "__version__", "not installed")
    for name, extension in {
        "trio_ws codec": "trio_ws._protocol._codec",
        "websockets speedups": "websockets.speedups",
    }.items():
        try:
            spec = importlib.util.find_spec(extension)
        except ImportError:
            continue
        compiled = spec and spec.origin and not spec.origin.endswith(".py")
        found[name] = "compiled" if compiled else "pure Python"
    return found


def report(results: Results) -> None:
    for workload, peers in results.items():
        medians = {peer: statistics.median(times) for peer, times in peers.items()}
        print(f"\n{workload}, microseconds of CPU a round trip, both ends together\n")
        print("| | median | minimum | / websockets.trio | / trio streams |")
        print("|---|---|---|---|---|")
        for peer, times in peers.items():
            ratios = [
                f"{medians[peer] / medians[base]:.2f}" if base in medians else "-"
                for base in (WEBSOCKETS, RAW)
            ]
            print(
                f"| {peer} | {medians[peer]:.1f} | {min(times):.1f} "
                f"| {ratios[0]} | {ratios[1]} |"
            )


def report_target(results: Results) -> None:
    times = results[WORKLOADS[0].name]
    if TRIO_WS not in times or WEBSOCKETS not in times:
        print("\nTarget not judged: it needs trio_ws and websockets.")
        return
    ratio = statistics.median(times[TRIO_WS]) / statistics.median(times[WEBSOCKETS])
    print(
        "\nTarget, trio_ws at most half of websockets.trio for 32 bytes: "
        f"{'met' if ratio <= 0.5 else 'NOT met'} ({ratio:.2f})"
    )


def importable(peer: str) -> bool:
    try:
        importlib.import_module(MODULES[peer])
    except ImportError as exc:
        print(f"without {peer}: {exc}")
        return False
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, help="write versions and all rounds here")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", action="append", choices=PEERS, metavar="PEER")
    arguments = parser.parse_args()

    peers = [peer for peer in arguments.only or PEERS if importable(peer)]
    found = versions()
    print(", ".join(f"{name} {text}" for name, text in found.items()))
    print(f"{arguments.rounds} rounds, interleaved; compression off; default keepalive")
    try:
        results = trio.run(measure, peers, arguments.rounds)
    except* WrongData as group:
        print(f"WRONG DATA: {group.exceptions}", file=sys.stderr)
        sys.exit(1)
    report(results)
    report_target(results)
    if arguments.json:
        text = json.dumps({"versions": found, "microseconds": results}, indent=2)
        arguments.json.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
