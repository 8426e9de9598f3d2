"""A page in Chromium, driven over the DevTools protocol by trio_ws itself.

The browser is so tested twice: the WebSocket of its pages against a server of
trio_ws, and its DevTools server against a client of trio_ws.
"""

from __future__ import annotations

import base64
import itertools
import json
import subprocess
import threading
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import trio

import trio_ws
from tests.interop.peer import HOST, TLS, Ending, Library, Peer, Service

_OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
]

# A message of 1 MiB in base64, in JSON, twice over.
MAX_SIZE = 2**23

# What the page does, as one expression. Messages come in order; recv() waits for the
# next one.
SCRIPT = """
globalThis.opened = (uri, protocols) => new Promise((resolve, reject) => {
    const ws = globalThis.ws = new WebSocket(uri, protocols);
    ws.binaryType = "arraybuffer";
    const messages = [], waiting = [];
    ws.onmessage = ({data}) => {
        waiting.length ? waiting.shift()(data) : messages.push(data);
    };
    globalThis.recv = async () => {
        const data = messages.length
            ? messages.shift() : await new Promise(next => waiting.push(next));
        if (typeof data === "string") return {text: data};
        let binary = "";
        for (const byte of new Uint8Array(data)) binary += String.fromCharCode(byte);
        return {base64: btoa(binary)};
    };
    globalThis.errors = 0;
    globalThis.ended = new Promise(resolve => {
        ws.onclose = ({code, reason, wasClean}) =>
            resolve({code, reason, wasClean, errors: globalThis.errors});
    });
    ws.onopen = () => resolve(ws.protocol);
    ws.onerror = () => { globalThis.errors++; reject(new Error("not opened")); };
}),
globalThis.send = ({text, base64}) => globalThis.ws.send(
    text ?? Uint8Array.from(atob(base64), character => character.charCodeAt(0)))
"""


@contextmanager
def chromium(program: str, folder: Path) -> Generator[str, None, None]:
    """Run the browser; give the URI of its DevTools."""
    with subprocess.Popen(
        [program, *_OPTIONS, f"--user-data-dir={folder}", "about:blank"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        with listening(process, "DevTools listening on ") as uri:
            yield uri


@contextmanager
def listening(process: subprocess.Popen[str], said: str) -> Generator[str, None, None]:
    """Wait until a browser has said that, and give what follows it; end it."""
    assert process.stderr is not None
    lines = []
    try:
        for line in process.stderr:
            lines.append(line)
            if line.startswith(said):
                break
        else:
            raise AssertionError("".join(lines))
        # It goes on complaining, of the absence of a desktop mostly.
        reader = threading.Thread(target=process.stderr.read)
        reader.start()
        yield line.split()[-1]
    finally:
        process.terminate()
    reader.join()


class Commands(ABC):
    """Commands and their results, one at a time or several at once."""

    #: With these codes, its verdict may be that an error came, or that it wasn't clean.
    unclean: frozenset[int] = frozenset()

    def __init__(self, ws: trio_ws.ClientConnection) -> None:
        self.ws = ws
        self._ids = itertools.count()
        self._results: dict[int, trio.MemorySendChannel[dict[str, Any]]] = {}

    async def run(self) -> None:
        async for message in self.ws:
            result = json.loads(message)
            if result.get("id") in self._results:  # the rest are events
                self._results.pop(result["id"]).send_nowait(result)

    async def command(self, method: str, **params: object) -> dict[str, Any]:
        number = next(self._ids)
        sender, receiver = trio.open_memory_channel[dict[str, Any]](1)
        self._results[number] = sender
        await self.ws.send(
            json.dumps({"id": number, "method": method, "params": params})
        )
        answer = await receiver.receive()
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    @abstractmethod
    async def evaluate(self, expression: str) -> Any:
        """Evaluate JavaScript; wait for a promise."""


class DevTools(Commands):
    async def evaluate(self, expression: str) -> Any:
        result = await self.command(
            "Runtime.evaluate",
            expression=expression,
            awaitPromise=True,
            returnByValue=True,
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")


@asynccontextmanager
async def devtools(uri: str) -> AsyncGenerator[DevTools, None]:
    async with trio_ws.connect(uri, max_size=MAX_SIZE) as ws:
        tools = DevTools(ws)
        ws.nursery.start_soon(tools.run)
        yield tools
        await ws.aclose()


def uri_of(uri: str, target: str) -> str:
    """The URI of the DevTools of a page."""
    return f"{uri.partition('/devtools/')[0]}/devtools/page/{target}"


@asynccontextmanager
async def page(uri: str) -> AsyncGenerator[DevTools, None]:
    """Open a page of its own; leaving closes it."""
    async with devtools(uri) as browser:
        target = await browser.command("Target.createTarget", url="about:blank")
        async with devtools(uri_of(uri, target["targetId"])) as tools:
            yield tools
        await browser.command("Target.closeTarget", **target)


class PagePeer(Peer):
    """JavaScript has neither pings nor fragments; the browser answers both."""

    can_ping = False
    can_fragment = False

    def __init__(self, tools: Commands, subprotocol: str) -> None:
        self._tools = tools
        self._subprotocol = subprotocol

    @property
    def subprotocol(self) -> str | None:
        return self._subprotocol

    async def send(self, message: str | bytes) -> None:
        if isinstance(message, str):
            data = {"text": message}
        else:
            data = {"base64": base64.b64encode(message).decode()}
        await self._tools.evaluate(f"send({json.dumps(data)})")

    async def recv(self) -> str | bytes:
        data = await self._tools.evaluate("recv()")
        if "text" in data:
            text: str = data["text"]
            return text
        return base64.b64decode(data["base64"])

    async def close(self, code: int, reason: str) -> None:
        await self._tools.evaluate(f"ws.close({code}, {json.dumps(reason)}), ended")

    async def closed(self) -> Ending:
        ended = await self._tools.evaluate("ended")
        ending = Ending(ended["code"], ended["reason"])
        # The browser's own verdict.
        if ending.code not in self._tools.unclean:
            assert ended["wasClean"] is (ending.code != 1006)
            assert ended["errors"] == 0
        return ending


class PageLibrary(Library):
    """A browser, given what opens a page in it."""

    def __init__(
        self, page: Callable[[], AbstractAsyncContextManager[Commands]]
    ) -> None:
        self._page = page

    @asynccontextmanager
    async def connect(
        self, port: int, *, subprotocols: Sequence[str] = (), tls: TLS | None = None
    ) -> AsyncGenerator[Peer, None]:
        assert tls is None
        async with self._page() as tools:
            await tools.evaluate(SCRIPT)
            arguments = json.dumps([f"ws://{HOST}:{port}/", list(subprotocols)])
            yield PagePeer(tools, await tools.evaluate(f"opened(...{arguments})"))

    def serve(
        self, *, subprotocols: Sequence[str] = (), tls: TLS | None = None
    ) -> AbstractAsyncContextManager[Service]:
        raise NotImplementedError
