"""Connecting to Unix sockets: servers that are busy."""

from __future__ import annotations

import pathlib
import socket
from contextlib import ExitStack

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.handlers import echo
from tests.platforms import needs_linux
from trio_ws import OpenTimeoutError, open_server, unix_connect

pytestmark = needs_linux  # elsewhere, a backlog that is full refuses


def full(path: pathlib.Path, stack: ExitStack) -> socket.socket:
    """Listen where no more can connect before the first is accepted."""
    sock = stack.enter_context(socket.socket(socket.AF_UNIX))
    sock.bind(str(path))
    sock.listen(0)
    while True:
        client = stack.enter_context(socket.socket(socket.AF_UNIX))
        client.setblocking(False)
        if client.connect_ex(str(path)) != 0:
            return sock


async def test_a_server_that_is_busy_is_waited_for(
    tmp_path: pathlib.Path, mock_clock: MockClock, nursery: trio.Nursery
) -> None:
    path = tmp_path / "busy"
    connected = trio.Event()

    async def run() -> None:
        async with unix_connect(path, open_timeout=None) as ws:
            await ws.send("x")
            assert await ws.recv() == "x"
            connected.set()

    with ExitStack() as stack:
        sock = full(path, stack)
        nursery.start_soon(run)
        for _ in range(20):
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(0.1)
        assert not connected.is_set()
        async with open_server(echo, listeners=[sock.dup()]):
            while not connected.is_set():
                mock_clock.jump(0.1)
                await trio.testing.wait_all_tasks_blocked(0.001)
            stack.close()  # those before it, whom the server would wait for


async def test_not_for_longer_than_open_timeout(
    tmp_path: pathlib.Path, autojump_clock: MockClock
) -> None:
    path = tmp_path / "busy"
    with ExitStack() as stack:
        full(path, stack)
        with pytest.raises(OpenTimeoutError, match=r"/busy', whose backlog is full$"):
            async with unix_connect(path, open_timeout=5):
                pass
    assert trio.current_time() == pytest.approx(5)
