"""The debug log, which holds no secret and no control character."""

from __future__ import annotations

import logging
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import logs
from tests.peers.in_memory import BINARY, CLOSE, CONT, PING, TEXT, RawPeer, frame
from trio_ws import (
    ConnectionClosedError,
    ServerConnection,
    accept,
    connect,
    open_server,
)
from trio_ws._endpoint.log import describe
from trio_ws._protocol.opcodes import OPCODE_NAMES, PONG
from trio_ws.testing import open_pair


@pytest.mark.parametrize(
    ("opcode", "payload", "size", "fin", "text"),
    [
        (TEXT, b"hello", 5, True, "TEXT 'hello' [5 bytes]"),
        (TEXT, b"a", 1, True, "TEXT 'a' [1 byte]"),
        (BINARY, b"\x00\xff", 2, True, "BINARY 00 ff [2 bytes]"),
        (TEXT, "é".encode(), 2, False, "TEXT 'é' [2 bytes, continued]"),
        (TEXT, b'{"a":\n1}', 9, True, """TEXT '{"a":\\n1}' [9 bytes]"""),
        (TEXT, b"\x1b[2J", 4, True, r"TEXT '\x1b[2J' [4 bytes]"),
        # A fragment may end within a character, a message may not.
        (TEXT, b"caf\xc3", 4, False, "TEXT 'caf' c3 [4 bytes, continued]"),
        (TEXT, b"caf\xc3", 4, True, "TEXT 63 61 66 c3 [4 bytes]"),
        (TEXT, b"\xe2\x82", 2, False, "TEXT e2 82 [2 bytes, continued]"),
        (TEXT, b"\xa9x", 2, True, "TEXT a9 78 [2 bytes]"),
        (CONT, b"\xa9x", 2, True, "CONT a9 'x' [2 bytes]"),
        (CONT, b"\xa9", 1, True, "CONT a9 [1 byte]"),
        (CONT, b"\xa9\xc3", 2, False, "CONT a9 c3 [2 bytes, continued]"),
        (CONT, b"\xa9" * 4, 4, True, "CONT a9 a9 a9 a9 [4 bytes]"),
        # So may what of a long frame is shown.
        (TEXT, b"x" * 59 + b"\xc3\xa9", 61, True, f"TEXT '{'x' * 59}'... [61 bytes]"),
        (CONT, b"", 0, True, "CONT '' [0 bytes]"),
        (BINARY, b"x" * 60, 60, True, f"BINARY '{'x' * 60}' [60 bytes]"),
        (BINARY, b"x" * 61, 61, True, f"BINARY '{'x' * 60}'... [61 bytes]"),
        # Of a long frame only the beginning is at hand.
        (BINARY, b"x" * 100, 9999, True, f"BINARY '{'x' * 60}'... [9999 bytes]"),
        (CLOSE, b"", 0, True, "CLOSE '' [0 bytes]"),
        (CLOSE, b"\x03", 1, True, "CLOSE 03 [1 byte]"),
        (CLOSE, b"\x03\xe8bye", 5, True, "CLOSE 1000 (OK) bye [5 bytes]"),
        (CLOSE, b"\x03\xe8\xff\n", 4, True, r"CLOSE 1000 (OK) \xff\n [4 bytes]"),
        (PING, b"", 0, True, "PING '' [0 bytes]"),
        (PONG, b"it's", 4, True, 'PONG "it\'s" [4 bytes]'),
    ],
)
def test_describe(opcode: int, payload: bytes, size: int, fin: bool, text: str) -> None:
    assert describe(opcode, payload, size, fin) == text


