"""Rows 7 and 14: a network, a peer or a system that fails, idle and at work."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import signal
import socket
import stat
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import trio

from tests.peers.certificates import contexts
from tests.programs.faults.harness import (
    OURS,
    RIVAL,
    Bound,
    Figures,
    Rows,
    Size,
    victim,
)
from tests.programs.faults.relay import Link, Relay
from tests.programs.rivals.adapters import HOST, LIBRARIES, Connection, Library, Options

rows = Rows()

NAMES = {OURS: "trio_ws", RIVAL: "websockets.trio"}
INTERVAL, TIMEOUT, CLOSING = 1.0, 1.0, 1.0
OPTIONS = Options(INTERVAL, TIMEOUT, CLOSING, loss_grace=0.3)
BLOCK, PAUSE = 65536, 0.02

# 7 -----------------------------------------------------------------------------

FAULTS = ("reset", "half-close", "black hole")
DOING = ("idle", "sending", "pushing")


@dataclass
class End:
    """When one end was told of the loss, and when it had left."""

    began: float = math.nan  # that the fault did
    told: float = math.nan
    left: float = math.nan


class Ours(Library):
    """trio_ws over TLS."""

    def __init__(self, plain: Library) -> None:
        self.plain: Any = plain
        self.name = self.package = plain.name
        self.closed = plain.closed

    def connect(
        self, port: int, options: Options
    ) -> AbstractAsyncContextManager[Connection]:
        scope: AbstractAsyncContextManager[Connection] = self.plain.library.connect(
            f"wss://localhost:{port}/",
            ssl=contexts()[0],
            compression=None,
            **vars(options),
        )
        return scope

    async def run_server(
        self, handler: Any, listeners: list[trio.SocketListener], options: Options
    ) -> None:
        await self.plain.library.serve(
            handler,
            listeners=listeners,
            ssl=contexts()[1],
            compression=None,
            **vars(options),
        )


async def use(ws: Connection, sends: bool) -> None:
    """Send, or receive, until that raises."""
    while True:
        if sends:
            await ws.send(bytes(BLOCK))
            await trio.sleep(PAUSE)
        else:
            await ws.recv()


async def strike(link: Link, fault: str) -> None:
    if fault == "reset":
        link.reset()
    elif fault == "half-close":
        await link.half_close()
    else:
        link.freeze()


async def lose(library: Library, fault: str, doing: str, ends: list[End]) -> None:
    """Let a connection break; note when either end was told."""
    client, server = End(), End()
    ends += client, server
    over = trio.Event()

    async def body(ws: Connection, end: End, sends: bool) -> None:
        try:
            await use(ws, sends)
        except library.closed:
            end.told = trio.current_time()
            raise

    async def handle(ws: Connection) -> None:
        try:
            await body(ws, server, doing == "pushing")
        finally:
            over.set()

    async with trio.open_nursery() as nursery:
        port = await nursery.start(library.serve, handle, OPTIONS)
        relay = Relay(port)
        port = await nursery.start(relay.run)

        async def connect() -> None:
            try:
                async with library.connect(port, OPTIONS) as ws:
                    await body(ws, client, doing == "sending")
            except library.closed:
                client.left = trio.current_time()

        async with trio.open_nursery() as inner:
            inner.start_soon(connect)
            await trio.sleep(0.7)
            client.began = server.began = trio.current_time()
            await strike(relay.links[0], fault)
        with trio.move_on_after(2 * (INTERVAL + TIMEOUT)):
            await over.wait()
        server.left = trio.current_time()
        nursery.cancel_scope.cancel()


async def stopped(library: str, sends: bool, ends: list[End]) -> None:
    """Let the server's process be stopped."""
    end = End()
    ends.append(end)
    ours = LIBRARIES[NAMES[library]]()
    path = "read"
    async with victim(library, compression=None) as server:
        try:
            async with reaching(ours, server.port, path) as ws:
                await trio.sleep(0.5)
                end.began = trio.current_time()
                server.process.send_signal(signal.SIGSTOP)
                try:
                    await use(ws, sends)
                finally:
                    end.told = trio.current_time()
        except ours.closed:
            end.left = trio.current_time()


@asynccontextmanager
async def reaching(library: Library, port: int, path: str) -> AsyncIterator[Connection]:
    """Open a connection to a path, which adapters have none for."""
    module: Any = getattr(library, "library", None) or library.client  # type: ignore[attr-defined]
    given = dict(vars(OPTIONS))
    if library.name != "trio_ws":
        del given["loss_grace"]
        given["proxy"] = None
    uri = f"ws://{HOST}:{port}/{path}"
    async with module.connect(uri, compression=None, **given) as ws:
        yield ws


def worst(values: list[float]) -> float:
    """Return the most; a number that isn't one says that it never came."""
    return max(math.inf if math.isnan(value) else value for value in values)


