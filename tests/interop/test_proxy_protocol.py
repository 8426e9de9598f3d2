"""Behind HAProxy, which lets TLS pass and says whose each connection is."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

import trio_ws
from tests.interop.pairs import Handler
from tests.interop.peer import HOST, LIMIT, NEVER
from tests.interop.proxy import haproxy
from tests.peers.certificates import contexts


@pytest.mark.parametrize("send_proxy", ["send-proxy", "send-proxy-v2"])
@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
async def test_addresses(send_proxy: str, tls: bool, tmp_path: Path) -> None:
    client, server = contexts() if tls else (None, None)
    scheme = "wss" if tls else "ws"
    handler = Handler()
    with trio.fail_after(LIMIT):
        async with (
            trio_ws.open_server(
                handler, 0, host=HOST, ssl=server, proxy_protocol=True
            ) as running,
            haproxy(running.port, tmp_path, send_proxy) as port,
            trio_ws.connect(
                f"{scheme}://localhost:{port}",
                host=HOST,
                ssl=client,
                close_timeout=NEVER,
            ) as ws,
        ):
            ours = await handler.connection()
            assert ours.remote_address == ws.local_address
            assert ours.local_address == ws.remote_address == (HOST, port)
            await ws.send("Grüße")
            assert await ours.recv() == "Grüße"
            handler.leave.set()
