"""What a peer is, and which there are.

A peer is a library on an event loop. It says how to serve and how to connect, by
the library's own documented calls; all workloads are made of that, and a library
whose interface is another one (callbacks, plain sockets) writes a workload itself.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import sys
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import trio

HOST = "127.0.0.1"


class WrongData(Exception):
    """What came isn't what was sent."""


@dataclass(frozen=True)
class Options:
    """How the connections of a workload are."""

    size: int  # of each message; raw streams have no other framing
    tls: bool = False
    deflate: bool = False  # and messages of text
    keepalive: bool = True  # as the library has it by default
    max_size: int | None = None  # as the library has it by default


class End(NamedTuple):
    """One end of a connection. The library's own methods: no wrapper is timed."""

    send: Callable[[Any], Awaitable[object]]
    recv: Callable[[], Awaitable[Any]]


Message = str | bytes
Handler = Callable[[End], Awaitable[None]]
#: Do something so many times, all of it checked; return what else there is to tell.
Drive = Callable[[int], Awaitable[dict[str, Any] | None]]


class Event(Protocol):
    def set(self) -> None: ...
    async def wait(self) -> object: ...


class Unsupported(Exception):
    """The peer has no such thing."""


async def echo(end: End) -> None:
    send, recv = end
    while True:
        await send(await recv())


class Peer(ABC):
    """A library and a loop; see TrioPeer and AsyncioPeer for the latter."""

    #: permessage-deflate
    can_deflate = True
    #: Connections begin with a handshake.
    upgrades = True

    # The loop

    @abstractmethod
    def run(self, main: Callable[[], Awaitable[None]]) -> None: ...
    @abstractmethod
    def event(self) -> Event: ...
    @abstractmethod
    async def both(self, *functions: Callable[[], Awaitable[None]]) -> None: ...
    @abstractmethod
    async def in_thread(self, function: Callable[..., Any], *args: object) -> Any: ...
    @abstractmethod
    async def sleep(self, seconds: float) -> None: ...

    # The library

    @abstractmethod
    def server(
        self, handler: Handler, options: Options
    ) -> AbstractAsyncContextManager[int]:
        """Serve while in the block, which gets the port.

        The handler may be ended by what the library raises at a close.
        """

    @abstractmethod
    def client(
        self, port: int, options: Options
    ) -> AbstractAsyncContextManager[End]: ...

    # Workloads

    def echo_server(self, options: Options) -> AbstractAsyncContextManager[int]:
        return self.server(echo, options)

    @asynccontextmanager
    async def round_trips(
        self, options: Options, messages: Sequence[Message]
    ) -> AsyncIterator[Drive]:
        """Send a message, wait until the server's echo of it is here."""

        async def drive(count: int) -> None:
            for number in range(count):
                message = messages[number % len(messages)]
                await send(message)
                if await recv() != message:
                    raise WrongData(f"an echo of {len(message)} bytes differs")

        async with (
            self.echo_server(options) as port,
            self.client(port, options) as (send, recv),
        ):
            yield drive

    @asynccontextmanager
    async def one_way(
        self, options: Options, message: Message, *, from_client: bool
    ) -> AsyncIterator[Drive]:
        """Send one message after the other; done when the last one is there."""
        ends: list[End] = []
        ready, over = self.event(), self.event()

        async def handler(end: End) -> None:
            ends.append(end)
            ready.set()
            await over.wait()

        async def drive(count: int) -> None:
            async def send_all() -> None:
                send = sender.send
                for _ in range(count):
                    await send(message)

            async def receive_all() -> None:
                recv = receiver.recv
                for _ in range(count):
                    if await recv() != message:
                        raise WrongData(f"a message of {len(message)} bytes differs")

            await self.both(send_all, receive_all)

        async with self.server(handler, options) as port:
            async with self.client(port, options) as client:
                await ready.wait()
                sender, receiver = client, ends[0]
                if not from_client:
                    sender, receiver = receiver, sender
                yield drive
                over.set()

    @asynccontextmanager
    async def connects(self, options: Options) -> AsyncIterator[Drive]:
        """Connect, upgrade, close; done when the server's end is closed, too."""
        ended = 0

        async def handler(end: End) -> None:
            nonlocal ended
            try:
                if not self.upgrades:
                    await end.send(await end.recv())
                await end.recv()
            finally:
                ended += 1

        async def drive(count: int) -> None:
            nonlocal ended
            ended = 0
            for _ in range(count):
                async with self.client(port, options) as end:
                    if not self.upgrades:  # an exchange in place of it
                        await end.send(bytes(options.size))
                        await end.recv()
            while ended < count:
                await self.sleep(0)

        async with self.server(handler, options) as port:
            yield drive

    def broadcasting(
        self, options: Options
    ) -> AbstractAsyncContextManager[tuple[int, Callable[[bytes], Awaitable[None]]]]:
        """Yield the port and what sends a message to all who are connected."""
        raise Unsupported


