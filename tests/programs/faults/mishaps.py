"""Rows 13 and 16: handlers that misbehave, interrupts, and clocks that jump."""

from __future__ import annotations

import json
import signal
import sys
from typing import Any

import trio

from tests.programs.faults.crowds import Many, look_until
from tests.programs.faults.harness import (
    HERE,
    OURS,
    RIVAL,
    Bound,
    Figures,
    Rows,
    Size,
    ends,
    opened,
    victim,
)
from tests.programs.rivals.wire import BINARY, CLOSE, Wire

rows = Rows()

# 13 ----------------------------------------------------------------------------


async def echoes(port: int) -> int:
    """Return how many of ten echoes come."""
    wire = await opened(port, "/echo")
    count = 0
    with trio.move_on_after(5):
        for _ in range(10):
            await wire.send(BINARY, b"lives")
            count += (await wire.read()).payload == b"lives"
        await wire.send(CLOSE, (1000).to_bytes(2))
        await wire.read()
    return count


async def closed_by(wire: Wire) -> str:
    """Say what the server answers to a close frame."""
    await wire.send(CLOSE, (1000).to_bytes(2))
    return await ends(wire)


@rows.add(
    "13",
    "A handler raises, hangs, leaves a task behind, swallows Cancelled, or closes the "
    "descriptor behind the library's back",
    Bound("closed with 1011, for one that raises", least=1),
    Bound("a close frame answered, for one that hangs", least=1),
    Bound("closed with 1000, for one that leaves a task", least=1),
    Bound("ended for it, what the task called", least=1),
    Bound("ended, a connection whose handler swallows Cancelled", least=1),
    Bound("ended, a connection whose descriptor was closed", least=1),
    Bound("echoes for others afterwards, of 10", least=10),
    quick=True,
)
async def handlers_that_misbehave(library: str, size: Size) -> Figures:
    options: dict[str, Any] = {"ping_interval": 0.5, "ping_timeout": 0.5}
    if library == OURS:
        options |= {"loss_grace": 0.2, "close_timeout": 0.5}
    figures: Figures = {}
    async with victim(library, **options) as server:
        raised = await ends(await opened(server.port, "/raises"))
        hung = await closed_by(await opened(server.port, "/hold"))
        left = await ends(await opened(server.port, "/leaks"))
        figures["closed with 1011, for one that raises"] = raised == "Close 1011"
        figures["a close frame answered, for one that hangs"] = hung == "Close 1000"
        figures["closed with 1000, for one that leaves a task"] = left == "Close 1000"
        await trio.sleep(1)
        before = await server.ask()
        swallowing = await opened(server.port, "/swallows")
        swallowing.reset()
        if library == OURS:
            stolen = await opened(server.port, "/steals")
            await stolen.send(BINARY, b"now")
        await trio.sleep(2.5)
        after = await server.ask()
        ended = [name for name in after if name.startswith("left: ConnectionClosed")]
        figures["ended for it, what the task called"] = len(ended)
        swallowed = after.get("swallowed", 0)
        figures["ended, a connection whose handler swallows Cancelled"] = swallowed
        if library == OURS:
            figures["ended, a connection whose descriptor was closed"] = (
                after["open"] <= before["open"]
            )
        figures["echoes for others afterwards, of 10"] = await echoes(server.port)
    return {name: float(figure) for name, figure in figures.items()}


# 16 ----------------------------------------------------------------------------


async def healthy(library: str, count: int, how: str, seconds: float) -> float:
    """Return how many connections live after the time of the server was taken."""
    answered: set[int] = set()

    def came(number: int, opcode: int, payload: bytes) -> None:
        if opcode == BINARY:
            answered.add(number)

    async with victim(library, ping_interval=1, ping_timeout=1) as server:
        many = Many(server.port, came)
        try:
            await many.come("/echo", count)
            await look_until(many, lambda: False, 1)
            if how == "jump":
                for _ in range(2):
                    await server.ask("jump", seconds=seconds)
                    await look_until(many, lambda: False, 1.5)
            else:
                server.process.send_signal(signal.SIGSTOP)
                await look_until(many, lambda: False, seconds)
                server.process.send_signal(signal.SIGCONT)
                await look_until(many, lambda: False, 3)
            for number in list(many.sockets):
                many.send(number, BINARY, b"lives")
            await look_until(many, lambda: len(answered) == count, 3)
        finally:
            many.close()
    return len(answered)


@rows.add(
    "16",
    "Control-C at 500 random moments of a busy server and its clients; a clock that "
    "jumps an hour, twice; a server that was stopped for 10 s (60 at full length), "
    "with a keepalive of 1 s",
    Bound("Control-C: the longest way out", 0.1, "s", timed=True),
    Bound("Control-C: other exceptions", 0),
    Bound("Control-C: warnings", 0),
    Bound("of 50 connections, live after the jump", least=50),
    Bound("of 50 connections, live after the stop", least=50),
    seconds=110,
)
async def time_taken(library: str, size: Size) -> Figures:
    count = 20 if size is Size.QUICK else 500
    if library == RIVAL:
        count = 100
    stopped = {Size.QUICK: 3, Size.NORMAL: 10, Size.LONG: 60}[size]
    name = {OURS: "trio_ws", RIVAL: "websockets.trio"}[library]
    done = await trio.run_process(
        [sys.executable, str(HERE / "interrupts.py"), name, str(count)],
        capture_stdout=True,
    )
    figures: Figures = json.loads(done.stdout)
    for what, how, seconds in (("jump", "jump", 3600), ("stop", "stop", stopped)):
        name = f"of 50 connections, live after the {what}"
        figures[name] = await healthy(library, 50, how, seconds)
    return figures
