"""Row 14: system calls of a socket that fail."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import sys
from collections.abc import Callable
from typing import Any

import trio

from tests.programs.faults.harness import OURS, RIVAL, Bound, Figures, Rows, Size
from tests.programs.rivals.adapters import LIBRARIES, Connection, Library, Options

rows = Rows()

NAMES = {OURS: "trio_ws", RIVAL: "websockets.trio"}

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
