"""Take a screenshot of a page: a client of Chrome's DevTools.

It starts a Chromium without a window, which says on stderr where its DevTools listen: a
WebSocket that takes commands as JSON and answers by their numbers. What happens in the
page comes in between, as events. To run it: python screenshot.py [PNG [URL]]

CHROMIUM in the environment names the program, if it isn't found.
"""

import base64
import functools
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import trio

from trio_ws import ClientConnection, ConnectionClosed, connect

PAGE = "data:text/html,<body style='background: %2306c; color: white'><h1>Hello!</h1>"
NAMES = ["chromium", "chromium-browser", "google-chrome", "chrome", "msedge"]
OPTIONS = [
    *("--headless", "--remote-debugging-port=0", "--window-size=800,600"),
    *("--no-first-run", "--disable-gpu", "--hide-scrollbars"),
]


class DevTools:
    """Commands, one at a time, and events."""

    def __init__(self, ws: ClientConnection) -> None:
        self._ws = ws
        self._numbers = itertools.count()
        self._events: list[dict[str, Any]] = []

    async def command(self, method: str, session: str = "", **params: Any) -> Any:
        """Return the result; without a session it is a command to the browser."""
        number = next(self._numbers)
        command = {"id": number, "method": method, "params": params}
        if session:
            command["sessionId"] = session
        await self._ws.send(json.dumps(command))
        while (answer := json.loads(await self._ws.recv())).get("id") != number:
            self._events.append(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    async def event(self, method: str, **params: Any) -> None:
        """Wait until this has happened; ``params`` are some of those that it has."""
        while not any(
            event["method"] == method and params.items() <= event["params"].items()
            for event in self._events
        ):
            self._events.append(json.loads(await self._ws.recv()))


async def screenshot(tools: DevTools, url: str) -> bytes:
    target = await tools.command("Target.createTarget", url="about:blank")
    attached = await tools.command("Target.attachToTarget", **target, flatten=True)
    page = functools.partial(tools.command, session=attached["sessionId"])
    await page("Page.enable")
    await page("Page.setLifecycleEventsEnabled", enabled=True)
    shown = await page("Page.navigate", url=url)
    if "errorText" in shown:
        raise RuntimeError(f"{url}: {shown['errorText']}")
    # Of this page, not of the blank one before.
    await tools.event("Page.lifecycleEvent", name="load", loaderId=shown["loaderId"])
    return base64.b64decode((await page("Page.captureScreenshot"))["data"])


async def devtools_uri(said: trio.abc.ReceiveStream) -> str:
    text = b""
    async for chunk in said:
        text += chunk
        for line in text.splitlines(keepends=True):
            if line.startswith(b"DevTools listening on ") and line.endswith(b"\n"):
                return line.split()[-1].decode()
    *_, last = ["", *text.decode(errors="replace").splitlines()]
    raise RuntimeError(f"it doesn't start: {last}")


async def discard(said: trio.abc.ReceiveStream) -> None:
    async for _ in said:  # or it would wait once the pipe is full
        pass


async def main(program: str, url: str, profile: str) -> bytes:
    command = [program, *OPTIONS, f"--user-data-dir={profile}", "about:blank"]
    if sys.platform != "win32" and os.geteuid() == 0:
        command.append("--no-sandbox")  # it has none for root
    run = functools.partial(
        trio.run_process, command, stderr=subprocess.PIPE, check=False
    )
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            process: trio.Process = await nursery.start(run)
            assert process.stderr is not None
            uri = await devtools_uri(process.stderr)
            nursery.start_soon(discard, process.stderr)
            # A picture is a long message, and longer in base64.
            async with connect(uri, max_size=2**26) as ws:
                tools = DevTools(ws)
                picture = await screenshot(tools, url)
                await tools.command("Browser.close")
    return picture


if len(sys.argv) > 3 or "-h" in sys.argv:
    sys.exit(__doc__)
png, url = [*sys.argv[1:], *["screenshot.png", PAGE][len(sys.argv) - 1 :]]
found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
if found is None:
    sys.exit("no Chromium found: install one, or name it, as CHROMIUM=/path/to/chrome")
wrong: Exception | None = None
with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
    try:
        picture = trio.run(main, found, url, profile)
    except* (OSError, RuntimeError, ConnectionClosed, trio.TooSlowError) as errors:
        wrong = errors.exceptions[0]
if wrong is not None:
    sys.exit(f"{found}: {str(wrong) or repr(wrong)}")
try:
    Path(png).write_bytes(picture)
except OSError as exc:
    sys.exit(str(exc))
print("written:", png)
