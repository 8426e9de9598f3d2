"""Rows 1 to 3: what a peer can make a server hold, and for how long it works at it."""

from __future__ import annotations

import os
import socket
import zlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import trio

from tests.peers import wire
from tests.programs.faults.harness import (
    MIB,
    RIVAL,
    Bound,
    Figures,
    Rows,
    Size,
    Victim,
    ends,
    opened,
    victim,
)
from tests.programs.rivals.wire import Wire

rows = Rows()

MASK = bytes(4)
COMPRESSED = 4  # RSV1, of RFC 7692
BLOCK = 65536
SETTLE = 0.2  # seconds, in which nothing more has come


class Deflated:
    """Makes compressed messages, all of one context."""

    def __init__(self, level: int = 9) -> None:
        self._context = zlib.compressobj(level, wbits=-15)

    def payload(self, message: bytes) -> bytes:
        data = self._context.compress(message)
        return (data + self._context.flush(zlib.Z_SYNC_FLUSH))[:-4]

    def frame(self, opcode: int, message: bytes) -> bytes:
        return wire.frame(opcode, self.payload(message), rsv=COMPRESSED, key=MASK)


async def push(one: Wire, data: bytes) -> None:
    """Send, as far as the server takes it."""
    try:
        with trio.move_on_after(10):
            await one.stream.send_all(data)
    except trio.BrokenResourceError:
        pass  # it has closed the connection


@asynccontextmanager
async def clients(
    server: Victim, count: int, path: str, deflate: bool = True
) -> AsyncIterator[Sequence[Wire]]:
    """Open connections; what came before doesn't count."""
    async with AsyncExitStack() as stack:
        wires = []
        for _ in range(count):
            one = await opened(server.port, path, deflate=deflate)
            wires.append(one)
            await stack.enter_async_context(one.stream)
        await trio.sleep(SETTLE)
        await server.ask("reset")
        yield wires


async def quiet(server: Victim) -> dict[str, Any]:
    """Wait until the server has done its work; return the facts."""
    before = await server.ask()
    with trio.move_on_after(30):
        while True:
            await trio.sleep(SETTLE)
            now = await server.ask()
            if now["cpu"] - before["cpu"] < SETTLE / 4:
                return now
            before = now
    return before


# 1 -----------------------------------------------------------------------------

TEXTS = {"ASCII": "x" * MIB, "beyond the BMP": "\U0001f600" + "x" * (MIB - 4)}
COUNT = 250

HELD = [(case, count) for case in TEXTS for count in (1, 20, 100)]


def held(case: str, count: int) -> str:
    return f"a connection holds, {case}, {count} at once"


async def messages_that_wait(
    library: str, case: str, count: int, path: str = "/hold"
) -> dict[str, Any]:
    """Say how memory and the loop are after 250 compressed messages of 1 MiB."""
    deflated = Deflated()
    data = b"".join(
        deflated.frame(wire.TEXT, TEXTS[case].encode()) for _ in range(COUNT)
    )
    async with victim(library, ping_interval=None) as server:
        async with clients(server, count, path) as wires:
            before = await server.ask()
            async with trio.open_nursery() as nursery:
                for one in wires:
                    nursery.start_soon(push, one, data)
                with trio.move_on_after(3):
                    await trio.sleep(1)
                    await quiet(server)
                nursery.cancel_scope.cancel()
            after = await server.ask()
            left = await server.ask("reset")  # the allocator gives back what it can
    return {
        "memory": (left["resident"] - before["resident"]) / count / MIB,
        "working": (after["peak"] - before["resident"]) / MIB,
        "held": after["held"],
    }


