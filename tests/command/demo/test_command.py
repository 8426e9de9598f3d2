"""trio-ws demo, in this process and as one of its own."""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path

import pytest
import trio

from trio_ws import InvalidStatus, connect
from trio_ws._command.arguments import parse
from trio_ws._command.demo.command import run_demo
from trio_ws._command.notes import Status

ROOT = Path(__file__).parents[3]


async def get(port: int) -> bytes:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        return b"".join([chunk async for chunk in stream])


async def test_it_serves_until_a_signal() -> None:
    notes: list[str] = []
    listening = trio.Event()

    def note(text: str) -> None:
        notes.append(text)
        listening.set()

    async def run() -> None:
        assert await run_demo(parse(["demo", "0"]), note) is Status.OK

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await listening.wait()
            assert notes[0].startswith("the demo is at http://127.0.0.1:")
            port = int(notes[0].rpartition(":")[2].strip("/"))
            assert b"A connection is a block" in await get(port)
            uri = f"ws://127.0.0.1:{port}/"
            with pytest.raises(InvalidStatus):
                async with connect(uri, additional_headers={"Origin": "http://a"}):
                    pass
            async with connect(uri) as ws:
                assert '"code"' in str(await ws.recv())
                signal.raise_signal(signal.SIGINT)
                async for _ in ws:
                    pass
                assert ws.close_code == 1001
    assert notes[1:] == ["closing; another signal ends it at once"]


async def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock, trio.fail_after(60):
        port = sock.getsockname()[1]
        result = await trio.run_process(
            [sys.executable, "-W", "error", "-m", "trio_ws", "demo", str(port)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=False,
            capture_stderr=True,
        )
    assert result.returncode == Status.UNREACHABLE
    assert result.stderr.decode().splitlines() == [
        f"trio-ws: can't listen: 127.0.0.1 port {port} is taken; give another, or 0 "
        f"for one that is free"
    ]
