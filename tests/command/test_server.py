"""trio-ws serve in this process."""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NoReturn

import pytest
import trio
import trustme

from trio_ws import connect
from trio_ws._command import server as server_module
from trio_ws._command.arguments import parse
from trio_ws._command.notes import Status, UsageError
from trio_ws._command.server import run_serve


class Served:
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.status: Status | None = None
        self.listening = trio.Event()
        self.twice = False  # whether a signal follows the first

    def note(self, text: str) -> None:
        self.notes.append(text)
        if text.startswith("listening at"):
            self.listening.set()
        if text.startswith("closing") and self.twice:
            signal.raise_signal(signal.SIGINT)

    @property
    def uri(self) -> str:
        found = re.search(r"wss?://\S+", "\n".join(self.notes))
        assert found is not None
        return found[0]


@asynccontextmanager
async def served(
    *options: str, number: signal.Signals = signal.SIGINT
) -> AsyncIterator[Served]:
    """Serve while a block runs; then a signal ends it."""
    result = Served()
    arguments = parse(["serve", "0", *options])

    async def run() -> None:
        result.status = await run_serve(arguments, result.note)

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await result.listening.wait()
            yield result
            signal.raise_signal(number)


async def test_echo() -> None:
    async with served() as server:
        assert server.uri.startswith("ws://127.0.0.1:")
        async with connect(server.uri) as ws:
            await ws.send("a")
            assert await ws.recv() == "a"
            await ws.send(b"\xff")
            assert await ws.recv() == b"\xff"
    assert server.status is Status.OK


@pytest.mark.parametrize("options", [[], ["--broadcast"]])
async def test_a_signal_closes_all(options: list[str]) -> None:
    async with trio.open_nursery() as nursery, served(*options) as server:

        async def client(task_status: trio.TaskStatus[None]) -> None:
            async with connect(server.uri) as ws:
                task_status.started()
                assert [message async for message in ws] == []
                assert ws.close_code == 1001

        await nursery.start(client)
    assert server.status is Status.OK
    assert server.notes[1:] == ["closing; another signal ends it at once"]


async def test_a_second_signal_ends_it_at_once() -> None:
    """While the first waits for a client that doesn't answer."""
    async with AsyncExitStack() as stack, served() as server:
        port = int(server.uri.rpartition(":")[2].strip("/"))
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await stack.enter_async_context(stream)
        await stream.send_all(
            b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 101")
        server.twice = True
    assert server.status is Status.OK


async def test_a_room() -> None:
    async with served("--broadcast") as server:
        async with (
            connect(server.uri) as first,
            connect(server.uri) as second,
            connect(server.uri) as third,
        ):
            for ws in first, second, third:
                await ws.ping()  # its handler runs
            await first.send("a")
            assert await second.recv() == "a"
            await second.send(b"b")
            assert await third.recv() == "a"
            assert await third.recv() == b"b"
            assert await first.recv() == b"b"  # and not its own


@pytest.mark.parametrize("options", [[], ["--broadcast"]])
async def test_a_client_that_is_lost_is_no_error(options: list[str]) -> None:
    async with served(*options) as server:
        with pytest.RaisesGroup(KeyError, allow_unwrapped=True):
            async with connect(server.uri) as ws:
                await ws.ping()
                raise KeyError
    assert server.notes[1:] == ["closing; another signal ends it at once"]


async def test_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text", encoding="utf-8")
    async with served("--directory", str(tmp_path)) as server:
        async with connect(server.uri) as ws:
            await ws.send("a")
            assert await ws.recv() == "a"
        port = int(server.uri.rpartition(":")[2].strip("/"))
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(b"GET /a.txt HTTP/1.1\r\nHost: a\r\n\r\n")
            response = b"".join([chunk async for chunk in stream])
    assert response.startswith(b"HTTP/1.1 200 OK\r\n")
    assert response.endswith(b"\r\n\r\ntext")


async def test_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    own = authority.issue_cert("127.0.0.1")
    cert, key = str(tmp_path / "cert"), str(tmp_path / "key")
    own.private_key_pem.write_to_path(key)
    own.cert_chain_pems[0].write_to_path(cert)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    async with served("--tls", cert, key) as server:
        assert server.uri.startswith("wss://")
        async with connect(server.uri, ssl=context) as ws:
            await ws.send("a")
            assert await ws.recv() == "a"
    with pytest.raises(UsageError, match="--tls: no certificate with its key"):
        await run_serve(parse(["serve", "0", "--tls", key, cert]), server.note)


async def test_the_log() -> None:
    async with served("-v") as server:
        async with connect(server.uri) as ws:
            await ws.send("a")
            await ws.recv()
    assert any(note.endswith("< TEXT 'a' [1 byte]") for note in server.notes)


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.skipif(not has_ipv6(), reason="IPv6 is absent")
async def test_ipv6() -> None:
    async with served("--host", "::1") as server:
        assert server.uri.startswith("ws://[::1]:")
        async with connect(server.uri):
            pass


# Where it can't listen


def fails_with(number: int) -> Callable[..., object]:
    async def fail(*args: object, **kwargs: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize(
    ("number", "what"),
    [
        (errno.EACCES, "127.0.0.1 port 80 isn't allowed; ports below 1024"),
        (errno.EADDRNOTAVAIL, "127.0.0.1 is no address of this machine"),
        (errno.EMFILE, f"127.0.0.1 port 80: {os.strerror(errno.EMFILE)}"),
    ],
)
async def test_errors_of_listening(
    number: int, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "serve", fails_with(number))
    notes: list[str] = []
    status = await run_serve(parse(["serve", "80"]), notes.append)
    assert status is Status.UNREACHABLE
    assert notes[0].startswith(f"can't listen: {what}")


async def test_a_port_that_is_taken() -> None:
    notes: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        status = await run_serve(parse(["serve", str(port)]), notes.append)
    assert status is Status.UNREACHABLE
    assert notes == [
        f"can't listen: 127.0.0.1 port {port} is taken; give another, or 0 for one "
        f"that is free"
    ]


async def test_a_host_that_is_none() -> None:
    class NoDNS(trio.abc.HostnameResolver):
        async def getaddrinfo(self, *args: object) -> NoReturn:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")

        async def getnameinfo(self, *args: object) -> NoReturn:
            raise NotImplementedError

    trio.socket.set_custom_hostname_resolver(NoDNS())
    notes: list[str] = []
    status = await run_serve(parse(["serve", "--host", "a.example"]), notes.append)
    assert status is Status.UNREACHABLE
    assert notes[0].startswith("can't listen: no such host: a.example; ")


async def test_a_host_that_cannot_be() -> None:
    notes: list[str] = []
    status = await run_serve(parse(["serve", "--host", "a b"]), notes.append)
    assert status is Status.USAGE
    assert notes[0].startswith("can't listen: host: ")


async def test_no_folder(tmp_path: Path) -> None:
    arguments = parse(["serve", "--directory", str(tmp_path / "nothing")])
    with pytest.raises(UsageError, match="--directory"):
        await run_serve(arguments, lambda text: None)
