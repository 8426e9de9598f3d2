"""Scenarios (a) to (d) and (g): both sides at full speed, or one of them slow."""

from __future__ import annotations

import contextlib

import trio

from tests.programs.rivals.adapters import Connection, Library, Options
from tests.programs.rivals.harness import (
    KEEPALIVE,
    MIB,
    QUIET,
    Scenarios,
    close_seen,
    library_server,
    limit,
    never_reads,
    wrong,
)
from tests.programs.rivals.wire import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    Ended,
    Wire,
    raw_client,
    raw_server,
)

scenarios = Scenarios()

# (a) ---------------------------------------------------------------------------

SIZES = [65536] * 400 + [1_000_000] * 60


async def full_duplex(library: Library, *, pings: bool) -> str:
    echoed = 0

    async def ping_often(ws: Connection) -> None:
        with contextlib.suppress(*library.closed):
            while True:
                await ws.ping()
                await trio.sleep(0.01)

    async def echo(ws: Connection) -> None:
        async with trio.open_nursery() as nursery:
            if pings:
                nursery.start_soon(ping_often, ws)
            with contextlib.suppress(*library.closed):
                while True:
                    message = await ws.recv()
                    assert isinstance(message, bytes)
                    await ws.send(message)
            nursery.cancel_scope.cancel()

    async def send_all(ws: Connection) -> None:
        for number, size in enumerate(SIZES):
            await ws.send(bytes([number % 251]) * size)

    async def watch() -> None:
        before = -1
        while echoed > before:
            before = echoed
            await trio.sleep(4)
        wrong(f"deadlock after {echoed} of {len(SIZES)} echoes")

    async with (
        library_server(library, echo) as port,
        library.connect(port, QUIET) as ws,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(watch)
        nursery.start_soon(send_all, ws)
        if pings:
            nursery.start_soon(ping_often, ws)
        for number, size in enumerate(SIZES):
            if await ws.recv() != bytes([number % 251]) * size:
                wrong(f"echo {number} differs")
            echoed += 1
        nursery.cancel_scope.cancel()
    return ""


@scenarios.add("a1", "full duplex, 86 MB pipelined to an echo server, doesn't deadlock")
async def full_duplex_data(library: Library) -> str:
    return await full_duplex(library, pings=False)


@scenarios.add("a2", "the same, while both sides ping")
async def full_duplex_pings(library: Library) -> str:
    return await full_duplex(library, pings=True)


# (b) ---------------------------------------------------------------------------


async def send_200(wire: Wire) -> None:
    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        for _ in range(200):
            await wire.send(BINARY, bytes(1024))


@scenarios.add("b1", "a client leaves 200 unread messages within close_timeout (1 s)")
async def leave_unread_client(library: Library) -> str:
    seen = "nothing"

    async def peer(wire: Wire) -> None:
        nonlocal seen
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_200, wire)
            seen = await close_seen(wire)

    async with raw_server(peer) as port:
        with contextlib.ExitStack() as leaving:
            async with library.connect(port, QUIET):
                await trio.sleep(0.3)
                left = trio.current_time()
                leaving.enter_context(limit(1.5, "still in the scope after 1.5 s"))
        took = trio.current_time() - left
        await trio.sleep(0.1)
    if not seen.startswith("Close"):
        wrong(f"the peer saw {seen}")
    return f"{took:.2f} s"


