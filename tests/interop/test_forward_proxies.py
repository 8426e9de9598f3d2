"""Clients through tinyproxy, which speaks HTTP, and microsocks, which speaks SOCKS."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

import trio_ws
from tests.interop.pairs import Handler
from tests.interop.peer import HOST, LIMIT, NEVER, TLS
from tests.interop.proxy import FORWARD, PASSWORD, USER

MIB = 2**20


@pytest.mark.realtime(seconds=0.1)
@pytest.mark.parametrize("scheme", sorted(FORWARD))
@pytest.mark.parametrize("secure", [False, True], ids=["ws", "wss"])
async def test_exchange(scheme: str, secure: bool, tls: TLS, tmp_path: Path) -> None:
    handler = Handler()
    message = bytes(range(256)) * (MIB // 256)
    with trio.fail_after(LIMIT):
        async with (
            trio_ws.open_server(
                handler, 0, host=HOST, ssl=tls.server if secure else None
            ) as server,
            FORWARD[scheme](server.port, tmp_path) as port,
            trio_ws.connect(
                f"{'wss' if secure else 'ws'}://{HOST}:{server.port}/",
                proxy=f"{scheme}://{USER}:{PASSWORD}@{HOST}:{port}",
                ssl=tls.client if secure else None,
                close_timeout=NEVER,
            ) as client,
        ):
            ws = await handler.connection()
            for one, other in (client, ws), (ws, client):
                await one.send("Grüße")
                assert await other.recv() == "Grüße"
                await one.ping()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.send, message)
                nursery.start_soon(ws.send, message)
                assert await client.recv() == message
                assert await ws.recv() == message
            await client.aclose(4000, "done")
            with pytest.raises(trio_ws.ConnectionClosedError, match="4000"):
                await ws.recv()
            handler.leave.set()


@pytest.mark.realtime(seconds=0.1)
@pytest.mark.parametrize("scheme", sorted(FORWARD))
async def test_a_wrong_password(scheme: str, tmp_path: Path) -> None:
    with trio.fail_after(LIMIT):
        async with FORWARD[scheme](80, tmp_path) as port:
            with pytest.raises(trio_ws.ProxyError) as caught:
                async with trio_ws.connect(
                    f"ws://{HOST}/", proxy=f"{scheme}://{USER}:wrong@{HOST}:{port}"
                ):
                    raise AssertionError("entered")
    if scheme == "http":
        assert isinstance(caught.value, trio_ws.InvalidProxyStatus)
        assert caught.value.response.status_code in (401, 407)


@pytest.mark.realtime(seconds=0.1)
@pytest.mark.parametrize("scheme", sorted(FORWARD))
async def test_nobody_listens_behind_it(scheme: str, tmp_path: Path) -> None:
    with trio.socket.socket() as bound:
        await bound.bind((HOST, 0))
        closed = bound.getsockname()[1]
        with trio.fail_after(LIMIT):
            async with FORWARD[scheme](closed, tmp_path) as port:
                with pytest.raises(trio_ws.ProxyError) as caught:
                    async with trio_ws.connect(
                        f"ws://{HOST}:{closed}/",
                        proxy=f"{scheme}://{USER}:{PASSWORD}@{HOST}:{port}",
                    ):
                        raise AssertionError("entered")
    if scheme == "http":
        assert isinstance(caught.value, trio_ws.InvalidProxyStatus)
        assert caught.value.response.status_code in (500, 502, 503)
    else:
        assert isinstance(caught.value.__cause__, OSError)