@rows.add(
    "1",
    "250 compressed messages of 1 MiB in one go, to a server that doesn't receive",
    # Twice max_size, what one read holds raw, and 128 KiB for the connection and its
    # inflater; of one connection alone the allocator's own steps are seen.
    *(
        Bound(held(case, count), 3.1 if count == 1 else 2.25, "MiB")
        for case, count in HELD
    ),
    # One message besides, which waits to be sent.
    Bound("a connection holds, echoes that nobody receives", 3.25, "MiB"),
    # Python makes it four bytes a character first.
    Bound("one connection takes meanwhile", 2.1 + 4 + 1.5, "MiB"),
    Bound("the loop is held by one connection", 10, "ms of CPU", timed=True),
    Bound("the loop is held by 20 connections", 10, "ms of CPU", timed=True),
    seconds=120,
    quick=True,
)
async def many_messages_of_one_read(library: str, size: Size) -> Figures:
    figures: Figures = {}
    working: list[float] = []
    holds: dict[int, list[float]] = {1: [], 20: [], 100: []}
    for case, count in HELD:
        if count > (1 if size is Size.QUICK else 20 if library == RIVAL else 100):
            continue
        found = await messages_that_wait(library, case, count)
        figures[held(case, count)] = found["memory"]
        holds[count].append(found["held"])
        if count == 1:
            working.append(found["working"])
    found = await messages_that_wait(library, "ASCII", 20, "/echo")
    figures["a connection holds, echoes that nobody receives"] = found["memory"]
    figures["one connection takes meanwhile"] = max(working)
    figures["the loop is held by one connection"] = max(holds[1])
    if holds[20]:
        figures["the loop is held by 20 connections"] = max(holds[20])
    return figures


# 2 -----------------------------------------------------------------------------

BOMB = 256 * MIB
CODECS = ("zlib", "isal")