@scenarios.add("b2", "a server's handler leaves 200 unread messages likewise")
async def leave_unread_server(library: Library) -> str:
    left = 0.0

    async def handler(ws: Connection) -> None:
        nonlocal left
        await trio.sleep(0.3)
        left = trio.current_time()

    async with (
        library_server(library, handler) as port,
        raw_client(port) as wire,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(send_200, wire)
        with limit(1.8, "the connection is there 1.5 s later"):
            seen = await close_seen(wire)
            if not seen.startswith("Close"):
                wrong(f"the peer saw {seen}")
            await wire.ending()
        return f"{trio.current_time() - left:.2f} s"


# (c) ---------------------------------------------------------------------------


@scenarios.add("c", "cancelled 8 MiB sends to a slow reader leave no torn frame")
async def cancelled_send(library: Library) -> str:
    messages = [b"1" * (8 * MIB), b"2" * (8 * MIB), b"last"]
    read_now, done = trio.Event(), trio.Event()
    arrived: list[bytes] = []
    partial = b""

    async def peer(wire: Wire) -> None:
        nonlocal partial
        await read_now.wait()
        message = b""
        try:
            while True:
                fin, opcode, payload = await wire.read()
                if opcode == CLOSE:
                    await wire.answer_close()
                    break
                message += payload
                if fin:
                    arrived.append(message)
                    message = b""
        except Ended as end:
            partial = message + end.partial
        done.set()

    returned: list[bytes] = []
    told = False
    async with raw_server(peer, receive_buffer=65536) as port:
        try:
            async with library.connect(port, QUIET) as ws:
                for message in messages[:2]:
                    with trio.move_on_after(0.3):
                        await ws.send(message)
                        returned.append(message)
                read_now.set()
                with limit(5, "the next send still blocks after 5 s"):
                    await ws.send(messages[2])
                returned.append(messages[2])
        except library.closed:
            told = True
        with limit(5, "the peer saw no end"):
            await done.wait()
    if any(message not in messages for message in arrived) or not any(
        message.startswith(partial) for message in messages
    ):
        wrong("torn frame: the peer got bytes of two messages in one")
    if told:
        return "failed cleanly"
    if partial or arrived != returned:
        wrong(f"{len(returned)} sends returned, {len(arrived)} messages arrived")
    return f"{2 - (len(returned) - 1)} cancelled"


# (d) ---------------------------------------------------------------------------


@scenarios.add("d1", "send to a peer that reads nothing is bounded by keepalive")
async def bounded_send(library: Library) -> str:
    async with raw_server(never_reads, receive_buffer=65536) as port:
        started = trio.current_time()
        with (
            limit(5, "send still blocks after 5 s"),
            contextlib.suppress(*library.closed),
        ):
            async with library.connect(port, KEEPALIVE) as ws:
                while True:
                    await ws.send(bytes(MIB))
        return f"{trio.current_time() - started:.1f} s"


@scenarios.add("d2", "ping to such a peer is bounded by keepalive")
async def bounded_ping(library: Library) -> str:
    async with raw_server(never_reads) as port:
        started = trio.current_time()
        with (
            limit(4, "ping still waits after 4 s"),
            contextlib.suppress(*library.closed),
        ):
            async with library.connect(port, KEEPALIVE) as ws:
                await ws.ping()
                wrong("a ping that nobody answered returned")
        return f"{trio.current_time() - started:.1f} s"


@scenarios.add("d3", "leaving the scope, bytes stuck in send, by close_timeout (0.5 s)")
async def bounded_close(library: Library) -> str:
    options = Options(close_timeout=0.5)

    async def send(ws: Connection) -> None:
        with contextlib.suppress(*library.closed):
            while True:
                await ws.send(bytes(8 * MIB))

    async with (
        raw_server(never_reads, receive_buffer=65536) as port,
        trio.open_nursery() as nursery,
    ):
        with contextlib.ExitStack() as leaving, contextlib.suppress(*library.closed):
            async with library.connect(port, options) as ws:
                nursery.start_soon(send, ws)
                await trio.sleep(0.3)
                left = trio.current_time()
                leaving.enter_context(limit(1.2, "still in the scope after 1.2 s"))
        took = trio.current_time() - left
        with limit(1, "send still blocks after the scope"):
            while nursery.child_tasks:
                await trio.lowlevel.checkpoint()
    return f"{took:.2f} s"


# (g) ---------------------------------------------------------------------------


@scenarios.add("g", "a busy consumer with a full queue keeps its healthy peer")
async def busy_consumer(library: Library) -> str:
    async def peer(wire: Wire) -> None:
        for number in range(100):
            await wire.send(BINARY, bytes([number]) * 4096)
        while True:
            _, opcode, payload = await wire.read()
            if opcode == PING:
                await wire.send(PONG, payload)
            elif opcode == CLOSE:
                return await wire.answer_close()

    received = 0
    async with raw_server(peer) as port:
        try:
            async with library.connect(port, KEEPALIVE) as ws:
                await trio.sleep(2)
                with limit(3, "reading again hangs"):
                    for number in range(100):
                        if await ws.recv() != bytes([number]) * 4096:
                            wrong(f"message {number} differs")
                        received += 1
                    await ws.ping()
        except library.closed:
            wrong(f"connection lost, {received} of 100 messages read")
    return ""
