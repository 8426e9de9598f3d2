"""The user's code: what each connection of the demo runs.

The page shows the text of these functions, and marks in it the lines that they are at.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import trio

from ... import ClientConnection, Server, ServerConnection, connect, serve


class Stage(Protocol):
    """What the functions below are given of the lane that they run in."""

    server_scope: trio.CancelScope

    def watched(
        self, handler: Callable[[ServerConnection], Awaitable[None]]
    ) -> Callable[[ServerConnection], Awaitable[None]]:
        """Return the handler, of which the page shows how it ends."""

    @property
    def options(self) -> dict[str, Any]:
        """What the server is given besides: the client's times, a log to show."""

    def watch(self, ws: ClientConnection) -> None:
        """Show this connection on the page."""

    async def work(self, message: str | bytes) -> None:
        """Do something with a message; takes for ever while reading is stopped."""


# The two sides of a connection.


async def handler(ws: ServerConnection) -> None:
    async for message in ws:
        await ws.send(message)


async def server(stage: Stage, task_status: trio.TaskStatus[Server]) -> None:
    with stage.server_scope:
        await serve(stage.watched(handler), 0, task_status=task_status, **stage.options)


async def client(uri: str, stage: Stage) -> None:
    async with connect(uri, ping_interval=0.5, ping_timeout=2) as ws:
        stage.watch(ws)
        ws.nursery.start_soon(talk, ws)
        async for message in ws:
            await stage.work(message)


async def talk(ws: ClientConnection) -> None:
    while True:
        await ws.send(bytes(16384))
        await trio.sleep(0.05)


# What buttons start in the nursery of the server's connection, or call.


async def close(ws: ServerConnection, code: int, reason: str) -> None:
    await ws.aclose(code, reason)


async def flood(ws: ServerConnection) -> None:
    with trio.move_on_after(3):
        while True:
            await ws.send(bytes(16384))


async def fail(ws: ServerConnection) -> None:
    raise LookupError("a bug in the handler")


def cancel(scope: trio.CancelScope) -> None:
    scope.cancel()


#: Of each side, the functions whose lines the page marks.
SIDES: dict[str, tuple[Callable[..., object], ...]] = {
    "server": (handler, server),
    "client": (client, talk),
}

#: By its code object, the name of a function, and its first line.
LINES = {
    function.__code__: (function.__name__, function.__code__.co_firstlineno)
    for function in (handler, server, client, talk, close, flood, fail)
}


def text_of(function: Callable[..., object]) -> str:
    """Return the source of a function as it runs."""
    return inspect.cleandoc("\n" + inspect.getsource(function))
