"""What the page and the demo say to each other, over the page's own WebSocket."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import trio

from ... import CloseCode, ConnectionClosed, ServerConnection
from .code import SIDES, text_of
from .lane import CODES, SOURCES, Lane

MAX_LANES = 8
MAX_PAGES = 4

# Seconds between two pictures of all lanes: at most, and at least.
_EVERY, _APART = 0.25, 0.04

_BUSY = CloseCode.TRY_AGAIN_LATER


class Pages:
    """The pages that are open."""

    def __init__(self) -> None:
        self._open = 0

    async def handle(self, ws: ServerConnection) -> None:
        """Serve one page: its lanes live no longer than it.

        **Cancellation** ends its lanes.
        """
        if self._open == MAX_PAGES:
            await ws.aclose(_BUSY, f"{MAX_PAGES} pages are open already: close one")
            return
        self._open += 1
        try:
            async with trio.open_nursery() as nursery:
                page = _Page(ws, nursery)
                nursery.start_soon(page.report)
                async for message in ws:
                    page.receive(message)
                nursery.cancel_scope.cancel()
        except* ConnectionClosed:
            pass  # the page was closed, or its browser is gone
        finally:
            self._open -= 1


class _Page:
    """One page: what it says is done, and what happens in its lanes it is told."""

    def __init__(self, ws: ServerConnection, nursery: trio.Nursery) -> None:
        self._ws = ws
        self._nursery = nursery
        self._lanes: dict[int, Lane] = {}
        self._opened = 0
        self._start = trio.current_time()
        self._told: list[dict[str, object]] = []  # what wasn't reported yet
        self._news = trio.Event()

    def receive(self, message: str | bytes) -> None:
        """Do what the page asks for; tell it what is wrong with that."""
        try:
            self._obey(json.loads(message))
        except (ValueError, TypeError, KeyError, RecursionError) as exc:
            self._tell({"error": f"not understood: {type(exc).__name__}: {exc}"})

    def _obey(self, said: dict[str, Any]) -> None:
        what = said["do"]
        if what == "open":
            self._open_lane()
            return
        number = said["lane"]
        lane = self._lanes[number]
        if what == "remove":
            if lane.ended:
                del self._lanes[number]
            return
        code = said.get("code", CODES[0])
        if code not in CODES:
            raise ValueError(f"code: expected one of {CODES}; got {code!r}")
        if what not in SOURCES:
            raise ValueError(f"do: expected one of {[*SOURCES]}; got {what!r}")
        self._tell_of(number, "both", "act", what)
        lane.do(what, code)

    def _open_lane(self) -> None:
        if len(self._lanes) == MAX_LANES:
            ended = [number for number, lane in self._lanes.items() if lane.ended]
            if not ended:
                self._tell({"error": f"{MAX_LANES} connections are open already"})
                return
            del self._lanes[ended[0]]
        self._opened += 1
        lane = Lane(partial(self._tell_of, self._opened))
        self._lanes[self._opened] = lane
        self._nursery.start_soon(self._run, lane)

    async def _run(self, lane: Lane) -> None:
        await lane.run()
        self._news.set()

    # What the page is told

    def _tell_of(
        self, number: int, side: str, kind: str, text: str, where: str = ""
    ) -> None:
        self._tell(
            {"lane": number, "side": side, "kind": kind, "text": text, "where": where}
        )

    def _tell(self, event: dict[str, object]) -> None:
        self._told.append({"at": trio.current_time() - self._start, **event})
        self._news.set()

    async def report(self) -> None:
        """Tell the page all there is, and then how its lanes are, again and again.

        **Cancellation**: no more is told.
        """
        await self._send(
            code={
                side: [[f.__name__, text_of(f)] for f in functions]
                for side, functions in SIDES.items()
            },
            acts=SOURCES,
            codes=[
                [code, CloseCode(code).name if code < 4000 else ""] for code in CODES
            ],
            limit=MAX_LANES,
        )
        while True:
            with trio.move_on_after(_EVERY):
                await self._news.wait()
            self._news = trio.Event()
            told, self._told = self._told, []
            await self._send(
                at=trio.current_time() - self._start,
                told=told,
                lanes={number: lane.snapshot() for number, lane in self._lanes.items()},
            )
            await trio.sleep(_APART)

    async def _send(self, **said: object) -> None:
        await self._ws.send(json.dumps(said))
