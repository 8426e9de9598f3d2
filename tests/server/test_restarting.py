"""A server is replaced while clients connect, and none of them is refused."""

from __future__ import annotations

import functools
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.platforms import needs_posix
from trio_ws import ConnectionClosedOK, connect

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}

# As systemd starts a program, to which it passes on descriptors from 3 on.
BY_SYSTEMD = """
import os
import sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.executable, [sys.executable, "-W", "error", sys.argv[2]])
"""


class Crowd:
    """Clients that connect all the time."""

    def __init__(self, port: int) -> None:
        self._uri = f"ws://127.0.0.1:{port}/"
        self._changed = trio.Event()
        self.by: set[str] = set()  # the numbers of the processes that served them

    async def hammer(self) -> None:
        while True:
            async with connect(self._uri, close_timeout=60) as ws:
                try:
                    await ws.send("hello")
                    who, _, said = str(await ws.recv()).partition(" says ")
                except ConnectionClosedOK:
                    assert ws.close_code == 1001  # opened, and then told to go
                    continue
            assert said == "hello"
            if who not in self.by:
                self.by.add(who)
                self._changed.set()
                self._changed = trio.Event()

    async def stay(self) -> None:
        async with connect(self._uri) as ws:
            await ws.wait_closed()
            assert ws.close_code == 1001

    async def served_by(self, count: int) -> None:
        """Wait until so many processes have served them."""
        while len(self.by) < count:
            await self._changed.wait()


@asynccontextmanager
async def hammered(port: int) -> AsyncIterator[Crowd]:
    """Let clients connect while a block runs; see that each of them is served.

    As many stay connected, which the end of all processes that there are first ends.
    """
    crowd = Crowd(port)
    with trio.fail_after(60):
        async with trio.open_nursery() as clients:
            async with trio.open_nursery() as staying:
                for _ in range(4):
                    staying.start_soon(crowd.stay)
                    clients.start_soon(crowd.hammer)
                yield crowd
            clients.cancel_scope.cancel()


async def running(
    nursery: trio.Nursery,
    *arguments: object,
    fd: int,
    check: bool = True,
    output: int = subprocess.PIPE,
) -> trio.Process:
    """Run Python until the test ends; return what runs."""
    run = functools.partial(
        trio.run_process,
        [sys.executable, "-W", "error", *map(str, arguments)],
        env=ENVIRONMENT,
        pass_fds=[fd],
        stdout=output,
        stderr=subprocess.STDOUT,
        check=check,
    )
    process: trio.Process = await nursery.start(run)
    return process


async def line(process: trio.Process) -> str:
    assert process.stdout is not None
    said = b""
    with trio.fail_after(60):
        while not said.endswith(b"\n"):
            said += await process.stdout.receive_some(1) or b" (end of stream)\n"
    return said.decode()


async def logged(process: trio.Process, text: str) -> None:
    """Read on until a line has a text; workers may log what became of clients."""
    said = ""
    while text not in said:
        said = await line(process)
        assert "(end of stream)" not in said, text


class Workers:
    """examples/workers.py, on a port of its own and with what else a test changes."""

    def __init__(self, folder: Path, **values: float) -> None:
        with socket.create_server(("127.0.0.1", 0)) as sock:
            self.port: int = sock.getsockname()[1]
        code = (ROOT / "examples/workers.py").read_text(encoding="utf-8")
        changed = "".join(f"{name} = {value}\n" for name, value in values.items())
        self._code = code.replace("8765", str(self.port)).replace(
            "\nlog = ", f"\n{changed}log = "
        )
        self.script = folder / "workers.py"
        self.become("")

    def become(self, before: str) -> None:
        """Let those that start from now on do something first."""
        first = f"import sys\nif len(sys.argv) > 1:\n    {before or 'pass'}\n"
        self.script.write_text(first + self._code, encoding="utf-8")

    async def greeted_by(self) -> int:
        async with connect(f"ws://127.0.0.1:{self.port}/") as ws:
            await ws.send("hello")
            return int(str(await ws.recv()).partition(" ")[0])


HANG = "import signal; print('hangs', flush=True); signal.pause()"


