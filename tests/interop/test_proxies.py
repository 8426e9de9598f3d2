"""Through nginx and HAProxy: exchanges, idle connections, and the end of one."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

import trio_ws
from tests.interop.pairs import Handler
from tests.interop.peer import HOST, LIMIT, NEVER
from tests.interop.proxy import (
    IDLE,
    MORE_PROXIES,
    NAMES,
    PROXIES,
    SEEN,
    Proxy,
    haproxy,
    required,
)

MIB = 2**20

LOST = r"^no close frame received or sent$"


@pytest.fixture(params=NAMES)
def proxy(request: pytest.FixtureRequest) -> Proxy:
    required(request.param)
    return {**PROXIES, **MORE_PROXIES}[request.param]


@pytest.fixture
def proxies() -> dict[str, Proxy]:
    for name in PROXIES:
        required(name)
    return PROXIES


async def test_exchange(proxy: Proxy, tmp_path: Path) -> None:
    message = bytes(range(256)) * (MIB // 256)
    handler = Handler()
    with trio.fail_after(LIMIT):
        async with (
            trio_ws.open_server(
                handler, 0, host=HOST, subprotocols=["chat"], close_timeout=NEVER
            ) as server,
            proxy(server.port, tmp_path) as port,
            trio_ws.connect(
                f"ws://{HOST}:{port}/path?query",
                subprotocols=["superchat", "chat"],
                close_timeout=NEVER,
            ) as client,
        ):
            ws = await handler.connection()
            assert ws.request.path == "/path?query"
            assert ws.request.headers[SEEN] == "/path?query"
            assert client.subprotocol == ws.subprotocol == "chat"
            for one, other in (client, ws), (ws, client):
                await one.send("Grüße")
                assert await other.recv() == "Grüße"
                await one.send(["frag", "ments"])
                assert await other.recv() == "fragments"
                await one.ping()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.send, message)
                nursery.start_soon(ws.send, message)
                assert await client.recv() == message
                assert await ws.recv() == message
            handler.leave.set()


@pytest.mark.parametrize("server_closes", [True, False], ids=["server", "client"])
async def test_close(proxy: Proxy, tmp_path: Path, server_closes: bool) -> None:
    handler = Handler()
    with trio.fail_after(LIMIT):
        async with (
            trio_ws.open_server(handler, 0, host=HOST, close_timeout=NEVER) as server,
            proxy(server.port, tmp_path) as port,
            trio_ws.connect(f"ws://{HOST}:{port}/", close_timeout=NEVER) as client,
        ):
            ws = await handler.connection()
            one, other = (ws, client) if server_closes else (client, ws)
            await one.send("the last one")
            await one.aclose(4000, "done")
            assert await other.recv() == "the last one"
            with pytest.raises(trio_ws.ConnectionClosedError):
                await other.recv()
            await other.wait_closed()
            assert (other.close_code, other.close_reason) == (4000, "done")
            assert (one.close_code, one.close_reason) == (4000, "done")
            handler.leave.set()


async def test_a_refusal_passes(proxy: Proxy, tmp_path: Path) -> None:
    with trio.fail_after(LIMIT):
        async with (
            trio_ws.open_server(
                Handler(), 0, host=HOST, subprotocols=["chat"]
            ) as server,
            proxy(server.port, tmp_path) as port,
        ):
            with pytest.raises(trio_ws.InvalidStatus) as info:
                async with trio_ws.connect(f"ws://{HOST}:{port}/"):
                    pass
            assert info.value.response.status_code == 400
            assert b"missing subprotocol" in info.value.response.body


# Longer than two idle timeouts; and eight pings in each, since some may be late.
STAYS = 2 * IDLE + 0.5
PINGS = IDLE / 8


@pytest.mark.realtime(seconds=STAYS + 0.5)
async def test_idle(proxies: dict[str, Proxy], tmp_path: Path) -> None:
    """Pings of either side keep a connection; without them the proxy ends it."""
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            for name, proxy in proxies.items():
                for who in "client", "server", "nobody":
                    folder = tmp_path / f"{name}-{who}"
                    folder.mkdir()
                    nursery.start_soon(_idle, proxy, folder, who)


async def _idle(proxy: Proxy, folder: Path, who: str) -> None:
    handler = Handler()
    async with (
        trio_ws.open_server(
            handler, 0, host=HOST, ping_interval=PINGS if who == "server" else None
        ) as server,
        proxy(server.port, folder) as port,
        trio_ws.connect(
            f"ws://{HOST}:{port}/", ping_interval=PINGS if who == "client" else None
        ) as client,
    ):
        ws = await handler.connection()
        if who == "nobody":
            # Neither end says anything to the other. HAProxy 2.6 ends the server's
            # half of the tunnel by a reset, 3.2 and the rest by an end of stream.
            by_haproxy = ConnectionResetError, EOFError
            for end, cause in (
                (client, EOFError),
                (ws, by_haproxy if proxy is haproxy else EOFError),
            ):
                with pytest.raises(trio_ws.ConnectionClosedError, match=LOST) as info:
                    await end.recv()
                assert isinstance(info.value.__cause__, cause)
                assert end.close_code == 1006
        else:
            await trio.sleep(STAYS)
            await client.send("still there")
            assert await ws.recv() == "still there"
        handler.leave.set()
