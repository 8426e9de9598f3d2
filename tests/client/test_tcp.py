"""Addresses that a client tries one after the other."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import trio
import trio.testing

import trio_ws
from tests.handlers import echo
from tests.platforms import needs_linux
from tests.server.serving import Resolver, tls_contexts


async def check_echo(ws: trio_ws.ClientConnection) -> None:
    await ws.send("round")
    assert await ws.recv() == "round"


async def connected(uri: str, **options: Any) -> None:
    """Connect, and see that a server answers."""
    async with trio_ws.connect(uri, **options) as ws:
        await check_echo(ws)


async def test_a_name_whose_first_address_is_dead() -> None:
    async with trio_ws.open_server(echo, 0, host="127.0.0.1") as server:
        with socket.socket() as dead:
            dead.bind(("127.0.0.1", 0))  # and doesn't listen
            Resolver(
                (socket.AF_INET, dead.getsockname()),
                (socket.AF_INET, ("127.0.0.1", server.port)),
            ).install()
            async with trio_ws.connect("ws://name.example/") as ws:
                assert ws.remote_address == ("127.0.0.1", server.port)
                assert ws.request.headers["Host"] == "name.example"
                await check_echo(ws)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1.", "127.1"])
async def test_an_address_is_looked_up_by_nobody(host: str) -> None:
    Resolver().install()
    async with trio_ws.open_server(echo, 0, host="127.0.0.1") as server:
        await connected(f"ws://{host}:{server.port}/")
        await connected("ws://name.example/", host=host, port=server.port)


@needs_linux
@pytest.mark.realtime(seconds=0.3)
async def test_a_name_whose_first_address_is_silent() -> None:
    """Happy eyeballs: another is tried before the first has failed (RFC 8305)."""
    async with trio_ws.open_server(echo, 0, host="127.0.0.1") as server:
        with socket.create_server(("127.0.0.1", 0), backlog=0) as silent:
            # Linux ignores a SYN for which the backlog has no room.
            fillers = [socket.socket() for _ in range(3)]
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(silent.getsockname())
            Resolver(
                (socket.AF_INET, silent.getsockname()),
                (socket.AF_INET, ("127.0.0.1", server.port)),
            ).install()
            # The system itself would try the silent one for longer than this.
            await connected("ws://name.example/", open_timeout=60)
            for filler in fillers:
                filler.close()


async def test_a_name_of_which_all_addresses_are_dead() -> None:
    with socket.socket() as dead, socket.socket() as dead_too:
        for one in (dead, dead_too):
            one.bind(("127.0.0.1", 0))
        Resolver(
            (socket.AF_INET, dead.getsockname()),
            (socket.AF_INET, dead_too.getsockname()),
        ).install()
        with pytest.raises(OSError, match=r"name\.example") as caught:
            await connected("ws://name.example/")
        assert isinstance(caught.value.__cause__, BaseExceptionGroup)
        assert len(caught.value.__cause__.exceptions) == 2


async def test_host_and_port_go_before_those_of_the_uri() -> None:
    server_context, client_context = tls_contexts("name.example")
    async with trio_ws.open_server(
        echo, 0, host="127.0.0.1", ssl=server_context
    ) as server:
        # TLS checks, and the Host header says, what the URI says.
        async with trio_ws.connect(
            "wss://name.example:1/",
            host="127.0.0.1",
            port=server.port,
            ssl=client_context,
        ) as ws:
            assert ws.request.headers["Host"] == "name.example:1"
            await check_echo(ws)
        await connected(
            f"wss://name.example:{server.port}/", host="127.0.0.1", ssl=client_context
        )
        Resolver((socket.AF_INET, ("127.0.0.1", server.port))).install()
        await connected("wss://name.example:1/", port=server.port, ssl=client_context)


async def test_local_address() -> None:
    seen = []

    async def handler(ws: trio_ws.ServerConnection) -> None:
        seen.append(ws.remote_address[0])
        await echo(ws)

    async with trio_ws.open_server(handler, 0, host="127.0.0.1") as server:
        for local in ("127.0.0.1", "127.0.0.2"):
            try:
                await connected(f"ws://127.0.0.1:{server.port}/", local_address=local)
            except OSError:  # pragma: no cover - macOS has the first alone
                pytest.skip(f"{local} is absent")
    assert seen == ["127.0.0.1", "127.0.0.2"]


async def test_a_local_address_that_is_none_of_this_machine() -> None:
    with pytest.raises(OSError, match=r"assign|10049") as caught:
        # TEST-NET-1 (RFC 5737)
        await connected("ws://127.0.0.1:1/", local_address="192.0.2.1")
    assert caught.value.__notes__ == [
        "local_address '192.0.2.1'",
        "connecting to 127.0.0.1:1",
    ]


async def test_two_addresses_that_answer_at_once(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    answered = trio.Event()
    opened: list[socket.socket] = []

    async def answer(address: Any, local_address: str | None) -> socket.socket:
        sock = socket.socket()
        opened.append(sock)
        if len(opened) == 1:
            await answered.wait()
        else:
            answered.set()
        return sock

    monkeypatch.setattr("trio_ws._client.tcp._connect", answer)
    Resolver(*[(socket.AF_INET, ("127.0.0.1", 1))] * 2).install()
    with pytest.raises(OSError, match="opening handshake with name"):
        await connected("ws://name.example/")  # none of them is connected
    assert [one.fileno() for one in opened] == [-1, -1]