def bomb() -> bytes:
    context = zlib.compressobj(9, wbits=-15)
    parts = [context.compress(bytes(MIB)) for _ in range(BOMB // MIB)]
    return b"".join(parts) + context.flush(zlib.Z_SYNC_FLUSH)[:-4]


def bombs() -> dict[str, bytes]:
    """Return what to send, by how it is wrapped."""
    payload = bomb()
    piece = len(payload) // 4096 + 1
    parts = [payload[i : i + piece] for i in range(0, len(payload), piece)]
    last = len(parts) - 1
    fragments = b"".join(
        wire.frame(
            wire.CONT if number else wire.BINARY,
            part,
            fin=number == last,
            rsv=0 if number else COMPRESSED,
            key=MASK,
        )
        for number, part in enumerate(parts)
    )
    deflated = Deflated()
    whole = wire.frame(wire.BINARY, payload, rsv=COMPRESSED, key=MASK)
    return {
        "one frame": whole,
        "4,096 fragments": fragments,
        "the second message": deflated.frame(wire.BINARY, bytes(100_000)) + whole,
    }


async def explode(library: str, data: bytes, count: int, codec: str) -> Figures:
    async with victim(library, codec=codec, ping_interval=None) as server:
        async with clients(server, count, "/read") as wires:
            before = await server.ask()
            endings: list[str] = []

            async def one_of_them(one: Wire) -> None:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(push, one, data)
                    endings.append(await ends(one))
                    nursery.cancel_scope.cancel()

            async with trio.open_nursery() as nursery:
                for one in wires:
                    nursery.start_soon(one_of_them, one)
            after = await server.ask()
    return {
        "closed with 1009": endings.count("Close 1009") / count * 100,
        "memory": (after["peak"] - before["resident"]) / MIB,
        "held": after["held"],
    }


@rows.add(
    "2",
    "A message that inflates to 256 MiB: in one frame, in 4,096 fragments, as the "
    "second of its context, on 100 connections at once; by zlib and isal",
    Bound("closed with 1009", least=100, unit="%"),
    Bound("more memory, one connection", 4, "MiB"),
    Bound("more memory, 100 connections", 100, "MiB"),
    Bound("the loop is held", 50, "ms of CPU", timed=True),
    seconds=60,
    quick=True,
)
async def inflating(library: str, size: Size) -> Figures:
    found: dict[int, list[Figures]] = {1: [], 100: []}
    codecs = CODECS if library == "trio_ws" else ("zlib",)
    for codec in codecs:
        for name, data in bombs().items():
            found[1].append(await explode(library, data, 1, codec))
            if name == "one frame" and size is not Size.QUICK:
                found[100].append(await explode(library, data, 100, codec))
    every = found[1] + found[100]
    figures = {
        "closed with 1009": min(one["closed with 1009"] for one in every),
        "more memory, one connection": max(one["memory"] for one in found[1]),
        "the loop is held": max(one["held"] for one in every),
    }
    if found[100]:
        memory = max(one["memory"] for one in found[100])
        figures["more memory, 100 connections"] = memory
    return figures


# 3 -----------------------------------------------------------------------------


def send_in_pieces(number: int, data: bytes, step: int) -> None:
    """Send in segments of a size; by a thread, since a million turns of a loop last."""
    with socket.socket(fileno=number) as sock, suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(True)
        for start in range(0, len(data), step):
            sock.sendall(data[start : start + step])
        sock.setblocking(False)  # the other descriptor is as this one


async def cpu_of(library: str, data: bytes, step: int, **options: Any) -> Figures:
    """Send bytes in segments of a size to a reader; say what that took."""
    async with victim(library, ping_interval=None, **options) as server:
        async with clients(server, 1, "/read", deflate=False) as (one,):
            before = await server.ask()
            number = os.dup(one.stream.socket.fileno())
            await trio.to_thread.run_sync(send_in_pieces, number, data, step)
            with trio.move_on_after(1):
                ending = await one.ending()
                return {"1009": ending == "Close 1009"}
            after = await quiet(server)
            assert after["messages"], "nothing came"
    return {
        "cpu": after["cpu"] - before["cpu"],
        "memory": (after["peak"] - before["resident"]) / MIB,
        "messages": after["messages"],
    }


def fragments(count: int, size: int) -> bytes:
    start = wire.frame(wire.BINARY, bytes(size), fin=False, key=MASK)
    more = wire.frame(wire.CONT, bytes(size), fin=False, key=MASK)
    return start + more * (count - 1)


@rows.add(
    "3",
    "1 MiB in segments of one byte; 4,097 fragments of a byte, 300,000 empty ones; a "
    "million empty messages",
    Bound(
        "four times the bytes, one by one, take", 4 * 1.3, "times the CPU", timed=True
    ),
    Bound("more memory, 1 MiB by bytes", 2.1, "MiB"),
    Bound("4,097 short fragments closed with 1009", least=1),
    Bound("300,000 empty fragments closed with 1009", least=1),
    Bound("four times the messages take", 4 * 1.3, "times the CPU", timed=True),
    Bound("more memory, a million messages", 2.1, "MiB"),
    seconds=120,
)
async def little_by_little(library: str, size: Size) -> Figures:
    whole = wire.frame(wire.BINARY, bytes(MIB), key=MASK)
    quarter = wire.frame(wire.BINARY, bytes(MIB // 4), key=MASK)
    some = await cpu_of(library, quarter, 1)
    dribbled = await cpu_of(library, whole, 1)
    empty = wire.frame(wire.BINARY, b"", key=MASK)
    count = 100_000 if size is Size.QUICK or library == RIVAL else 1_000_000
    few = await cpu_of(library, empty * (count // 4), BLOCK)
    many = await cpu_of(library, empty * count, BLOCK)
    short = await cpu_of(library, fragments(4097, 1), BLOCK)
    shortest = await cpu_of(library, fragments(300_000, 0), BLOCK)
    return {
        "four times the bytes, one by one, take": dribbled["cpu"] / some["cpu"],
        "more memory, 1 MiB by bytes": dribbled["memory"],
        "4,097 short fragments closed with 1009": short.get("1009", 0),
        "300,000 empty fragments closed with 1009": shortest.get("1009", 0),
        "four times the messages take": many["cpu"] / few["cpu"],
        "more memory, a million messages": many["memory"],
    }
