"""What a page says and is told, over its WebSocket."""

from __future__ import annotations

import inspect
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import pytest
import trio

from tests.command.demo.watched import until
from trio_ws import ClientConnection, ConnectionClosedError, connect, open_server
from trio_ws._command.demo import code
from trio_ws._command.demo.lane import CODES, SOURCES
from trio_ws._command.demo.page import MAX_LANES, MAX_PAGES, Pages


class Page:
    """A page's side of its WebSocket."""

    def __init__(self, ws: ClientConnection) -> None:
        self._ws = ws
        self.told: list[dict[str, Any]] = []
        self.lanes: dict[str, Any] = {}

    async def say(self, **said: object) -> None:
        await self._ws.send(json.dumps(said))

    async def recv(self) -> Any:
        return json.loads(await self._ws.recv())

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            report = await self.recv()
            self.told += report["told"]
            self.lanes = report["lanes"]

    async def open(self) -> str:
        """Open a lane; return its number once it is open."""
        known = {*self.lanes}
        await self.say(do="open")
        await self.until(lambda: self._opened(known) is not None)
        return self._opened(known) or ""

    def _opened(self, known: set[str]) -> str | None:
        new = (n for n in self.lanes if n not in known)
        return next((n for n in new if self.lanes[n]["state"] == "open"), None)

    async def end(self, number: str) -> None:
        await self.say(do="cancel", lane=int(number))
        await self.until(lambda: self.lanes[number]["ended"])

    @property
    def errors(self) -> list[str]:
        return [event["error"] for event in self.told if "error" in event]


@asynccontextmanager
async def served() -> AsyncIterator[str]:
    with trio.fail_after(60):
        async with open_server(Pages().handle, 0, host="127.0.0.1") as server:
            yield f"ws://127.0.0.1:{server.port}/"


@asynccontextmanager
async def opened(uri: str) -> AsyncIterator[tuple[Page, Any]]:
    async with connect(uri) as ws:
        page = Page(ws)
        yield page, await page.recv()


async def test_what_a_page_is_told_first() -> None:
    async with served() as uri, opened(uri) as (_, told):
        for functions in told["code"].values():
            for name, text in functions:
                assert text + "\n" == inspect.getsource(getattr(code, name))
        assert told["acts"] == SOURCES
        assert [number for number, _ in told["codes"]] == [*CODES]
        assert told["codes"][0] == [1000, "NORMAL_CLOSURE"]
        assert told["limit"] == MAX_LANES


async def test_a_connection_from_its_opening_to_its_end() -> None:
    async with served() as uri, opened(uri) as (page, _):
        number = await page.open()
        assert number == "1"
        await page.say(do="close", lane=1, code=4000)
        await page.until(lambda: page.lanes["1"]["ended"])
        told = [(event["side"], event["kind"]) for event in page.told]
        act = told.index(("both", "act"))
        assert page.told[act]["text"] == "close"
        assert told[act + 1] == ("server", "returned")
        assert ("client", "raised") in told[act:]
        (raised,) = (event for event in page.told if event["kind"] == "raised")
        assert raised["where"] == "client"
        assert raised["lane"] == 1
        assert raised["at"] >= 0
        await page.say(do="remove", lane=1)
        await page.until(lambda: page.lanes == {})


@pytest.mark.parametrize(
    ("message", "what"),
    [
        ("{", "JSONDecodeError"),
        (b"\xff", "UnicodeDecodeError"),
        ("[" * 900, "Error"),
        ("[]", "TypeError"),
        ("{}", "KeyError: 'do'"),
        ('{"do": "reset"}', "KeyError: 'lane'"),
        ('{"do": "reset", "lane": 7}', "KeyError: 7"),
        ('{"do": "reset", "lane": []}', "TypeError"),
        ('{"do": "dance", "lane": 1}', "expected one of "),
        ('{"do": [], "lane": 1}', "TypeError"),
        ('{"do": "close", "lane": 1, "code": 1005}', "code: expected one of (1000, "),
    ],
)
async def test_what_is_not_understood(message: str | bytes, what: str) -> None:
    async with served() as uri, connect(uri) as ws:
        page = Page(ws)
        await page.recv()
        await page.open()
        await ws.send(message)
        await page.until(lambda: page.errors != [])
        assert page.errors[0].startswith("not understood: ")
        assert what in page.errors[0]
        assert page.lanes["1"]["state"] == "open"


async def test_a_page_has_so_many_connections() -> None:
    async with served() as uri, opened(uri) as (page, _):
        for _ in range(MAX_LANES):
            last = await page.open()
        await page.say(do="remove", lane=int(last))  # which it isn't, while it is open
        await page.say(do="open")
        await page.until(lambda: page.errors != [])
        assert page.errors == [f"{MAX_LANES} connections are open already"]
        assert len(page.lanes) == MAX_LANES
        # One that has ended gives way.
        await page.end("2")
        assert await page.open() == str(MAX_LANES + 1)
        assert len(page.lanes) == MAX_LANES
        assert "2" not in page.lanes


async def test_so_many_pages() -> None:
    async with served() as uri:
        async with trio.open_nursery() as nursery:
            leave = trio.Event()

            async def stay(task_status: trio.TaskStatus[None]) -> None:
                async with opened(uri):
                    task_status.started()
                    await leave.wait()

            for _ in range(MAX_PAGES):
                await nursery.start(stay)
            async with connect(uri) as ws:
                with pytest.raises(ConnectionClosedError) as caught:
                    await ws.recv()
            assert caught.value.rcvd is not None
            assert caught.value.rcvd.code == 1013
            assert "pages are open already" in caught.value.rcvd.reason
            leave.set()
        async with opened(uri):  # there is room again
            pass


@pytest.mark.parametrize("error", [None, KeyError])
async def test_a_page_that_vanishes_ends_its_connections(
    error: type[Exception] | None, caplog: pytest.LogCaptureFixture
) -> None:
    async with served() as uri:
        before = trio.lowlevel.current_statistics().tasks_living
        with nullcontext() if error is None else pytest.raises(error):
            async with opened(uri) as (page, _):
                await page.open()
                await page.open()
                assert trio.lowlevel.current_statistics().tasks_living > before + 8
                if error is not None:
                    raise error
        await until(lambda: trio.lowlevel.current_statistics().tasks_living == before)
    assert [r for r in caplog.records if r.levelname != "INFO"] == []
