"""What each button does, and what the code on both sides sees of it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.command.demo.watched import Watched, turned, until, watched
from tests.platforms import needs_resets
from trio_ws._command.demo import code as code_module
from trio_ws._command.demo.code import client, handler, talk, text_of
from trio_ws._command.demo.lane import CODES, SOURCES, Lane

ERROR = "trio_ws.ConnectionClosedError: "
LOST = f"{ERROR}no close frame received or sent"
FAILED = "ERROR:trio_ws.server:connection handler failed"


def closed(text: str) -> str:
    return f"INFO:trio_ws.server:connection closed: {text}"


def line_of(name: str, text: str) -> tuple[str, int]:
    """The place of a line in a function of the code."""
    function = {f.__name__: f for f in (handler, client, talk)}[name]
    lines = text_of(function).splitlines()
    (number,) = (i for i, line in enumerate(lines) if line.strip() == text)
    return name, number


LOOP = line_of("handler", "async for message in ws:")
ECHO = line_of("handler", "await ws.send(message)")
CLIENT_LOOP = line_of("client", "async for message in ws:")
WORK = line_of("client", "await stage.work(message)")
TALK = line_of("talk", "await ws.send(bytes(16384))")
PAUSE = line_of("talk", "await trio.sleep(0.05)")


def here(lane: Lane) -> dict[str, list[tuple[str, int]]]:
    found: dict[str, list[tuple[str, int]]] = lane.snapshot()["here"]
    return found


async def ended(one: Watched, clock: MockClock | None = None, step: float = 0) -> Lane:
    await until(lambda: one.lane.ended, clock, step)
    return one.lane


async def test_a_connection_that_lives(mock_clock: MockClock) -> None:
    async with watched() as one:
        lane = one.lane
        await until(lambda: here(lane)["client"] == [CLIENT_LOOP, PAUSE])
        picture = lane.snapshot()
        assert (picture["state"], picture["server"]) == ("open", "open")
        assert not picture["ended"]
        assert picture["messages"] == [1, 1]
        assert picture["bytes"] == [16384 + 8, 16384 + 4]
        assert picture["latency"] == picture["waiting"] == picture["unsent"] == 0
        assert here(lane)["server"] == [LOOP]
        assert picture["tasks"] == {"server": 1, "client": 2}
        lane.do("freeze")
        mock_clock.jump(0.5)  # a ping
        await until(lambda: lane.snapshot()["frozen"] is True)
        mock_clock.jump(0.125)
        lane.do("thaw")
        await until(lambda: lane.snapshot()["latency"] == 0.125)
        assert one.of("client", "open") == ["connected"]
        assert one.log[-1] == "INFO:trio_ws.server:connection open"
        with pytest.raises(KeyError):
            lane.do("dance")
    # Cancelled from outside, as both sides' code would be.
    assert (lane.client.state, lane.server.state) == ("cancelled", "cancelled")
    assert lane.ended


async def test_before_it_is_open() -> None:
    one = Watched()
    picture = one.lane.snapshot()
    assert (picture["state"], picture["server"]) == ("opening", "opening")
    assert "messages" not in picture
    one.lane.do("close", 1000)  # too early
    one.lane.do("reset")
    assert one.told == []


@needs_resets
async def test_reset() -> None:
    async with watched() as one:
        one.lane.do("reset")
        lane = await ended(one)
    assert one.of("client", "raised") == one.of("server", "raised") == [LOST]
    for side in "client", "server":
        (cause,) = one.of(side, "cause")
        assert cause.startswith(f"ConnectionResetError: [Errno {errno.ECONNRESET}] ")
    assert one.log[-2:] == [closed("no close frame received or sent"), FAILED]
    assert (lane.client.state, lane.server.state) == ("lost", "lost")
    assert lane.snapshot()["close"] == [1006, ""]
    assert here(lane) == {"server": [LOOP], "client": [CLIENT_LOOP]}
    assert lane.snapshot()["tasks"] == {"server": 0, "client": 0}


async def test_freeze(mock_clock: MockClock) -> None:
    async with watched() as one:
        one.lane.do("freeze")
        mock_clock.jump(1.5)
        await until(lambda: one.lane.snapshot()["latency"] == 1)  # overdue by that
        lane = await ended(one, mock_clock, 0.5)
    text = "sent 1011 (internal error) keepalive ping timeout; no close frame received"
    for side in "client", "server":
        assert one.of(side, "raised") == [ERROR + text]
        assert one.of(side, "cause") == [
            "TimeoutError: nothing came within 2 s of a ping (ping_timeout)"
        ]
    assert one.log[-2:] == [closed(text), FAILED]
    assert lane.snapshot()["state"] == "lost"


async def test_thaw(mock_clock: MockClock) -> None:
    async with watched() as one:
        lane = one.lane
        await until(lambda: lane.snapshot()["messages"] == [1, 1])
        lane.do("freeze")
        for _ in range(3):
            mock_clock.jump(0.05)
            await until(lambda: PAUSE in here(lane)["client"])
        assert lane.snapshot()["messages"] == [4, 1]
        assert lane.snapshot()["frozen"]
        lane.do("thaw")
        await until(lambda: lane.snapshot()["messages"] == [4, 4])
        assert not lane.snapshot()["frozen"]


async def test_slow(mock_clock: MockClock) -> None:
    async with watched() as one:
        lane = one.lane
        await until(lambda: lane.snapshot()["messages"] == [1, 1])
        lane.do("slow")
        assert lane.snapshot()["slow"]
        mock_clock.jump(0.05)
        await until(lambda: lane.snapshot()["messages"] == [2, 1])
        mock_clock.jump(0.1)
        mock_clock.jump(0.1)
        await until(lambda: lane.snapshot()["messages"] != [2, 1], mock_clock, 0.1)
        lane.do("quick")
        assert not lane.snapshot()["slow"]


@pytest.mark.parametrize("code", CODES)
async def test_close(code: int) -> None:
    names = {1000: "OK", 1001: "going away", 1008: "policy violation"}
    names |= {1011: "internal error", 4000: "private use"}
    text = f"{code} ({names[code]}) by a button"
    async with watched() as one:
        one.lane.do("close", code)
        one.lane.do("close", code)  # once is enough
        lane = await ended(one)
    assert one.of("server", "raised") == []
    assert one.of("server", "returned") == ["handler() returned"]
    assert one.log[-1] == closed(f"sent {text}; then received {text}")
    if code in (1000, 1001):
        assert one.of("client", "raised") == []
        assert one.of("client", "returned") == ["client() returned"]
        assert lane.client.state == "closed"
    else:
        assert one.of("client", "raised") == [
            f"{ERROR}received {text}; then sent {text}"
        ]
        assert lane.client.state == "lost"
    assert one.of("client", "cause") == []
    assert lane.snapshot()["close"] == [code, "by a button"]
    lane.do("flood")  # too late
    assert not lane.snapshot()["flooding"]


def beyond(snapshot: Callable[[], dict[str, Any]], received: int) -> bool:
    """Whether the client has received more messages."""
    count: int = snapshot()["messages"][1]
    return count > received


async def test_flood(mock_clock: MockClock) -> None:
    async with watched() as one:
        snapshot = one.lane.snapshot
        one.lane.do("flood")
        for received in 100, 200, 300, 400:
            await turned(partial(beyond, snapshot, received))
            assert snapshot()["flooding"]
            # No more waits for the socket than write_limit and a message.
            assert snapshot()["unsent"] <= 2**16 + 2**14 + 100
            mock_clock.jump(0.75)
        await turned(lambda: not snapshot()["flooding"])
        assert snapshot()["state"] == "open"
    assert one.of("server", "cause") == []


async def stalled(one: Watched, clock: MockClock) -> None:
    one.lane.do("stop")
    assert one.lane.snapshot()["stopped"]
    await until(lambda: here(one.lane)["server"] == [ECHO], clock, 0.05)


async def test_stop_reading(mock_clock: MockClock) -> None:
    """send() waits; then all goes on, and nothing is lost."""
    async with watched() as one:
        lane = one.lane
        await stalled(one, mock_clock)
        picture = lane.snapshot()
        assert WORK in here(lane)["client"]
        assert 16 < picture["waiting"] <= 20  # max_queue, and what one read brought
        assert 2**16 <= picture["unsent"] <= 2**16 + 2**14 + 100
        sent = picture["messages"][0]
        lane.do("read")
        await until(lambda: lane.snapshot()["messages"] == [sent, sent])
        assert lane.snapshot()["waiting"] == 0


async def test_stop_reading_for_too_long(mock_clock: MockClock) -> None:
    async with watched() as one:
        await stalled(one, mock_clock)
        lane = await ended(one, mock_clock, 0.25)
    assert (lane.client.state, lane.server.state) == ("lost", "lost")
    causes = one.of("client", "cause") + one.of("server", "cause")
    assert any(cause.startswith("TimeoutError: peer took none of ") for cause in causes)
    assert one.log[-1] == FAILED


async def test_fail() -> None:
    async with watched() as one:
        one.lane.do("fail")
        lane = await ended(one)
    assert one.of("server", "raised")[0] == "LookupError: a bug in the handler"
    assert one.of("server", "raised")[1].startswith("trio.Cancelled")
    assert one.log[-2:] == [
        closed("sent 1011 (internal error); then received 1011 (internal error)"),
        FAILED,
    ]
    assert "\nLookupError: a bug in the handler" in one.of("server", "log")[-1]
    assert one.of("client", "raised") == [
        f"{ERROR}received 1011 (internal error); then sent 1011 (internal error)"
    ]
    assert (lane.client.state, lane.server.state) == ("lost", "cancelled")


async def test_cancel() -> None:
    async with watched() as one:
        one.lane.do("cancel")
        lane = await ended(one)
    (raised,) = one.of("server", "raised")
    assert raised.startswith("trio.Cancelled")
    assert "connection closed: sent 1001 (going away); " in one.log[-1]
    assert one.of("client", "returned") == ["client() returned"]
    assert one.of("client", "raised") == []
    assert lane.snapshot()["close"] == [1001, ""]
    assert (lane.client.state, lane.server.state) == ("closed", "cancelled")


async def test_nothing_outlives_it() -> None:
    before = trio.lowlevel.current_statistics().tasks_living
    async with watched():
        pass
    assert trio.lowlevel.current_statistics().tasks_living == before


async def test_a_port_that_is_not_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    async def serve(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(code_module, "serve", serve)
    one = Watched()
    await one.lane.run()
    assert one.lane.ended
    (text,) = one.of("client", "raised")
    assert text.startswith(f"OSError: [Errno {errno.EMFILE}] ")


def test_each_button_has_its_text() -> None:
    for what, texts in SOURCES.items():
        for text in texts:
            assert "def " in text, what
    assert SOURCES["cancel"] == [
        "def cancel(scope: trio.CancelScope) -> None:\n    scope.cancel()"
    ]
    assert text_of(Lane.work) in SOURCES["stop"]
    assert text_of(Lane.work).startswith(
        "async def work("
    )  # without the class's indent
