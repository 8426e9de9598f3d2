"""Other implementations, in whatever language: a process each, driven by lines of JSON.

A program in peers/ makes one connection: ``PROGRAM client PORT SUBPROTOCOL...`` or
``PROGRAM server SUBPROTOCOL...``. What it is told on stdin, and what it tells on
stdout, stands in README.md. What it says on stderr, or another status than 0, fails.
"""

from __future__ import annotations

import base64
import json
import math
import os
import subprocess
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from tests.interop.peer import TLS, Ending, Library, Peer, Service

FOLDER = Path(__file__).parent / "peers"

#: Where `make interop` puts what it builds and installs.
BUILT = Path(__file__).parents[2] / "build" / "interop"

# That and Debian's.
NODE_PATH = f"{BUILT / 'node_modules'}:/usr/share/nodejs"


class ProcessPeer(Peer):
    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._events: dict[str, tuple[_Sender, _Receiver]] = {
            event: trio.open_memory_channel(math.inf)
            for event in ("listening", "open", "message", "sent", "pong", "closed")
        }
        self._subprotocol: str | None = None
        self._ending: Ending | None = None
        self.complaints = ""

    async def run(self) -> None:
        """Read what it tells, and then what it complains of, until it ends."""
        assert self._process.stdout is not None
        line = bytearray()
        async for data in self._process.stdout:
            *whole, rest = data.split(b"\n")
            for end in whole:
                told = json.loads(line + end)
                line.clear()
                self._events[told.pop("event")][0].send_nowait(told)
            line += rest
        assert self._process.stderr is not None
        self.complaints = b"".join([d async for d in self._process.stderr]).decode()
        for sender, _ in self._events.values():
            sender.close()

    async def told(self, event: str) -> dict[str, Any]:
        try:
            return await self._events[event][1].receive()
        except trio.EndOfChannel:
            raise AssertionError(f"it ended: {self.complaints}") from None

    async def opened(self) -> None:
        self._subprotocol = (await self.told("open"))["subprotocol"]

    async def _tell(self, command: str, **more: object) -> None:
        assert self._process.stdin is not None
        line = json.dumps({"do": command, **more}, ensure_ascii=False)
        await self._process.stdin.send_all(line.encode() + b"\n")

    @property
    def subprotocol(self) -> str | None:
        return self._subprotocol

    async def send(self, message: str | bytes, *, fin: bool = True) -> None:
        text = isinstance(message, str)
        data = message.encode() if isinstance(message, str) else message
        encoded = base64.b64encode(data).decode()
        await self._tell("send", text=text, data=encoded, fin=fin)
        await self.told("sent")

    async def send_fragments(self, fragments: Sequence[str | bytes]) -> None:
        for index, fragment in enumerate(fragments):
            last = index == len(fragments) - 1
            await self.send(fragment, fin=last)
            if not last:
                await self.ping()

    async def recv(self) -> str | bytes:
        message = await self.told("message")
        data = base64.b64decode(message["data"])
        return data.decode() if message["text"] else data

    async def ping(self) -> None:
        await self._tell("ping")
        while (await self.told("pong"))["data"] != "theirs":
            pass

    async def close(self, code: int, reason: str) -> None:
        await self._tell("close", code=code, reason=reason)
        await self.closed()

    async def closed(self) -> Ending:
        if self._ending is None:
            self._ending = Ending(**await self.told("closed"))
        return self._ending


_Sender = trio.MemorySendChannel[dict[str, Any]]
_Receiver = trio.MemoryReceiveChannel[dict[str, Any]]


class ProcessService(Service):
    def __init__(self, peer: ProcessPeer, port: int) -> None:
        self._peer = peer
        self.port = port

    async def accept(self) -> Peer:
        await self._peer.opened()
        return self._peer


@dataclass(frozen=True)
class Program(Library):
    """A program in peers/, or what is built of it; with what its library lacks."""

    command: Sequence[str | Path]
    #: What has to be there: of each line of alternatives, one.
    needs: Sequence[Sequence[Path]] = ()
    traits: dict[str, bool] = field(default_factory=dict)
    #: What to install for it.
    packages: str = ""

    def lacks(self) -> str | None:
        """Return what isn't there, and what it takes."""
        for paths in self.needs:
            if not any(path.exists() for path in paths):
                return f"{paths[0]} is not there: install {self.packages}"
        return None

    @asynccontextmanager
    async def _running(self, *arguments: str) -> AsyncGenerator[ProcessPeer, None]:
        process = await trio.lowlevel.open_process(
            [os.fspath(part) for part in self.command] + list(arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "NODE_PATH": NODE_PATH},
        )
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        peer = ProcessPeer(process)
        vars(peer).update(self.traits)
        async with process.stdin, process.stdout, process.stderr:
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(peer.run)
                    yield peer
                    await peer.closed()
                    await process.stdin.aclose()
                assert (await process.wait(), peer.complaints) == (0, "")
            finally:
                if process.poll() is None:
                    process.kill()
                with trio.CancelScope(shield=True):
                    await process.wait()

    @asynccontextmanager
    async def connect(
        self, port: int, *, subprotocols: Sequence[str] = (), tls: TLS | None = None
    ) -> AsyncGenerator[Peer, None]:
        assert tls is None
        async with self._running("client", str(port), *subprotocols) as peer:
            await peer.opened()
            yield peer

    @asynccontextmanager
    async def serve(
        self, *, subprotocols: Sequence[str] = (), tls: TLS | None = None
    ) -> AsyncGenerator[Service, None]:
        assert tls is None
        async with self._running("server", *subprotocols) as peer:
            yield ProcessService(peer, (await peer.told("listening"))["port"])