@needs_posix
@pytest.mark.realtime(seconds=1.5)
async def test_workers_that_share_a_socket(tmp_path: Path) -> None:
    workers = Workers(tmp_path)
    async with trio.open_nursery() as nursery:
        process = await running(nursery, workers.script, fd=2)
        await logged(process, "new workers serve")
        async with hammered(workers.port) as crowd:
            await crowd.served_by(2)
            process.send_signal(signal.SIGHUP)
            await crowd.served_by(4)
        assert len(crowd.by) == 4
        await logged(process, "new workers serve")
        workers.become("raise SystemExit(1)")
        process.send_signal(signal.SIGHUP)
        await logged(process, "new workers can't start: worker ")
        assert str(await workers.greeted_by()) in crowd.by
        process.terminate()
        await logged(process, "stopped")


@needs_posix
@pytest.mark.realtime(seconds=0.1)
async def test_a_worker_that_dies_is_replaced(tmp_path: Path) -> None:
    workers = Workers(tmp_path, WORKERS=1, FIRST_PAUSE=0.01)
    async with trio.open_nursery() as nursery:
        process = await running(nursery, workers.script, fd=2)
        await logged(process, "new workers serve")
        victim = await workers.greeted_by()
        workers.become("raise SystemExit(1)")
        os.kill(victim, signal.SIGKILL)
        await logged(process, f"worker {victim} has ended with -9")
        for pause in "0.01", "0.02", "0.04":
            await logged(process, f"another one starts in {pause} s")
            await logged(process, " doesn't listen")
        workers.become("")
        assert await workers.greeted_by() != victim
        process.terminate()


@needs_posix
@pytest.mark.realtime(seconds=0.1)
@pytest.mark.parametrize(
    ("before", "limit"),
    [("raise SystemExit(1)", 30), (HANG, 0.1)],
    ids=["fail", "hang"],
)
async def test_workers_that_never_start(
    tmp_path: Path, before: str, limit: float
) -> None:
    workers = Workers(tmp_path, START_TIMEOUT=limit)
    workers.become(before)
    async with trio.open_nursery() as nursery:
        process = await running(nursery, workers.script, fd=2, check=False)
        await logged(process, "new workers can't start: worker ")
        assert await line(process) == " (end of stream)\n"
    assert process.returncode == 1


@needs_posix
async def test_a_stop_while_new_workers_hang(tmp_path: Path) -> None:
    workers = Workers(tmp_path)
    async with trio.open_nursery() as nursery:
        process = await running(nursery, workers.script, fd=2)
        await logged(process, "new workers serve")
        workers.become(HANG)
        process.send_signal(signal.SIGHUP)
        await logged(process, "hangs")
        assert await workers.greeted_by()
        process.terminate()
        await logged(process, "stopped")


@needs_posix
async def test_no_worker_outlives_its_supervisor(tmp_path: Path) -> None:
    workers = Workers(tmp_path)
    async with trio.open_nursery() as nursery:
        process = await running(nursery, workers.script, fd=2, check=False)
        await logged(process, "new workers serve")
        async with connect(f"ws://127.0.0.1:{workers.port}/") as ws:
            process.kill()
            with trio.fail_after(60):
                await ws.wait_closed()
            assert ws.close_code == 1001
        # Which they write to, too.
        assert await line(process) == " (end of stream)\n"


@needs_posix
@pytest.mark.realtime(seconds=1)
async def test_a_socket_that_systemd_keeps() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=100) as sock:
        port, fd = sock.getsockname()[1], sock.fileno()
        nobody = subprocess.DEVNULL  # reads its log
        start = "-c", BY_SYSTEMD, fd, ROOT / "examples/systemd.py"
        async with trio.open_nursery() as nursery:
            old = await running(nursery, *start, fd=fd, output=nobody)
            async with hammered(port) as crowd:
                await crowd.served_by(1)
                old.terminate()
                await old.wait()  # meanwhile they wait in the backlog
                new = await running(nursery, *start, fd=fd, output=nobody)
                await crowd.served_by(2)
            assert crowd.by == {str(old.pid), str(new.pid)}
            new.terminate()
