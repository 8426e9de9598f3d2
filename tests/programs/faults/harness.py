"""What the rows have in common: what a row is, and the server that it is done to."""

from __future__ import annotations

import contextlib
import enum
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from tests.programs.rivals.adapters import HOST
from tests.programs.rivals.wire import REQUEST, Wire

HERE = Path(__file__).parent
KIB, MIB = 1024, 1024 * 1024

#: The library that is judged, the one beside it, and a server on trio's streams that
#: does no more than to read and echo bytes: what this machine can do just now.
OURS, RIVAL, BARE = "trio_ws", "websockets", "bare"


class Size(enum.Enum):
    """How much of a row is done."""

    QUICK = "quick"  # in the tests
    NORMAL = "normal"
    LONG = "long"


class Skipped(Exception):
    """A row can't be measured here, with the reason."""


Figures = dict[str, float]
Measure = Callable[[str, Size], Awaitable[Figures]]


@dataclass(frozen=True)
class Bound:
    """What a figure has to be; ``over`` adds that of another server to ``most``."""

    name: str
    most: float | None = None
    unit: str = ""
    least: float | None = None
    over: str | None = None
    timed: bool = False  # means something on a quiet machine only

    def limit(self, beside: dict[str, Figures]) -> float:
        """Return the limit, given the figures of others."""
        limit = self.most if self.most is not None else self.least
        assert limit is not None
        other = beside.get(self.over or "", {}).get(self.name, 0)
        return limit + other

    def holds(self, figure: float, beside: dict[str, Figures]) -> bool:
        """Whether a figure is within the bound."""
        limit = self.limit(beside)
        return figure <= limit if self.most is not None else figure >= limit


@dataclass(frozen=True)
class Row:
    """A row: a scenario, what has to hold, and for whom it is measured."""

    key: str
    title: str
    bounds: tuple[Bound, ...]
    measure: Measure
    others: tuple[str, ...]
    why: str  # a rival has no figure
    seconds: float  # that it may take at most, for one library
    quick: bool  # also among the tests


class Rows(dict[str, Row]):
    """The rows of one module."""

    def add(
        self,
        key: str,
        title: str,
        *bounds: Bound,
        others: tuple[str, ...] = (RIVAL,),
        why: str = "",
        seconds: float = 40,
        quick: bool = False,
    ) -> Callable[[Measure], Measure]:
        """Register a function that measures for a library by its name."""

        def register(measure: Measure) -> Measure:
            self[key] = Row(key, title, bounds, measure, others, why, seconds, quick)
            return measure

        return register


class Child:
    """A process that answers each line of its input with one, both in JSON."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self._buffer = b""

    async def ask(self, command: str = "facts", **given: Any) -> dict[str, Any]:
        """Have it do something, and return what it says."""
        assert self.process.stdin is not None
        line = json.dumps({"do": command, **given}) + "\n"
        await self.process.stdin.send_all(line.encode())
        return await self.told()

    async def told(self) -> dict[str, Any]:
        """Return what it says next."""
        assert self.process.stdout is not None
        while b"\n" not in self._buffer:
            data = await self.process.stdout.receive_some()
            if not data:
                raise RuntimeError("a process that was asked has died")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextlib.asynccontextmanager
async def child(
    script: str, *arguments: str, keeps: tuple[int, ...] = ()
) -> AsyncIterator[Child]:
    """Run a script of this folder, which keeps some descriptors."""
    process = await trio.lowlevel.open_process(
        [sys.executable, str(HERE / script), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=keeps,
    )
    try:
        yield Child(process)
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


class Victim:
    """A server in a process of its own; see victim.py for what it tells."""

    def __init__(self, child: Child, port: int) -> None:
        self.process = child.process
        self.port = port
        self.ask = child.ask

    async def until(self, fact: str, most: float) -> None:
        """Wait until a fact has gone down to a number."""
        facts = await self.ask()
        while facts[fact] > most:
            await trio.sleep(0.2)
            facts = await self.ask()


@contextlib.asynccontextmanager
async def victim(library: str, **given: Any) -> AsyncIterator[Victim]:
    """Run victim.py with a library and its keywords."""
    async with child("victim.py", library, json.dumps(given)) as process:
        yield Victim(process, (await process.told())["port"])


async def opened(
    port: int,
    path: str = "/",
    *,
    deflate: bool = False,
    receive_buffer: int | None = None,
) -> Wire:
    """Open a connection whose every byte is the row's."""
    socket = trio.socket.socket()
    try:
        if receive_buffer is not None:
            option = trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF
            socket.setsockopt(*option, receive_buffer)
        await socket.connect((HOST, port))
    except BaseException:
        socket.close()
        raise
    stream = trio.SocketStream(socket)
    request = REQUEST.replace("GET /", f"GET {path}", 1)
    if deflate:
        line = "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
        request = request[:-2] + line
    wire = Wire(stream, client=True)
    await stream.send_all(request.encode())
    head = await wire.head()
    assert head.startswith(b"HTTP/1.1 101 "), head
    assert not deflate or b"permessage-deflate" in head
    return wire


async def ends(wire: Wire) -> str:
    """Say how the server ended a connection, within 20 seconds."""
    with trio.move_on_after(20):
        return await wire.ending()
    return "it goes on"


async def probed(victim: Victim, seconds: float) -> Figures:
    """Ask for echoes for so long, by a process of its own; say how long they took."""
    done = await trio.run_process(
        [sys.executable, str(HERE / "prober.py"), str(victim.port), str(seconds)],
        capture_stdout=True,
    )
    figures: Figures = json.loads(done.stdout)
    return figures
