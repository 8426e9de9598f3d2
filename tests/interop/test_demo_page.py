"""The page of trio-ws demo, as one sees it: each button, and what it shows of that."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from trio.testing import MockClock

from tests.interop import chromium_peer
from tests.platforms import needs_resets
from trio_ws import open_server
from trio_ws._command.demo import code
from trio_ws._command.demo.lane import SOURCES
from trio_ws._command.demo.page import MAX_LANES, Pages
from trio_ws._command.demo.site import Site

HOST = "127.0.0.1"

# What the page itself does wrong, by whose word.
PROBLEMS = """
globalThis.problems = [];
addEventListener("error", ({message}) => problems.push(message));
addEventListener("unhandledrejection", ({reason}) => problems.push(String(reason)));
addEventListener("securitypolicyviolation", e => problems.push(e.violatedDirective));
"""


class Shown:
    """The page in a browser, and the clock of what it shows, which waits for both."""

    def __init__(self, tools: chromium_peer.DevTools, clock: MockClock) -> None:
        self.tools = tools
        self._clock = clock

    async def until(self, expression: str) -> None:
        for _ in range(1000):
            if await self.tools.evaluate(f"Boolean({expression})"):
                return
            self._clock.jump(0.05)
        seen = await self.tools.evaluate("document.body.innerText")
        raise AssertionError(f"{expression}: not so in\n{seen}")

    async def press(self, what: str) -> None:
        button = f"document.querySelector('[data-act={what}]')"
        await self.until(f"!{button}.disabled")
        await self.tools.evaluate(f"{button}.click()")

    async def text(self, selector: str) -> str:
        text: str = await self.tools.evaluate(
            f"document.querySelector({json.dumps(selector)}).textContent"
        )
        return text

    async def saw(self, side: str, kind: str) -> list[str]:
        """The lines of that kind in what a side saw."""
        lines: list[str] = await self.tools.evaluate(
            f"[...document.querySelectorAll('[data-side={side}] .saw .{kind} .text')]"
            ".map(line => line.textContent)"
        )
        return lines

    async def verdict(self, side: str) -> str:
        return await self.text(f"[data-side={side}] .verdict")

    async def ended(self) -> None:
        """Wait until the selected connection has ended, at both sides."""
        await self.until("lanes.get(selected).now.ended")


@asynccontextmanager
async def shown(chromium: str, clock: MockClock) -> AsyncGenerator[Shown, None]:
    """Serve the page, and open it; it opens three connections."""
    site = Site(HOST)
    async with (
        open_server(
            Pages().handle, 0, host=HOST, process_request=site.process_request
        ) as server,
        chromium_peer.page(chromium) as tools,
    ):
        await tools.command("Page.enable")
        await tools.command("Page.addScriptToEvaluateOnNewDocument", source=PROBLEMS)
        await tools.command("Page.navigate", url=f"http://{HOST}:{server.port}/")
        page = Shown(tools, clock)
        await page.until(
            "document.readyState === 'complete' && globalThis.problems"
            " && lanes.size === 3"
            " && [...lanes.values()].every(lane => lane.now.state === 'open')"
        )
        yield page
        assert await tools.evaluate("problems") == []
        await server.aclose(timeout=0)


ERROR = "trio_ws.ConnectionClosedError: "
NO_FRAME = f"{ERROR}no close frame received or sent"
TIMEOUT = f"{ERROR}sent 1011 (internal error) keepalive ping timeout; no close frame"
QUIET = "Left without an exception."


@pytest.mark.parametrize(
    ("act", "client", "server", "log"),
    [
        pytest.param(
            "reset",
            [NO_FRAME, "because of ConnectionResetError: [Errno ", "close_code 1006"],
            [NO_FRAME, "because of ConnectionResetError: [Errno "],
            "connection handler failed",
            marks=needs_resets,
        ),
        (
            "freeze",
            [TIMEOUT, "because of TimeoutError: nothing came within 2 s of a ping"],
            [TIMEOUT, "because of TimeoutError: nothing came within 2 s of a ping"],
            "connection handler failed",
        ),
        (
            "close",
            [f"{ERROR}received 4000 (private use) by a button; then sent 4000"],
            [QUIET],
            "connection closed: sent 4000 (private use) by a button; then received",
        ),
        (
            "fail",
            [
                f"{ERROR}received 1011 (internal error); then sent 1011",
                "close_code 1011",
            ],
            ["trio.Cancelled"],
            "LookupError: a bug in the handler",
        ),
        (
            "cancel",
            [QUIET, "close_code 1001"],
            ["trio.Cancelled"],
            "connection closed: sent 1001 (going away)",
        ),
        ("stop", [ERROR], [ERROR], "connection handler failed"),
    ],
)
async def test_what_ends_a_connection(
    act: str,
    client: list[str],
    server: list[str],
    log: str,
    chromium: str,
    mock_clock: MockClock,
) -> None:
    async with shown(chromium, mock_clock) as page:
        await page.press(act)
        await page.ended()
        for side, words in ("client", client), ("server", server):
            verdict = await page.verdict(side)
            for word in words:
                assert word in verdict
        assert any(log in line for line in await page.saw("server", "log"))
        for side in "client", "server":
            (pressed,) = await page.saw(side, "act")
            assert pressed.endswith(" was pressed")
        # The other two go on.
        states = await page.tools.evaluate("[...lanes.values()].map(l => l.now.state)")
        assert states[1:] == ["open", "open"]
        assert await page.tools.evaluate(
            "document.querySelector('[data-act]').disabled"
        )


@pytest.mark.parametrize(
    ("act", "label", "undo"),
    [
        ("slow", "Slow down", "Speed up"),
        ("freeze", "Freeze", "Thaw"),
        ("stop", "Stop reading", "Read on"),
    ],
)
async def test_what_can_be_taken_back(
    act: str, label: str, undo: str, chromium: str, mock_clock: MockClock
) -> None:
    name = f"[data-act={act}] b"
    async with shown(chromium, mock_clock) as page:
        assert await page.text(name) == label
        await page.press(act)
        await page.until(f"document.querySelector('{name}').textContent === '{undo}'")
        await page.press(act)
        await page.until(f"document.querySelector('{name}').textContent === '{label}'")
        received = await page.tools.evaluate("lanes.get(selected).now.messages[1]")
        await page.until(f"lanes.get(selected).now.messages[1] > {received}")
        assert await page.verdict("client") == (
            "The block runs.\u25b8 marks where its 2 tasks wait."
        )


async def test_flood(chromium: str, mock_clock: MockClock) -> None:
    async with shown(chromium, mock_clock) as page:
        await page.press("flood")
        await page.until("lanes.get(selected).now.messages[1] > 200")
        await page.until("!lanes.get(selected).now.flooding")
        assert "open" in await page.text("#lanes [aria-pressed=true] .badge")


async def test_the_code_is_what_runs(chromium: str, mock_clock: MockClock) -> None:
    async with shown(chromium, mock_clock) as page:
        for side, functions in code.SIDES.items():
            # Wherever the page breaks its lines.
            lines = await page.tools.evaluate(
                f"[...document.querySelectorAll('[data-side={side}] [data-line]')]"
                ".map(line => line.textContent)"
            )
            assert "\n".join(lines) == "\n".join(map(code.text_of, functions))
        for what, texts in SOURCES.items():
            await page.tools.evaluate(f"explain('{what}')")
            assert await page.text("#doing") == "\n\n".join(texts)
            assert await page.text("#promise")


async def test_lines_are_marked(chromium: str, mock_clock: MockClock) -> None:
    marked = "document.querySelector('[data-side={}] .{}')?.textContent.trim()"
    where = marked.format("server", "here")
    raised = marked.format("server", "raised")
    async with shown(chromium, mock_clock) as page:
        await page.until(f"{where} === 'async for message in ws:'")
        await page.press("stop")
        # It waits there for the client, rather than for its turn.
        full = "lanes.get(selected).now.unsent > 65536"
        await page.until(f"{full} && {where} === 'await ws.send(message)'")
        await page.press("cancel")
        await page.until(f"{raised} === 'await ws.send(message)'")


async def test_connections_come_and_go(chromium: str, mock_clock: MockClock) -> None:
    async with shown(chromium, mock_clock) as page:
        for number in range(4, MAX_LANES + 1):
            await page.tools.evaluate("document.querySelector('#open').click()")
            await page.until(f"selected === {number}")
            await page.until(f"lanes.get({number}).now.state === 'open'")
        assert await page.tools.evaluate("document.querySelector('#open').disabled")
        await page.press("cancel")
        await page.ended()
        await page.until("!document.querySelector('#open').disabled")
        await page.tools.evaluate(
            "document.querySelector('.remove:not([hidden])').click()"
        )
        await page.until(f"lanes.size === {MAX_LANES - 1}")
        assert await page.tools.evaluate("selected") == MAX_LANES - 1


async def test_by_keyboard(chromium: str, mock_clock: MockClock) -> None:
    async with shown(chromium, mock_clock) as page:
        await page.tools.evaluate("document.querySelector('#open').focus()")
        names = []
        for _ in range(6):
            await key(page.tools, "Tab")
            names.append(
                await page.tools.evaluate(
                    "document.activeElement.innerText.split('\\n')[0]"
                )
            )
        assert names[0].startswith("Take the tour")
        assert names[1:4] == [f"Connection {number}" for number in (1, 2, 3)]
        assert names[4:] == ["Reset", "Freeze"]
        await page.tools.evaluate("document.querySelector('[data-act=cancel]').focus()")
        assert "going away" in await page.text("#promise")
        await key(page.tools, "Enter")
        await page.ended()
        assert await page.verdict("client") == f"{QUIET}0 tasks left, close_code 1001"


async def key(tools: chromium_peer.DevTools, name: str) -> None:
    number = {"Tab": 9, "Enter": 13}[name]
    text = {"text": "\r"} if name == "Enter" else {}
    known = {"key": name, "code": name, "windowsVirtualKeyCode": number}
    await tools.command("Input.dispatchKeyEvent", type="keyDown", **known, **text)
    await tools.command("Input.dispatchKeyEvent", type="keyUp", **known)


async def test_the_demo_ends(chromium: str, mock_clock: MockClock) -> None:
    async with shown(chromium, mock_clock) as page:
        await page.tools.evaluate("ws.close()")
        await page.until("document.querySelector('#notice').textContent")
        assert (await page.text("#notice")).startswith("The demo is gone (close code ")
        assert await page.tools.evaluate(
            "[...document.querySelectorAll('button')].every(button => button.disabled)"
        )


# How it looks


async def look(
    tools: chromium_peer.DevTools, width: int, scheme: str, motion: str = ""
) -> None:
    features = {"prefers-color-scheme": scheme, "prefers-reduced-motion": motion}
    await tools.command(
        "Emulation.setDeviceMetricsOverride",
        width=width,
        height=900,
        deviceScaleFactor=1,
        mobile=width < 500,
    )
    await tools.command(
        "Emulation.setEmulatedMedia",
        features=[{"name": name, "value": value} for name, value in features.items()],
    )


async def test_it_fits(chromium: str, mock_clock: MockClock) -> None:
    """At each width, whatever has happened, nothing scrolls sideways."""
    async with shown(chromium, mock_clock) as page:
        await page.press("fail")  # whose traceback has long lines
        await page.ended()
        await page.tools.evaluate(
            "document.querySelectorAll('details').forEach(one => { one.open = true; })"
        )
        for width in 320, 390, 768, 1280, 1920:
            await look(page.tools, width, "light")
            assert await page.tools.evaluate(
                "document.documentElement.scrollWidth"
            ) <= (width)


def luminance(colour: str) -> float:
    """Relative luminance, as WCAG 2.2 defines it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [
        p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_contrast(scheme: str, chromium: str, mock_clock: MockClock) -> None:
    """Text of each colour is legible wherever it stands (WCAG 2.2, 1.4.3)."""
    states = ["opening", "open", "closing", "closed", "cancelled", "lost"]
    pairs = [
        *itertools.product(["text", "soft", "accent", *states], ["card", "page"]),
        *itertools.product(["text", "key", "string"], ["card", "here", "raised"]),
        ("on-accent", "accent"),
    ]
    async with shown(chromium, mock_clock) as page:
        await look(page.tools, 1280, scheme)
        for pair in pairs:
            colours: list[str] = await page.tools.evaluate(
                f"{json.dumps(pair)}.map(colour)"
            )
            assert contrast(*colours) >= 4.5, pair


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_a_lane_is_drawn(
    scheme: str, chromium: str, mock_clock: MockClock
) -> None:
    """In the colours of its states."""
    script = """(() => {
        const {canvas} = lanes.get(selected);
        const {data} = canvas.getContext("2d")
            .getImageData(0, canvas.height - 2, canvas.width, 1);
        const found = new Set();
        for (let i = 0; i < data.length; i += 4) if (data[i + 3] === 255)
            found.add("#" + [...data.slice(i, i + 3)]
                .map(part => part.toString(16).padStart(2, "0")).join(""));
        return ["open", "closed", "lost"].filter(state => found.has(colour(state)));
    })()"""
    async with shown(chromium, mock_clock) as page:
        await look(page.tools, 1280, scheme)
        await page.until(f"String({script}) === 'open'")
        await page.press("cancel")
        await page.until(f"String({script}) === 'open,closed'")


async def test_those_who_want_no_motion(chromium: str, mock_clock: MockClock) -> None:
    script = "getComputedStyle(document.querySelector('.l')).transitionDuration"
    async with shown(chromium, mock_clock) as page:
        await look(page.tools, 1280, "light", "no-preference")
        assert await page.tools.evaluate(script) == "0.2s"
        await look(page.tools, 1280, "light", "reduce")
        assert await page.tools.evaluate(script) == "0s"


async def test_the_tour(chromium: str, mock_clock: MockClock) -> None:
    """It begins, and stops when told to; its steps are those of the buttons above."""
    async with shown(chromium, mock_clock) as page:
        await page.tools.evaluate("document.querySelector('#tour').click()")
        await page.until("document.querySelector('#promise b')")
        assert await page.text("#tour") == "Stop the tour"
        await page.tools.evaluate("document.querySelector('#tour').click()")
        assert (await page.text("#tour")).startswith("Take the tour")
        acts: list[Any] = await page.tools.evaluate("TOUR")
        assert {what for what, _ in acts} <= {*SOURCES}
