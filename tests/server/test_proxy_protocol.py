"""Behind a proxy that says whose each connection is: proxy_protocol=True."""

from __future__ import annotations

import logging
import ssl
from typing import Any

import pytest
import trio
from trio.testing import MockClock

import trio_ws
from tests import logs
from tests.handlers import echo
from tests.peers import raw_http
from tests.peers.certificates import contexts
from tests.peers.in_memory import MemoryListener
from tests.server.serving import check_echo, logged, serving
from trio_ws import (
    OpenTimeoutError,
    ServerConnection,
    accept,
    open_server,
)

LINE = b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n"
LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"
CLIENT, SERVER = ("192.0.2.1", 56324), ("198.51.100.2", 443)


class Handler:
    """Echoes; knows the addresses of its connections."""

    def __init__(self) -> None:
        self.addresses: list[Any] = []

    async def __call__(self, ws: ServerConnection) -> None:
        self.addresses.append((ws.remote_address, ws.local_address))
        await echo(ws)


@pytest.mark.parametrize("context", [None, "tls"])
@pytest.mark.parametrize("step", [1, 7, 1000])
async def test_addresses_over_tcp(context: str | None, step: int) -> None:
    client, server = contexts() if context else (None, None)
    handler = Handler()
    async with open_server(
        handler, 0, host="127.0.0.1", ssl=server, proxy_protocol=True
    ) as running:
        for header in LINE, LOCAL:
            stream = await trio.open_tcp_stream("127.0.0.1", running.port)
            own = stream.socket.getsockname()
            for start in range(0, len(header), step):
                await stream.send_all(header[start : start + step])
            scheme = "ws" if client is None else "wss"
            uri = f"{scheme}://localhost/"
            async with trio_ws.connect(uri, ssl=client, stream=stream) as ws:
                await check_echo(ws)
            expected = (CLIENT, SERVER) if header is LINE else (own, own)
            assert handler.addresses[-1][0] == expected[0]
    assert handler.addresses[0] == (CLIENT, SERVER)
    assert handler.addresses[1][1][0] == "127.0.0.1"


async def test_addresses_over_memory(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    handler = Handler()
    async with serving(handler, proxy_protocol=True) as listener:
        stream = listener.connect()
        await stream.send_all(LINE)
        async with trio_ws.connect("ws://testing/", stream=stream) as ws:
            await check_echo(ws)
    assert handler.addresses == [(CLIENT, SERVER)]
    (opened,) = [r for r in caplog.records if logs.plain(r) == "connection open"]
    assert "192.0.2.1:56324" in opened.getMessage()
    assert vars(opened)["remote_address"] == CLIENT


async def test_a_path_that_no_log_may_show_as_it_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    handler = Handler()
    path = "/a\nERROR disk is full\x1b[31m\udcff"
    paths = path.encode("utf-8", "surrogateescape").ljust(108, b"\0") + bytes(108)
    head = b"\r\n\r\n\0\r\nQUIT\n\x21\x31" + len(paths).to_bytes(2)
    async with serving(handler, proxy_protocol=True) as listener:
        stream = listener.connect()
        await stream.send_all(head + paths)
        async with trio_ws.connect("ws://testing/", stream=stream) as ws:
            await check_echo(ws)
    assert [remote for remote, _ in handler.addresses] == [path]
    (opened,) = [r for r in caplog.records if logs.plain(r) == "connection open"]
    shown = "/a\\nERROR disk is full\\x1b[31m\\udcff"
    assert vars(opened)["remote_address"] == shown


async def test_addresses_of_accept() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(LINE + raw_http.request())
    async with accept(ours, proxy_protocol=True, close_timeout=0) as ws:
        assert (ws.remote_address, ws.local_address) == (CLIENT, SERVER)


@pytest.mark.parametrize(
    ("said", "ends", "logger", "text"),
    [
        (raw_http.request(), False, "trio_ws.server", "got b'GET /chat HT' (HTTP)"),
        (b"PROXY TCP4 1.2.3.4 5\r\n", False, "trio_ws.server", "got b'PROXY TCP4"),
        (b"", True, "trio_ws.server.strangers", "got b'' and the end of stream"),
        (LINE[:20], True, "trio_ws.server.strangers", "end of stream"),
    ],
)
async def test_a_wrong_header_costs_its_connection(
    said: bytes,
    ends: bool,
    logger: str,
    text: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with serving(proxy_protocol=True) as listener:
        stream = listener.connect()
        await stream.send_all(said)
        if ends:
            assert isinstance(stream, trio.StapledStream)
            await stream.send_eof()
        assert await stream.receive_some() == b""  # no answer: it is no client's
        await check_that_it_serves(listener)
    (record,) = [r for r in logs.told(caplog) if "handshake failed" in r.getMessage()]
    assert record.name == logger
    assert "expected a header of the PROXY protocol; got" in record.getMessage()
    assert text in record.getMessage()


async def check_that_it_serves(listener: MemoryListener) -> None:
    stream = listener.connect()
    await stream.send_all(LINE)
    async with trio_ws.connect("ws://testing/", stream=stream) as ws:
        await check_echo(ws)


@pytest.mark.parametrize("said", [b"", LINE[:20]])
async def test_a_slow_header_costs_its_connection(
    said: bytes, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with serving(proxy_protocol=True, open_timeout=3) as listener:
        stream = listener.connect()
        await stream.send_all(said)
        start = trio.current_time()
        assert await stream.receive_some() == b""
        assert trio.current_time() - start == pytest.approx(3)
        await check_that_it_serves(listener)
    text = (
        "opening handshake failed: OpenTimeoutError: connection not open after 3 s "
        "(open_timeout): header of the PROXY protocol"
    )
    assert ("INFO", text) in logged(caplog)


async def test_a_slow_header_of_accept(autojump_clock: MockClock) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    with pytest.raises(OpenTimeoutError, match="header of the PROXY protocol"):
        async with accept(ours, proxy_protocol=True):
            raise AssertionError("unreachable")
    assert await theirs.receive_some() == b""


async def test_the_server_closes_meanwhile(autojump_clock: MockClock) -> None:
    async with serving(proxy_protocol=True) as listener:
        stream = listener.connect()
        await stream.send_all(LINE[:20])
        await trio.testing.wait_all_tasks_blocked()
    assert await stream.receive_some() == b""


async def test_no_header_where_none_is_expected() -> None:
    async with serving() as listener:
        stream = listener.connect()
        await stream.send_all(LINE + raw_http.request())
        answer = await raw_http.read_answer(stream)
    assert answer.status == 400
    assert b"PROXY protocol" in answer.rest


def test_an_argument_of_another_type() -> None:
    wrong: Any = "v2"
    with pytest.raises(TypeError, match="proxy_protocol: expected a bool; got 'v2'"):
        open_server(echo, 0, proxy_protocol=wrong)


async def test_tls_begins_after_the_header() -> None:
    client, server = contexts()
    async with serving(ssl=server, proxy_protocol=True) as listener:
        with pytest.raises((OSError, ssl.SSLError)):
            async with trio_ws.connect(
                "wss://localhost/", ssl=client, stream=listener.connect()
            ):
                raise AssertionError("unreachable")
