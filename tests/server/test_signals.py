"""A server that signals stop, as the first process of a container, too."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.handlers import stubborn, wait
from tests.peers.in_memory import MemoryListener, RawPeer, close_frame
from tests.platforms import needs_linux
from tests.server.serving import records
from trio_ws import Server, connect, open_server

ROOT = Path(__file__).parents[2]

STOPS = [signal.SIGINT]
if sys.platform != "win32":
    STOPS.append(signal.SIGTERM)


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in records(caplog, logging.INFO)]


@asynccontextmanager
async def joined(handler: Any) -> AsyncIterator[tuple[Server, RawPeer]]:
    listener = MemoryListener()
    async with open_server(handler, listeners=[listener]) as server:
        peer = RawPeer(client=True)
        listener.add(peer.theirs)
        await peer.ask()
        assert (await peer.skip_response()).startswith(b"HTTP/1.1 101 ")
        yield server, peer


@pytest.mark.parametrize("number", STOPS)
async def test_a_signal(
    number: signal.Signals, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    before = signal.getsignal(number)
    async with joined(wait) as (server, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: server.aclose_on_signal(reason="update"))
            await wait_all_tasks_blocked()
            caplog.set_level(logging.INFO)
            signal.raise_signal(number)
            assert await peer.read() == close_frame(1001, "update")
            await peer.close(1001)
            assert await peer.read() is None
        assert server.statistics().connections == 0
        assert signal.getsignal(number) == before
    assert messages(caplog)[0] == f"stopping on {number.name}"


async def test_a_second_signal(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with joined(stubborn) as (server, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.aclose_on_signal)
            await wait_all_tasks_blocked()
            caplog.set_level(logging.INFO)
            signal.raise_signal(signal.SIGINT)
            assert await peer.read() == close_frame(1001)
            await trio.sleep(3)
            assert len(server._sessions) == 1
            signal.raise_signal(signal.SIGINT)
        assert len(server._sessions) == 0
        assert trio.current_time() == 3
    assert messages(caplog) == ["stopping on SIGINT", "stopping at once on SIGINT"]


async def test_a_server_that_something_else_closes(autojump_clock: MockClock) -> None:
    async with joined(wait) as (server, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.aclose_on_signal)
            await wait_all_tasks_blocked()
            nursery.start_soon(server.aclose)
            assert await peer.read() == close_frame(1001)
            await peer.close(1001)


async def test_to_wait_no_longer_changes_nothing(autojump_clock: MockClock) -> None:
    async with joined(wait) as (server, _peer):
        with trio.move_on_after(5) as scope:
            await server.aclose_on_signal()
        assert scope.cancelled_caught
        assert server.statistics().connections == 1


async def test_two_at_once(autojump_clock: MockClock) -> None:
    before = [signal.getsignal(number) for number in STOPS]
    async with joined(wait) as (server, peer), joined(wait) as (other, another):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.aclose_on_signal)
            await wait_all_tasks_blocked()
            for one in server, other:
                with pytest.raises(RuntimeError, match=r"SIGINT.* aclose\(\) of each"):
                    await one.aclose_on_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            await peer.read()
            await peer.close(1001)
        assert [signal.getsignal(number) for number in STOPS] == before
        async with trio.open_nursery() as nursery:  # the first no longer waits
            nursery.start_soon(other.aclose_on_signal)
            await wait_all_tasks_blocked()
            signal.raise_signal(signal.SIGINT)
            assert await another.read() == close_frame(1001)
            await another.close(1001)


@needs_linux
async def test_others_at_once(autojump_clock: MockClock) -> None:
    numbers = [signal.SIGUSR1, signal.SIGUSR2]
    before = [signal.getsignal(number) for number in numbers]
    async with joined(wait) as (server, peer), joined(wait) as (other, another):
        async with trio.open_nursery() as nursery:
            for one, number in zip((server, other), numbers, strict=True):
                nursery.start_soon(one.aclose_on_signal, number)
                await wait_all_tasks_blocked()
            for number, end in zip(numbers, (peer, another), strict=True):
                signal.raise_signal(number)
                assert await end.read() == close_frame(1001)
                await end.close(1001)
    assert [signal.getsignal(number) for number in numbers] == before


@needs_linux
async def test_signals_of_ones_own(caplog: pytest.LogCaptureFixture) -> None:
    number = signal.SIGRTMIN + 1  # which has no name
    async with joined(wait) as (server, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.aclose_on_signal, number)
            await wait_all_tasks_blocked()
            caplog.set_level(logging.INFO)
            os.kill(os.getpid(), number)
            assert await peer.read() == close_frame(1001)
            await peer.close(1001)
    assert messages(caplog)[0] == f"stopping on signal {number}"


async def test_wrong_signals() -> None:
    wrong: list[tuple[Any, type[Exception]]] = [
        ("SIGTERM", TypeError),
        (None, TypeError),
        (True, TypeError),
        (0, ValueError),
        (10_000, ValueError),
    ]
    if sys.platform != "win32":
        wrong += [(signal.SIGKILL, ValueError), (signal.SIGSTOP, ValueError)]
    async with open_server(wait, listeners=[MemoryListener()]) as server:
        for number, error in wrong:
            with pytest.raises(error, match="signals: expected"):
                await server.aclose_on_signal(signal.SIGINT, number)


async def test_wrong_arguments() -> None:
    async with open_server(wait, listeners=[MemoryListener()]) as server:
        wrong: list[tuple[dict[str, Any], type[Exception], str]] = [
            ({"timeout": -1}, ValueError, "timeout: expected"),
            ({"spread": None}, ValueError, "spread: expected a finite number"),
            ({"open_grace": None}, ValueError, "open_grace: expected a finite number"),
            ({"open_grace": "1"}, TypeError, "open_grace: expected"),
            ({"open_grace": -1}, ValueError, "seconds, at least 0; got -1$"),
            ({"spread": float("nan")}, ValueError, "seconds, at least 0; got nan$"),
            ({"spread": True}, TypeError, "seconds, at least 0; got True$"),
            ({"code": 1006}, ValueError, "1006"),
            ({"close_connections": 1001}, TypeError, "code is a keyword"),
        ]
        for arguments, error, text in wrong:
            for close in server.aclose_on_signal, server.aclose:
                with pytest.raises(error, match=text):
                    await close(**arguments)
        with pytest.raises(RuntimeError, match="main thread"):
            await trio.to_thread.run_sync(in_another_thread)


def in_another_thread() -> None:
    async def main() -> None:
        async with open_server(wait, listeners=[MemoryListener()]) as server:
            await server.aclose_on_signal()

    trio.run(main)


# Its first process is one for which the system does nothing on SIGTERM. Where there may
# be none, any process has to end as well.
CONTAINER = ["unshare", "--pid", "--fork", "--kill-child"]
if sys.platform != "win32" and os.geteuid() != 0:
    CONTAINER += ["--user", "--map-root-user"]


@cache
def has_containers() -> bool:
    """Whether there may be a process of number 1: it takes root, or the like."""
    try:
        return subprocess.run([*CONTAINER, "true"], check=False).returncode == 0
    except OSError:
        return False


def child_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text())


@needs_linux
@pytest.mark.realtime(seconds=0.5)
async def test_the_first_process_of_a_container() -> None:
    container = CONTAINER if has_containers() else []
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"^```python\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    assert found is not None
    code = found[1].replace("echo, 8765", "echo, 0, host='127.0.0.1'")
    code = code.replace(
        "as server:\n",
        "as server:\n        print(os.getpid(), server.port, flush=True)\n",
    )
    command = [*container, sys.executable, "-c", "import os\n" + code]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(  # noqa: ASYNC220 - starting it takes no time
        command, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            number, port = process.stdout.readline().split()
            assert not container or number == "1"
            with trio.fail_after(60):
                async with connect(f"ws://127.0.0.1:{port}/") as ws:
                    inside = child_of(process.pid) if container else process.pid
                    os.kill(inside, signal.SIGTERM)
                    assert [message async for message in ws] == []
                    assert ws.close_code == 1001
            assert await trio.to_thread.run_sync(process.wait) == 0
        finally:
            process.kill()
