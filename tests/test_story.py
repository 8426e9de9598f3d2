"""The debug log: a story that holds no secret and no control character."""

from __future__ import annotations

import logging
import re

import pytest

from trio_ws import ConnectionClosedError, ServerConnection, connect, open_server


async def test_a_connection_from_opening_to_close(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "trio_ws")

    async def handler(ws: ServerConnection) -> None:
        await ws.send(await ws.recv())
        await ws.aclose(4000, "enough")

    async with open_server(handler, 0, host="127.0.0.1", compression=None) as server:
        uri = f"ws://user:password@127.0.0.1:{server.port}/path"
        headers = {"Cookie": "token=1", "X-Plain": "shown"}
        async with connect(uri, additional_headers=headers, compression=None) as ws:
            await ws.send("Grüße")
            await ws.recv()
            with pytest.raises(ConnectionClosedError):
                await ws.recv()
            client = ws.id.hex[:8]
    told = [
        record.getMessage()
        for record in caplog.records
        if record.name == "trio_ws.client"
    ]
    opening = [line for line in told if client not in line]
    assert opening[0] == "> GET /path HTTP/1.1"
    assert "> Authorization: [secret]" in opening
    assert "> Cookie: [secret]" in opening
    assert "> X-Plain: shown" in opening
    assert "< HTTP/1.1 101" in opening
    assert [line.removeprefix(client + " ") for line in told if client in line] == [
        "> TEXT 47 72 c3 bc c3 9f 65 [7 bytes]",
        "< TEXT 47 72 c3 bc c3 9f 65 [7 bytes]",
        "< CLOSE 4000 (private use) enough [8 bytes]",
        "> CLOSE 4000 (private use) enough [8 bytes]",
        "closed by the peer: 4000 (private use) enough",
    ]
    everything = caplog.text
    assert "password" not in everything
    assert "token" not in everything


async def test_what_a_peer_sends_is_escaped(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "trio_ws")
    nasty = "\x1b[2J\r\n\x85\u2028forged line"

    async def handler(ws: ServerConnection) -> None:
        async for _ in ws:
            pass

    async with open_server(handler, 0, host="127.0.0.1") as server:
        async with connect(f"ws://127.0.0.1:{server.port}/") as ws:
            await ws.send(nasty)
            await ws.send(nasty.encode())
            await ws.ping(nasty)
            ws._endpoint.fail(1002, "\x1b[2J\u2028", None)
            with pytest.raises(ConnectionClosedError):
                await ws.recv()
    for record in caplog.records:
        assert re.search(r"[\x00-\x1f\x7f-\x9f\u2028]", record.getMessage()) is None
