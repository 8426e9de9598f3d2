"""The steps of docs/tutorial.rst: each runs as it stands in examples/tutorial."""

from __future__ import annotations

import functools
import os
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.processes import STRICT, ran
from trio_ws import (
    ClientConnection,
    ConnectionClosedError,
    InvalidStatus,
    Server,
    ServerConnection,
    connect,
    open_server,
    serve,
)
from trio_ws.testing import MemoryNetwork

ROOT = Path(__file__).parents[1]
STEPS = ROOT / "examples/tutorial"
TEA = "ws://127.0.0.1:8000/rooms/tea"
MILK = "ws://127.0.0.1:8000/rooms/milk"


@asynccontextmanager
async def running(step: str) -> AsyncIterator[MemoryNetwork]:
    """Run a step's main() in a network in memory while a block runs."""
    main = runpy.run_path(str(STEPS / f"{step}.py"))["main"]
    with MemoryNetwork() as network:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(main)
            await wait_all_tasks_blocked()
            yield network
            nursery.cancel_scope.cancel()


async def log_in(ws: ClientConnection, user: str) -> None:
    await ws.send(f"token of {user}")
    assert await ws.recv() == f"{user} comes in"


async def test_echo(autojump_clock: MockClock) -> None:
    async with running("echo"), connect(TEA) as ws:
        await ws.send("hello")
        assert await ws.recv() == "hello"


async def test_rooms(autojump_clock: MockClock) -> None:
    async with running("rooms") as network:
        async with connect(TEA) as one, connect(TEA) as two, connect(MILK) as other:
            await one.send("hello")
            for ws in one, two:
                assert await ws.recv() == "hello"
            network.link(two).reset()
            with pytest.raises(ConnectionClosedError):
                await two.recv()
            await one.send("still here")
            assert await one.recv() == "still here"
            with pytest.raises(trio.WouldBlock):
                other.recv_nowait()


LATER = ["login", "page", "chat"]


@pytest.mark.parametrize("step", LATER)
async def test_a_login(step: str, autojump_clock: MockClock) -> None:
    async with running(step):
        async with connect(TEA) as alice:
            await log_in(alice, "alice")
            async with connect(TEA) as bob:
                await log_in(bob, "bob")
                await bob.send("hello")
            lines = [await alice.recv() for _ in range(3)]
            assert lines == ["bob comes in", "bob: hello", "bob has left"]


@pytest.mark.parametrize("step", LATER)
@pytest.mark.parametrize("token", ["nonsense", b"nonsense", None])
async def test_no_login(
    step: str, token: str | bytes | None, autojump_clock: MockClock
) -> None:
    async with running(step), connect(TEA) as ws:
        if token is not None:
            await ws.send(token)
        with pytest.raises(ConnectionClosedError, match="4401"):
            await ws.recv()


@pytest.mark.parametrize("step", LATER[1:])
async def test_the_page(step: str, autojump_clock: MockClock) -> None:
    async with running(step):
        for path, status, text in (
            ("", 200, b"new WebSocket("),
            ("favicon.ico", 404, b"Not found."),
        ):
            with pytest.raises(InvalidStatus) as caught:
                async with connect(f"ws://127.0.0.1:8000/{path}"):
                    pass
            assert caught.value.response.status_code == status
            assert text in caught.value.response.body
        with pytest.raises(InvalidStatus, match="403"):
            async with connect(TEA, origin="http://elsewhere.example"):
                pass


@pytest.mark.parametrize("step", LATER[2:])
async def test_limits(step: str, autojump_clock: MockClock) -> None:
    async with running(step):
        for message, code in (("x" * 2001, "1009"), (b"x", "1003")):
            async with connect(TEA) as alice:
                await log_in(alice, "alice")
                await alice.send(message)
                with pytest.raises(ConnectionClosedError, match=code):
                    await alice.recv()
        async with connect(TEA) as alice:
            await log_in(alice, "alice")
            started = trio.current_time()
            for number in range(11):
                await alice.send(str(number))
                await alice.recv()
            assert trio.current_time() - started == pytest.approx(1)


async def test_an_end_in_good_order(autojump_clock: MockClock) -> None:
    async with running("chat"), connect(TEA) as alice:
        await log_in(alice, "alice")
        signal.raise_signal(signal.SIGINT)
        assert [line async for line in alice] == []
        assert (alice.close_code, alice.close_reason) == (1001, "be back soon")


def run(typed: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(STEPS)]),
    }
    return ran(
        *STRICT,
        *arguments,
        env=environment,
        cwd=STEPS,
        input=typed,
        capture_output=True,
    )


def test_the_tests_of_the_tutorial() -> None:
    done = run(
        "",
        *("-m", "pytest", "-q", "-c", os.devnull, "--rootdir", "."),
        *("-p", "no:cacheprovider", "-o", "trio_mode=true", "test_chat.py"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 passed" in done.stdout


async def test_the_client() -> None:
    async with trio.open_nursery() as nursery:
        rooms = runpy.run_path(str(STEPS / "rooms.py"))["chat"]
        server = await nursery.start(serve, rooms, 0)
        uri = f"ws://127.0.0.1:{server.port}/rooms/tea"
        async with connect(uri) as ws:
            with trio.fail_after(60):
                talk = trio.to_thread.run_sync
                done = await talk(run, "hello\nand goodbye\n", "client.py", uri)
                assert [await ws.recv() for _ in range(2)] == ["hello", "and goodbye"]
        await server.aclose()
    assert (done.returncode, done.stderr) == (0, "")
    # What has come by then is shown before that.
    assert done.stdout.endswith("closed: 1000  - press Return\n")


async def refuse(server: Server, ws: ServerConnection) -> None:
    await ws.aclose(4401, "log in first")


async def stop(server: Server, ws: ServerConnection) -> None:
    await server.aclose(reason="be back soon")


async def lose(server: Server, ws: ServerConnection) -> None:
    assert ws.socket is not None
    ws.socket.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("end", "shown"),
    [
        (refuse, "closed: 4401 log in first - press Return\n"),
        (stop, "closed: 1001 be back soon - press Return\n"),
        (lose, "closed: 1006  - press Return\n"),
    ],
)
@pytest.mark.parametrize("typed", ["\n", ""])
async def test_the_client_of_a_server_that_ends_it(
    end: Callable[[Server, ServerConnection], Awaitable[None]], shown: str, typed: str
) -> None:
    opened, opens = trio.open_memory_channel[ServerConnection](1)

    async def chat(ws: ServerConnection) -> None:
        await opened.send(ws)
        await ws.wait_closed()

    with trio.fail_after(60):
        async with open_server(chat, 0, host="127.0.0.1") as server:
            command = [sys.executable, "-W", "error", str(STEPS / "client.py")]
            async with trio.open_nursery() as nursery:
                start = functools.partial(
                    trio.run_process,
                    [*command, f"ws://127.0.0.1:{server.port}/"],
                    env={**os.environ, "PYTHONPATH": str(ROOT)},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                )
                client: trio.Process = await nursery.start(start)
                assert client.stdin is not None
                assert client.stdout is not None
                await end(server, await opens.receive())
                said = b""
                async for chunk in client.stdout:
                    said += chunk
                    if b"Return" in said:
                        break
                await client.stdin.send_all(typed.encode())
                await client.stdin.aclose()
                said += b"".join([chunk async for chunk in client.stdout])
    assert said.decode() == shown.replace("\n", os.linesep)


def test_every_step_is_in_these_tests() -> None:
    steps = {path.stem for path in STEPS.glob("*.py")}
    assert steps == {"echo", "rooms", *LATER, "client", "test_chat"}