@rows.add(
    "7",
    "A reset, a half-close, a black hole, while idle, sending or pushing, TCP and TLS; "
    "SIGSTOP of the server, while idle or sending; ping_interval, ping_timeout and "
    "close_timeout are 1 s",
    Bound("told after", INTERVAL + TIMEOUT + 0.5, "s"),
    Bound("told of a reset or a half-close after", 0.5, "s", timed=True),
    Bound("from there to the end of the scope", CLOSING + 0.5, "s"),
    Bound("tasks left", 0),
    Bound("descriptors left", 0),
    others=(),
    why="only trio_ws was run",
    seconds=60,
)
async def broken_networks(library: str, size: Size) -> Figures:
    plain = LIBRARIES[NAMES[library]]()
    ways = [plain, Ours(plain)] if library == OURS else [plain]
    contexts()  # takes a while, once
    tasks, files = left_behind()
    found: dict[str, list[End]] = {fault: [] for fault in (*FAULTS, "SIGSTOP")}
    with trio.move_on_after(20):
        async with trio.open_nursery() as nursery:
            for way in ways:
                for fault in FAULTS:
                    for doing in DOING:
                        nursery.start_soon(lose, way, fault, doing, found[fault])
            for sends in (False, True):
                nursery.start_soon(stopped, library, sends, found["SIGSTOP"])
    every = [end for ends in found.values() for end in ends]
    quick = found["reset"] + found["half-close"]
    tasks_now, files_now = left_behind()
    return {
        "told after": worst([end.told - end.began for end in every]),
        "told of a reset or a half-close after": worst(
            [end.told - end.began for end in quick]
        ),
        "from there to the end of the scope": worst(
            [end.left - end.told for end in every]
        ),
        "tasks left": tasks_now - tasks,
        "descriptors left": files_now - files,
    }


def left_behind() -> tuple[int, int]:
    return (
        trio.lowlevel.current_statistics().tasks_living,
        len(os.listdir("/dev/fd")),
    )


# 14 ----------------------------------------------------------------------------

ERRORS = (
    *(errno.EPIPE, errno.ECONNRESET, errno.ECONNABORTED, errno.ETIMEDOUT),
    *(errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.ENOBUFS),
    *(errno.ENOMEM, errno.EIO, errno.EBADF),
)
CALLS = {"receiving": ("recv", "recv_into"), "sending": ("send", "sendmsg")}


class Failing:
    """Makes calls of one socket fail."""

    def __init__(self, error: BaseException, names: tuple[str, ...]) -> None:
        self._error = error
        self._names = names
        self._whole = {name: getattr(socket.socket, name) for name in names}
        self.number = -1

    def __enter__(self) -> Failing:
        for name in self._names:
            setattr(socket.socket, name, self._wrapped(self._whole[name]))
        return self

    def __exit__(self, *_: object) -> None:
        for name in self._names:
            delattr(socket.socket, name)  # that of the base class is there again

    def _wrapped(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(sock: socket.socket, *args: Any) -> Any:
            if sock.fileno() == self.number:
                raise self._error
            return call(sock, *args)

        return wrapper


def is_caused_by(raised: BaseException | None, error: BaseException) -> bool:
    while raised is not None:
        if raised is error:
            return True
        raised = raised.__cause__ or raised.__context__
    return False


async def fails(library: Library, error: BaseException, names: tuple[str, ...]) -> bool:
    """Let a client's socket fail; return whether it was told why, and it alone."""

    async def echo(ws: Connection) -> None:
        try:
            while True:
                message = await ws.recv()
                assert isinstance(message, bytes)
                await ws.send(message)
        except library.closed:
            pass

    async def ask(ws: Connection) -> None:
        for size in (100, 100_000):
            await ws.send(bytes(size))
            assert await ws.recv() == bytes(size)

    told = False
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            port = await nursery.start(library.serve, echo, Options())
            async with library.connect(port, Options()) as other:
                await ask(other)
                before = clients_of(port)
                with Failing(error, names) as failing:
                    try:
                        async with library.connect(port, Options()) as ws:
                            await ask(ws)
                            (failing.number,) = clients_of(port) - before
                            await ask(ws)
                    except library.closed as exc:
                        told = is_caused_by(exc, error)
                    await ask(other)
            nursery.cancel_scope.cancel()
    return told


def clients_of(port: int) -> set[int]:
    """Return the descriptors that are connected to a port."""
    found = set()
    for number in map(int, os.listdir("/dev/fd")):
        with contextlib.suppress(OSError):  # it is closed by now, or no connection
            if not stat.S_ISSOCK(os.fstat(number).st_mode):
                continue
            with socket.socket(fileno=os.dup(number)) as one:
                if one.family is socket.AF_INET and one.getpeername()[1] == port:
                    found.add(number)
    return found


@rows.add(
    "14",
    "A socket's calls fail with one of eleven errors of the system, or MemoryError, "
    "while others are served",
    Bound("told why, by ConnectionClosedError", least=100, unit="%"),
    Bound("others hurt, or without an end", 0),
    others=(),
    why="only trio_ws was run",
    quick=True,
)
async def failing_calls(library: str, size: Size) -> Figures:
    named = LIBRARIES[NAMES[library]]()
    told: list[bool] = []
    hurt = 0
    errors = [*(OSError(n, os.strerror(n)) for n in ERRORS), MemoryError()]
    for error in errors:
        for names in CALLS.values():
            try:
                told.append(await fails(named, error, names))
            except Exception as exc:  # noqa: BLE001 - counts
                print(f"{error!r} in {names}: {exc!r}", file=sys.stderr)
                hurt += 1
    return {
        "told why, by ConnectionClosedError": sum(told) / len(errors) / 2 * 100,
        "others hurt, or without an end": hurt,
    }
