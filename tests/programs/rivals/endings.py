"""Scenarios (e), (f) and (h) to (j): who learns what when a connection ends."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable

import trio

from tests.programs.rivals.adapters import HOST, Connection, Library
from tests.programs.rivals.harness import (
    KEEPALIVE,
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
    REQUEST,
    TEXT,
    Ended,
    Wire,
    frame,
    raw_client,
    raw_server,
)

scenarios = Scenarios()

# (e) ---------------------------------------------------------------------------


async def sleeping_body(
    library: Library, peer: Callable[[Wire], Awaitable[None]]
) -> str:
    told = False
    async with raw_server(peer) as port:
        started = trio.current_time()
        try:
            with limit(3, "not told after 3 s"):
                async with library.connect(port, KEEPALIVE):
                    await trio.sleep_forever()
        except library.closed:
            told = True
        took = trio.current_time() - started
    return f"{took:.1f} s" if told else wrong("woken without an exception")


@scenarios.add("e1", "a body in sleep_forever() learns of a reset")
async def told_of_reset(library: Library) -> str:
    async def peer(wire: Wire) -> None:
        await trio.sleep(0.1)
        wire.reset()

    return await sleeping_body(library, peer)


@scenarios.add("e2", "a body in sleep_forever() learns of silence")
async def told_of_silence(library: Library) -> str:
    return await sleeping_body(library, never_reads)


# (f) ---------------------------------------------------------------------------


@scenarios.add("f1", "a cancelled client says Close 1001")
async def cancelled_client(library: Library) -> str:
    seen = ""
    ended = trio.Event()

    async def peer(wire: Wire) -> None:
        nonlocal seen
        seen = await close_seen(wire)
        ended.set()

    async with raw_server(peer) as port:
        with trio.move_on_after(0.3):
            async with library.connect(port, QUIET) as ws:
                await ws.recv()
        with limit(2, "the peer saw nothing"):
            await ended.wait()
    return "" if seen == "Close 1001" else wrong(f"the peer saw {seen}")


@scenarios.add("f2", "a cancelled server says Close 1001")
async def cancelled_server(library: Library) -> str:
    async def handler(ws: Connection) -> None:
        await ws.recv()

    async with contextlib.AsyncExitStack() as stack:
        async with library_server(library, handler) as port:
            wire = await stack.enter_async_context(raw_client(port))
            await trio.sleep(0.2)
        with limit(2, "the peer saw nothing"):
            seen = await close_seen(wire)
    return "" if seen == "Close 1001" else wrong(f"the peer saw {seen}")


# (h) ---------------------------------------------------------------------------


@scenarios.add("h", "one handler's exception harms no other connection")
async def failing_handler(library: Library) -> str:
    async def handler(ws: Connection) -> None:
        with contextlib.suppress(*library.closed):
            while True:
                message = await ws.recv()
                if message == b"fail":
                    raise ValueError("on purpose")
                assert isinstance(message, bytes)
                await ws.send(message)

    async def check(wire: Wire, who: str) -> None:
        with limit(2, f"no echo for {who}"):
            await wire.send(BINARY, b"hello")
            try:
                echo = await wire.read()
            except Ended as end:
                wrong(f"{end.how} for {who}")
        if echo.payload != b"hello":
            wrong(f"wrong echo for {who}")

    async with library_server(library, handler) as port, raw_client(port) as healthy:
        await check(healthy, "the other connection, before")
        async with raw_client(port) as failing:
            await failing.send(BINARY, b"fail")
            with limit(2, "the failing connection stays open"):
                seen = await close_seen(failing)
        await check(healthy, "the other connection")
        async with raw_client(port) as new:
            await check(new, "a new connection")
    return f"its own peer: {seen}"


# (i) ---------------------------------------------------------------------------

BAD_REQUESTS = {
    "no Upgrade": REQUEST.replace("Upgrade: websocket\r\n", ""),
    "no key": REQUEST.replace("Sec-WebSocket-Key", "X-Key"),
    "version 99": REQUEST.replace("Version: 13", "Version: 99"),
    "POST": REQUEST.replace("GET", "POST"),
    "no HTTP at all": "NONSENSE\r\n\r\n",
}


@scenarios.add("i1", "every bad request gets an HTTP error as its answer")
async def bad_requests(library: Library) -> str:
    async def handler(ws: Connection) -> None:
        await trio.sleep_forever()

    failures = []
    async with library_server(library, handler) as port:
        for name, request in BAD_REQUESTS.items():
            async with await trio.open_tcp_stream(HOST, port) as stream:
                await stream.send_all(request.encode())
                answer = b"no answer"
                with trio.move_on_after(1):
                    try:
                        answer = await Wire(stream, client=True).head()
                    except Ended as end:
                        answer = end.how.encode()
            status = answer.split(b"\r\n")[0].decode()
            if not status.startswith(("HTTP/1.1 4", "HTTP/1.1 5")):
                failures.append(f"{name}: {status}")
    if failures:
        wrong("; ".join(failures))
    return f"{len(BAD_REQUESTS)} kinds"


RUNS = 200


class Violations:
    """Send a bad frame and more data, RUNS times, and count what came back."""

    def __init__(self) -> None:
        self.runs = self.closes = self.resets = 0
        self.others: set[str] = set()
        self.over = trio.Event()

    async def one(self, wire: Wire) -> None:
        client = wire.client
        bad = frame(0x3, b"reserved opcode", client=client)
        more = frame(TEXT, b"x" * 1000, client=client)
        with trio.move_on_after(1), contextlib.suppress(trio.BrokenResourceError):
            match self.runs % 4:
                case 0:  # all in one segment
                    await wire.stream.send_all(bad + more)
                case 1:  # more than the library reads at once
                    await wire.stream.send_all(bad + more * 300)
                case 2:  # more comes while the library fails the connection
                    await wire.stream.send_all(bad)
                    for _ in range(20):
                        await wire.stream.send_all(more)
                case 3:  # more comes when it has perhaps gone already
                    await wire.stream.send_all(bad)
                    await trio.sleep(0.005)
                    await wire.stream.send_all(more * 10)
        self.runs += 1
        seen = "nothing for 1 s"
        with trio.move_on_after(1):
            seen = await wire.ending()
        if seen == "Close 1002":
            self.closes += 1
        else:
            self.others.add(seen)
        with trio.move_on_after(1), contextlib.suppress(trio.BrokenResourceError):
            await wire.stream.send_eof()
            if (await wire.ending()).startswith("reset"):
                self.resets += 1
        self.over.set()

    def judge(self) -> str:
        count = f"{self.closes} of {self.runs}"
        if self.closes < RUNS:
            others = ", ".join(sorted(self.others))
            wrong(f"{count} saw Close 1002, the others {others}")
        return f"{count}, {self.resets} then reset"


@scenarios.add("i2", "a server that fails a bad client always says Close 1002")
async def violations_server(library: Library) -> str:
    async def handler(ws: Connection) -> None:
        with contextlib.suppress(*library.closed):
            while True:
                await ws.recv()

    violations = Violations()
    async with library_server(library, handler) as port:
        with trio.move_on_after(12):
            for _ in range(RUNS):
                async with raw_client(port) as wire:
                    await violations.one(wire)
    return violations.judge()


@scenarios.add("i3", "a client that fails a bad server always says Close 1002")
async def violations_client(library: Library) -> str:
    violations = Violations()
    async with raw_server(violations.one) as port:
        with trio.move_on_after(12):
            for _ in range(RUNS):
                violations.over = trio.Event()
                with contextlib.suppress(*library.closed):
                    async with library.connect(port, QUIET) as ws:
                        while True:
                            await ws.recv()
                await violations.over.wait()
    return violations.judge()


# (j) ---------------------------------------------------------------------------


async def woken_ping(library: Library, peer: Callable[[Wire], Awaitable[None]]) -> str:
    how = "returned"
    async with raw_server(peer) as port:
        with (
            limit(3, "ping still waits after 3 s"),
            contextlib.suppress(*library.closed),
        ):
            async with library.connect(port, QUIET) as ws:
                try:
                    await ws.ping()
                except library.closed:
                    how = "raises"
                    raise
    return how


@scenarios.add("j1", "a ping's waiter is woken when the peer closes")
async def ping_closed(library: Library) -> str:
    async def peer(wire: Wire) -> None:
        await trio.sleep(0.2)
        await wire.send(CLOSE, (1000).to_bytes(2))
        await wire.ending()

    return await woken_ping(library, peer)


@scenarios.add("j2", "a ping's waiter is woken by a reset")
async def ping_reset(library: Library) -> str:
    async def peer(wire: Wire) -> None:
        await trio.sleep(0.2)
        wire.reset()

    return await woken_ping(library, peer)