@given(st.sampled_from(sorted(OPCODE_NAMES)), st.binary(max_size=125), st.booleans())
def test_a_description_is_one_printable_line(
    opcode: int, payload: bytes, fin: bool
) -> None:
    assert describe(opcode, payload, len(payload), fin).isprintable()


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
    prefix = f"{client} 127.0.0.1:{server.port} "
    assert all(line.startswith(prefix) for line in told)
    told = [line.removeprefix(prefix) for line in told]
    opening = told[: told.index("> TEXT 'Grüße' [7 bytes]")]
    assert opening[0] == "> GET /path HTTP/1.1"
    assert "> Authorization: [secret]" in opening
    assert "> Cookie: [secret]" in opening
    assert "> X-Plain: shown" in opening
    assert "< HTTP/1.1 101" in opening
    assert told[len(opening) :] == [
        "> TEXT 'Grüße' [7 bytes]",
        "< TEXT 'Grüße' [7 bytes]",
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
    for record in logs.told(caplog):
        assert re.search(r"[\x00-\x1f\x7f-\x9f\u2028]", logs.plain(record)) is None


# Of a connection


async def test_debug_logs_show_each_frame(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "trio_ws")
    async with open_pair({"ping_interval": None}, {"ping_interval": None}) as (
        client,
        server,
    ):
        await client.send("text")
        await client.send([b"\x00\xff", b""])
        await client.send("x" * 1000)
        for _ in range(3):
            await server.recv()
        await server.aclose(1001, "bye")
    for ws, logger, sign, end in (
        (client, "trio_ws.client", ">", "closed by the peer: 1001 (going away) bye"),
        (server, "trio_ws.server", "<", "closed by this side: 1001 (going away) bye"),
    ):
        back = "<" if sign == ">" else ">"
        lines = [
            logs.plain(record)
            for record in caplog.records
            if record.name == logger and ws.id.hex[:8] in record.getMessage()
        ]
        frames = [line for line in lines if line[0] in "<>" and "[" in line]
        assert frames[:5] == [
            f"{sign} TEXT 'text' [4 bytes]",
            f"{sign} BINARY 00 ff [2 bytes, continued]",
            f"{sign} CONT '' [0 bytes, continued]",
            f"{sign} CONT '' [0 bytes]",
            f"{sign} TEXT '{'x' * 60}'... [1000 bytes]",
        ]
        close = "CLOSE 1001 (going away) bye [5 bytes]"
        assert sorted(frames[5:]) == sorted([f"{back} {close}", f"{sign} {close}"])
        assert end in lines


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        (b"", "lost: EOFError: stream ended between two messages"),
        (frame(3, masked=True), "lost: ProtocolError: unknown opcode 0x3"),
    ],
)
async def test_debug_logs_say_how_it_was_lost(
    caplog: pytest.LogCaptureFixture, sent: bytes, shown: str
) -> None:
    caplog.set_level(logging.DEBUG, "trio_ws.server")
    peer = RawPeer(client=True)
    await peer.ask(sent)
    await peer.end()
    async with accept(peer.theirs) as ws:
        with pytest.raises(ConnectionClosedError):
            await ws.recv()
    assert f"{ws.id.hex[:8]} {shown}" in caplog.messages


NASTY = "\x1b[31m\r\nforged line\x07\u009b2J\u202e"


async def test_nothing_a_peer_sends_reaches_a_log_unescaped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "trio_ws.server")
    peer = RawPeer(client=True)
    await peer.ask(
        frame(TEXT, NASTY.encode(), masked=True),
        frame(BINARY, NASTY.encode(), masked=True),
        frame(PING, NASTY.encode(), masked=True),
        frame(CLOSE, b"\x0f\xa0" + NASTY.encode(), masked=True),
    )
    async with accept(peer.theirs) as ws:
        assert await ws.recv() == NASTY
        await ws.recv()
        with pytest.raises(ConnectionClosedError) as caught:
            await ws.recv()
        assert str(caught.value).isprintable()
        assert repr(caught.value).isprintable()
        assert ws.close_reason == NASTY
    assert len(logs.messages(caplog)) > 8
    for line in logs.messages(caplog):
        assert line.isprintable(), line


async def test_no_debug_logs_where_nobody_reads_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "trio_ws")
    async with open_pair() as (client, _):
        await client.send("x")
        await client.ping()
    assert logs.told(caplog) == []
