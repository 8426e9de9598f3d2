"""A page in Firefox, driven over WebDriver BiDi by trio_ws itself.

It is so tested twice, as Chromium is: its pages, and its server of BiDi.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import trio

import trio_ws
from tests.interop.chromium_peer import MAX_SIZE, Commands, listening
from tests.interop.peer import LIMIT


@contextmanager
def firefox(program: str, folder: Path) -> Generator[str, None, None]:
    """Run the browser; give the URI of its BiDi."""
    command = [program, "--headless", "--no-remote", "--profile", str(folder)]
    with subprocess.Popen(
        [*command, "--remote-debugging-port=0", "about:blank"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "HOME": str(folder)},
    ) as process:
        with listening(process, "WebDriver BiDi listening on ") as uri:
            yield f"{uri}/session"


_END = {"id": 2**32, "method": "session.end", "params": {}}


class BiDi(Commands):
    """The one session that a browser has, and one page in it."""

    page = ""
    # A reset is an error to it, an end of TCP before its answer is unclean.
    unclean = frozenset({1006, 1009})

    async def evaluate(self, expression: str) -> Any:
        """Evaluate JavaScript; wait for a promise."""
        answer = await self.command(
            "script.evaluate",
            expression=f"(async () => JSON.stringify(await ({expression})))()",
            awaitPromise=True,
            target={"context": self.page},
        )
        assert answer["type"] == "success", answer
        value = answer["result"].get("value")
        return None if value is None else json.loads(value)


@asynccontextmanager
async def page(uri: str) -> AsyncGenerator[BiDi, None]:
    """Begin a session, and open a page in it; leaving ends both."""
    async with trio_ws.connect(uri, max_size=MAX_SIZE) as ws:
        tools = BiDi(ws)
        ws.nursery.start_soon(tools.run)
        await tools.command("session.new", capabilities={})
        try:
            created = await tools.command("browsingContext.create", type="tab")
            tools.page = created["context"]
            yield tools
            await tools.command("browsingContext.close", context=tools.page)
        finally:
            # Or the next one isn't begun; it ends the connection, too.
            with trio.move_on_after(LIMIT, shield=True):
                await ws.send(json.dumps(_END))
                await ws.wait_closed()