class TrioPeer(Peer):
    def run(self, main: Callable[[], Awaitable[None]]) -> None:
        trio.run(main)

    def event(self) -> Event:
        return trio.Event()

    async def both(self, *functions: Callable[[], Awaitable[None]]) -> None:
        async with trio.open_nursery() as nursery:
            for function in functions:
                nursery.start_soon(function)

    async def in_thread(self, function: Callable[..., Any], *args: object) -> Any:
        return await trio.to_thread.run_sync(function, *args)

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)


class AsyncioPeer(Peer):
    def __init__(self, *, uvloop: bool = False) -> None:
        self.uvloop = uvloop

    def run(self, main: Callable[[], Awaitable[None]]) -> None:
        factory: Any = asyncio.new_event_loop
        if self.uvloop:
            factory = importlib.import_module("uvloop").new_event_loop

        async def coroutine() -> None:
            await main()

        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(coroutine())

    def event(self) -> Event:
        return asyncio.Event()

    async def both(self, *functions: Callable[[], Awaitable[None]]) -> None:
        await asyncio.gather(*(function() for function in functions))

    async def in_thread(self, function: Callable[..., Any], *args: object) -> Any:
        return await asyncio.to_thread(function, *args)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@dataclass(frozen=True)
class Spec:
    """Which class of which module of this folder makes a peer."""

    module: str
    cls: str
    #: As installed, for their versions.
    packages: tuple[str, ...]
    arguments: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    #: Modules that are as if they weren't installed: the extra `speed` of trio_ws,
    #: where it isn't what is measured.
    hidden: tuple[str, ...] = ("isal",)
    #: Where else to look for the library, first.
    folder: str = ""

    def make(self) -> Peer:
        """Import the library; raises ImportError without it."""
        if self.folder:
            sys.path.insert(0, self.folder)
        module = importlib.import_module(f"{__name__}.{self.module}")
        peer: Peer = getattr(module, self.cls)(**self.arguments)
        return peer


RAW_SOCKETS, RAW_TRIO = "raw sockets", "raw trio streams"
BARE_LOOP = "system calls on trio's loop"
CHANNEL, CANCELLABLE = "trio memory channel", "cancellation points alone"
TRIO_WS, PURE, WITH_ISAL = "trio_ws", "trio_ws, pure Python", "trio_ws + ISA-L"
WEBSOCKETS_TRIO, TRIO_WEBSOCKET = "websockets.trio", "trio-websocket"
PURE_WEBSOCKETS = "websockets.trio, pure Python"
WEBSOCKETS, AIOHTTP = "websockets", "aiohttp"
PICOWS, PICOWS_CORE = "picows async API", "picows core"
UVLOOP = " + uvloop"

_asyncio = functools.partial(Spec, arguments={"uvloop": False})
_uvloop = functools.partial(Spec, arguments={"uvloop": True})
PEERS = {
    RAW_SOCKETS: Spec("raw_sockets", "RawSockets", ()),
    RAW_TRIO: Spec("raw_trio", "RawTrio", ()),
    BARE_LOOP: Spec("raw_trio", "BareLoop", ()),
    CHANNEL: Spec("raw_trio", "MemoryChannel", ()),
    CANCELLABLE: Spec("raw_trio", "CancellationPoints", ()),
    TRIO_WS: Spec("trio_ws", "TrioWs", ("trio_ws",)),
    PURE: Spec("trio_ws", "TrioWs", ("trio_ws",), environment={"TRIO_WS_PURE": "1"}),
    WITH_ISAL: Spec("trio_ws", "TrioWs", ("trio_ws", "isal"), hidden=()),
    WEBSOCKETS_TRIO: Spec("websockets", "WebsocketsTrio", ("websockets",)),
    PURE_WEBSOCKETS: Spec(
        "websockets",
        "WebsocketsTrio",
        ("websockets",),
        hidden=("isal", "websockets.speedups"),
    ),
    TRIO_WEBSOCKET: Spec(
        "trio_websocket", "TrioWebsocket", ("trio-websocket", "wsproto")
    ),
    WEBSOCKETS: _asyncio("websockets", "WebsocketsAsyncio", ("websockets",)),
    WEBSOCKETS + UVLOOP: _uvloop(
        "websockets", "WebsocketsAsyncio", ("websockets", "uvloop")
    ),
    AIOHTTP: _asyncio("aiohttp", "Aiohttp", ("aiohttp",)),
    AIOHTTP + UVLOOP: _uvloop("aiohttp", "Aiohttp", ("aiohttp", "uvloop")),
    PICOWS: _asyncio("picows", "PicowsAsync", ("picows", "aiofastnet")),
    PICOWS + UVLOOP: _uvloop(
        "picows", "PicowsAsync", ("picows", "aiofastnet", "uvloop")
    ),
    PICOWS_CORE: _asyncio("picows", "PicowsCore", ("picows", "aiofastnet")),
    PICOWS_CORE + UVLOOP: _uvloop(
        "picows", "PicowsCore", ("picows", "aiofastnet", "uvloop")
    ),
}


def at(name: str, folder: Path) -> str:
    """Name a peer whose library is that in a folder."""
    return f"{name}@{folder}"


def spec_of(name: str) -> Spec:
    """Return what makes the peer of that name."""
    name, _, folder = name.partition("@")
    return replace(PEERS[name], folder=folder)
