"""Malformed handshakes, over real sockets: each gets its answer, and a close."""

from __future__ import annotations

import itertools
import logging
import re
import socket
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

import pytest
import trio
import trio.testing
import trustme

import trio_ws
from tests import logs
from tests.peers import raw_http
from tests.peers.in_memory import MemoryListener

# What a TLS 1.3 client says first (RFC 8446, section 4.1.2), its randomness made up.
CLIENT_HELLO = (
    b"\x16\x03\x01\x00\x6a\x01\x00\x00\x66\x03\x03"
    + bytes(range(32))
    + b"\x20"
    + bytes(range(32, 64))
    + b"\x00\x02\x13\x01\x01\x00\x00\x1b\x00\x2b\x00\x03\x02\x03\x04"
    + b"\x00\x0a\x00\x04\x00\x02\x00\x1d\x00\x0d\x00\x04\x00\x02\x04\x03"
    + b"\x00\x33\x00\x00"
)

HOST = b"Host: localhost"


class Case(NamedTuple):
    name: str
    data: bytes
    status: int
    log: str  # the exception's name, and a part of what it says
    headers: Mapping[str, str] = {}


def whole(
    name: str,
    status: int,
    log: str,
    *extra: bytes,
    headers: Mapping[str, str] | None = None,
    **changes: Any,
) -> Case:
    """Make the case of a handshake with one thing wrong."""
    return Case(name, raw_http.request(*extra, **changes), status, log, headers or {})


def in_all(size: int) -> list[bytes]:
    """Make header lines that bring a handshake's to ``size`` bytes, with CRLF."""
    size -= sum(len(line) + 2 for line in raw_http.HANDSHAKE_HEADERS)
    lines = []
    while size:
        length = min(size, 4000)
        if 0 < size - length < 10:
            length -= 10
        lines.append(b"X: ".ljust(length - 2, b"x"))
        size -= length
    return lines


UPGRADE_426 = {"Upgrade": "websocket", "Connection": "close, Upgrade"}
VERSION_426 = {**UPGRADE_426, "Sec-WebSocket-Version": "13"}
ALLOW = {"Allow": "GET"}
KEY = b"Sec-WebSocket-Key: " + raw_http.KEY

CASES = [
    # Bodies
    whole("length", 400, "InvalidMessage: .*Content-Length: 5", b"Content-Length: 5"),
    whole("length 00", 400, "InvalidMessage", b"Content-Length: 00"),
    whole("length +0", 400, "InvalidMessage", b"Content-Length: +0"),
    whole("length -1", 400, "InvalidMessage", b"Content-Length: -1"),
    whole("length list", 400, "InvalidMessage", b"Content-Length: 0, 5"),
    whole("two lengths", 400, "Message", b"Content-Length: 0", b"Content-Length: 5"),
    whole("chunked", 400, "Transfer-Encoding", b"Transfer-Encoding: chunked"),
    whole("identity", 400, "Transfer-Encoding", b"Transfer-Encoding: identity"),
    whole(
        "smuggled",
        400,
        "Transfer-Encoding",
        b"Content-Length: 4",
        b"Transfer-Encoding: chunked",
    ),
    # Host
    whole("no host", 400, "InvalidHeader: missing Host", without=b"Host"),
    whole("two hosts", 400, "Host header: multiple", HOST),
    whole("empty host", 400, "empty Host", b"Host: ", without=b"Host"),
    whole("odd host", 400, "InvalidHeaderValue", b"Host: a/b", without=b"Host"),
    whole(
        "other host",
        400,
        "InvalidHeaderValue.*Host",
        line=b"GET http://other/chat HTTP/1.1",
    ),
    # Lines
    whole("obs-fold", 400, "folded", b"X: a\r\n b"),
    whole("obs-fold tab", 400, "folded", b"X: a\r\n\tb"),
    Case("fold first", b"GET / HTTP/1.1\r\n X: a\r\nHost: h\r\n\r\n", 400, "folded"),
    Case("bare LF", raw_http.request().replace(b"\r\n", b"\n"), 400, "bare LF"),
    whole("one bare LF", 400, "bare LF", b"X: a\nY: b"),
    whole("bare CR", 400, "bare CR", b"X: a\rY: b"),
    whole("NUL in value", 400, "NUL", b"X: a\0b"),
    whole("NUL in name", 400, "NUL", b"X\0: a"),
    whole("NUL in line", 400, "NUL", line=b"GET /\0 HTTP/1.1"),
    whole("DEL in value", 400, "0x7f", b"X: a\x7fb"),
    whole("ESC in value", 400, "0x1b", b"X: \x1b[31m"),
    whole("space before colon", 400, "white space before", b"X : a"),
    whole("tab before colon", 400, "control|white space", b"X\t: a"),
    whole("no colon", 400, "colon", b"X"),
    whole("no name", 400, "token", b": a"),
    whole("name of two", 400, "token", b"X Y: a"),
    whole("umlaut in name", 400, "token", b"\xfc: a"),
    # The request line
    whole("no version", 400, "InvalidMessage", line=b"GET /chat"),
    whole("two spaces", 400, "InvalidMessage", line=b"GET  /chat HTTP/1.1"),
    whole("space in path", 400, "InvalidMessage", line=b"GET /a b HTTP/1.1"),
    whole("space behind", 400, "InvalidMessage", line=b"GET / HTTP/1.1 "),
    whole("space before", 400, "InvalidMessage", line=b" GET / HTTP/1.1"),
    whole("path of bytes", 400, "0xc3", line=b"GET /\xc3\xbc HTTP/1.1"),
    whole("star", 400, "request target", line=b"GET * HTTP/1.1"),
    whole("authority", 400, "request target", line=b"GET localhost:80 HTTP/1.1"),
    whole("fragment", 400, "fragment", line=b"GET /#top HTTP/1.1"),
    whole("http/1.1", 400, "InvalidMessage", line=b"GET / http/1.1"),
    whole("HTTP/11", 400, "InvalidMessage", line=b"GET / HTTP/11"),
    Case("empty lines first", b"\r\n\r\n" + raw_http.request(), 400, "InvalidMessage"),
    # What isn't HTTP
    Case("TLS", CLIENT_HELLO, 400, r"TLS; this port speaks ws://, not wss://"),
    Case("garbage", b"\x00\xff\x00\xff", 400, "NUL"),
    Case("ssh", b"SSH-2.0-OpenSSH_9.6\r\n", 400, "InvalidMessage"),
    Case("http/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "HTTP/2.0"),
    Case("frame", b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", 400, "0x81"),
    # Methods and versions
    *(
        whole(
            method.decode(),
            405,
            f"InvalidMethod: .*{method.decode()}",
            line=method + b" /chat HTTP/1.1",
            headers=ALLOW,
        )
        for method in (b"POST", b"OPTIONS", b"get")
    ),
    Case(
        "POST with body",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello",
        405,
        "InvalidMethod",
        ALLOW,
    ),
    whole("CONNECT", 405, "CONNECT", line=b"CONNECT localhost:80 HTTP/1.1"),
    whole("HTTP/1.0", 505, "InvalidProtocol", line=b"GET / HTTP/1.0"),
    whole("HTTP/1.2", 505, "InvalidProtocol", line=b"GET / HTTP/1.2"),
    whole("HTTP/0.9", 505, "InvalidProtocol", line=b"GET / HTTP/0.9"),
    # Upgrade
    *(
        whole(name, 426, "InvalidUpgrade", *extra, headers=UPGRADE_426, without=without)
        for name, without, extra in (
            ("no upgrade", b"Upgrade", []),
            ("other upgrade", b"Upgrade", [b"Upgrade: h2c"]),
            ("empty upgrade", b"Upgrade", [b"Upgrade: "]),
            ("upgrade no list", b"Upgrade", [b"Upgrade: websocket; x"]),
            ("no connection", b"Connection", []),
            ("keep-alive", b"Connection", [b"Connection: keep-alive"]),
        )
    ),
    # Version and key
    *(
        whole(
            f"version {name}",
            426,
            "Sec-WebSocket-Version",
            *extra,
            headers=VERSION_426,
            without=b"Sec-WebSocket-Version",
        )
        for name, extra in (
            ("missing", []),
            ("8", [b"Sec-WebSocket-Version: 8"]),
            ("14", [b"Sec-WebSocket-Version: 14"]),
            ("013", [b"Sec-WebSocket-Version: 013"]),
            ("list", [b"Sec-WebSocket-Version: 8, 13"]),
            ("twice", [b"Sec-WebSocket-Version: 13"] * 2),
        )
    ),
    *(
        whole(
            f"key {name}",
            400,
            "Sec-WebSocket-Key",
            *extra,
            without=b"Sec-WebSocket-Key",
        )
        for name, extra in (
            ("missing", []),
            ("empty", [b"Sec-WebSocket-Key: "]),
            ("double", [KEY, KEY]),
            ("short", [b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAA"]),
            ("long", [b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAAAA"]),
            ("unpadded", [b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA"]),
            ("no base64", [b"Sec-WebSocket-Key: ???????????????????????=="]),
        )
    ),
    # Lists
    whole("protocols", 400, "Sec-WebSocket-Protocol", b"Sec-WebSocket-Protocol: a b"),
    whole("extensions", 400, "Extensions", b"Sec-WebSocket-Extensions: a; =b"),
    # Limits. Within them stands test_the_limits_themselves_are_within.
    whole(
        "line",
        414,
        "RequestLineTooLong",
        line=b"GET /".ljust(8184, b"x") + b" HTTP/1.1",
    ),
    Case("endless method", b"G" * 9000, 414, "RequestLineTooLong"),
    Case("endless line", b"GET /".ljust(9000, b"x"), 414, "RequestLineTooLong"),
    whole("header", 431, "HeaderLineTooLong", b"X: ".ljust(8193, b"x")),
    whole("endless name", 431, "HeaderLineTooLong", b"X" * 8193),
    whole("headers", 431, "TooManyHeaders: .*100", *[b"X: y"] * 96),
    whole("headers in all", 431, "TooManyHeaders: .*32768", *in_all(32768 + 3)),
]

by_name = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])


async def never(ws: trio_ws.ServerConnection) -> None:
    raise AssertionError("a malformed handshake was accepted")


@asynccontextmanager
async def serving(
    *, open_timeout: float = 600, **options: Any
) -> AsyncIterator[trio_ws.Server]:
    async with trio_ws.open_server(
        never, 0, host="127.0.0.1", open_timeout=open_timeout, **options
    ) as server:
        yield server
        # Without a timeout it cuts nothing short: all has to end by itself, and that
        # isn't its open_timeout.
        with trio.fail_after(60):
            await server.aclose(timeout=None)


async def connected(server: trio_ws.Server) -> trio.SocketStream:
    return await trio.open_tcp_stream("127.0.0.1", server.port)


async def send_pieces(stream: trio.abc.SendStream, pieces: Iterable[bytes]) -> None:
    """Send each piece in a segment of its own, read before the next is sent."""
    for piece in pieces:
        await stream.send_all(piece)
        await trio.testing.wait_all_tasks_blocked()


def check_log(caplog: pytest.LogCaptureFixture, case: Case) -> None:
    """Check that it is one line of INFO that a terminal can show."""
    (record,) = [
        record
        for record in logs.told(caplog)
        if record.name.startswith("trio_ws.server") and "listening" not in record.msg
    ]
    assert record.levelno == logging.INFO
    assert record.exc_info is None
    message = logs.plain(record)
    assert message.isprintable()
    assert len(message) < 500
    assert re.search(f"opening handshake failed: .*(?:{case.log})", message)


def check_answer(answer: raw_http.Answer, case: Case) -> None:
    assert answer.status == case.status
    for name, value in {"Connection": "close", **case.headers}.items():
        assert answer.header(name) == value
    assert answer.header("Content-Type") == "text/plain; charset=utf-8"
    assert answer.header("Content-Length") == str(len(answer.rest))
    assert answer.rest.startswith(b"Failed to open a WebSocket connection: ")
    assert answer.rest.decode("ascii").replace("\n", "").isprintable()


@by_name
async def test_whole(case: Case, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with serving() as server:
        async with await connected(server) as stream:
            await stream.send_all(case.data)
            check_answer(await raw_http.read_answer(stream), case)
    check_log(caplog, case)


@by_name
async def test_in_small_pieces(case: Case, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    step = 1 if len(case.data) < 1000 else 97
    pieces = [case.data[i : i + step] for i in range(0, len(case.data), step)]
    async with serving() as server:
        async with await connected(server) as stream:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send_pieces, stream, pieces)
                # Often comes long before the last piece.
                answer = await raw_http.read_answer(stream)
                nursery.cancel_scope.cancel()
            check_answer(answer, case)
    check_log(caplog, case)


@by_name
async def test_with_more_behind(
    case: Case,
    caplog: pytest.LogCaptureFixture,
    mock_clock: trio.testing.MockClock,
) -> None:
    """What a client sends on destroys no answer, and is no second request."""
    caplog.set_level(logging.INFO)
    async with serving(
        process_request=lambda ws, request: (
            ws.respond(200, "smuggled") if request.path == "/smuggled" else None
        )
    ) as server:
        async with await connected(server) as stream:
            behind = raw_http.request(line=b"GET /smuggled HTTP/1.1")
            await stream.send_all(case.data + behind)
            await stream.send_all(behind * 8000)
            await stream.send_eof()
            check_answer(await raw_http.read_answer(stream), case)
    check_log(caplog, case)


@pytest.mark.parametrize("status", [400, 414, 426, 505])
async def test_the_answer_arrives_every_time(
    status: int, mock_clock: trio.testing.MockClock
) -> None:
    case = next(case for case in CASES if case.status == status)
    behind = bytes(300_000)
    async with serving() as server:
        for _ in range(50):
            async with await connected(server) as stream:
                await stream.send_all(case.data)
                await stream.send_all(behind)
                check_answer(await raw_http.read_answer(stream), case)


async def test_over_tls(
    caplog: pytest.LogCaptureFixture, mock_clock: trio.testing.MockClock
) -> None:
    caplog.set_level(logging.INFO)
    server_context, client_context = tls_contexts()
    case = CASES[0]
    async with serving(ssl=server_context) as server:
        async with trio.SSLStream(
            await connected(server), client_context, server_hostname="localhost"
        ) as stream:
            await stream.send_all(case.data + bytes(300_000))
            check_answer(await raw_http.read_answer(stream), case)
    check_log(caplog, case)


@pytest.mark.parametrize(
    "data", [raw_http.request(), b"\0" * 100, CLIENT_HELLO[:60]], ids=len
)
async def test_no_tls_where_tls_is_spoken(
    data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server_context, _ = tls_contexts()
    async with serving(ssl=server_context) as server:
        async with await connected(server) as stream:
            await stream.send_all(data)
            await stream.send_eof()
            received = bytearray()
            if b"HTTP" in data:
                answer = await raw_http.read_answer(stream)
                assert answer.status == 400
                assert b"expected TLS (wss://, not ws://)" in answer.rest
            else:
                with suppress(trio.BrokenResourceError):
                    received += await raw_http.read_to_end(stream)
                assert b"HTTP" not in received
    (record,) = [one for one in logs.told(caplog) if "failed" in one.msg]
    assert record.levelno == logging.INFO
    assert "SSL" in logs.plain(record)
    assert (
        "got HTTP; this port speaks wss://, not ws" in record.msg % record.args
    ) == (b"HTTP" in data)
    assert logs.plain(record).isprintable()


def tls_contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


@pytest.mark.parametrize("sent", [b"", b"G", raw_http.request()[:-2]], ids=len)
async def test_a_client_that_leaves(
    sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with serving() as server:
        async with await connected(server) as stream:
            if sent:
                await stream.send_all(sent)
            await stream.send_eof()
            assert await raw_http.read_to_end(stream) == b""
    (record,) = [one for one in logs.told(caplog) if "failed" in one.msg]
    assert record.levelno == logging.INFO
    assert re.search(
        rf"connection closed .*\b{len(sent) or 'any'} byte", logs.plain(record)
    )


@pytest.mark.parametrize("sent", [b"", raw_http.request()[:50], CASES[0].data])
async def test_a_client_that_resets(
    sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with serving() as server:
        stream = await connected(server)
        if sent:
            await stream.send_all(sent)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
    (record,) = [one for one in logs.told(caplog) if "failed" in one.msg]
    assert record.levelno == logging.INFO
    if sent == CASES[0].data:
        # Why it was refused says more than that the answer didn't arrive.
        assert "InvalidMessage" in logs.plain(record)


async def test_the_limits_themselves_are_within() -> None:
    """One byte, or header, less than what the table refuses."""

    async def handler(ws: trio_ws.ServerConnection) -> None:
        await ws.wait_closed()

    async with trio_ws.open_server(handler, 0, host="127.0.0.1") as server:
        for data in (
            raw_http.request(line=b"GET /".ljust(8183, b"x") + b" HTTP/1.1"),
            raw_http.request(b"X: ".ljust(8192, b"x")),
            raw_http.request(*[b"X: y"] * 95),
            raw_http.request(*in_all(32768)),
            raw_http.request(b"Content-Length: 0"),
        ):
            async with await connected(server) as stream:
                await stream.send_all(data)
                assert (await raw_http.read_switch(stream)).status == 101


# What takes too long


async def trickle(
    stream: trio.abc.SendStream, data: Iterable[int], seconds: float
) -> None:
    for byte in data:
        await stream.send_all(bytes([byte]))
        await trio.sleep(seconds)


async def test_one_byte_at_a_time_ends_at_open_timeout(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    listener = MemoryListener()
    cut = []

    async def read(stream: trio.abc.Stream) -> None:
        assert (await raw_http.read_answer(stream)).status == 408
        cut.append(trio.current_time())

    async with trio_ws.open_server(never, listeners=[listener]):
        stream = listener.connect()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, stream)
            with pytest.raises(trio.BrokenResourceError):
                await trickle(stream, raw_http.request(), 1)
    assert cut == [10]
    (record,) = logs.told(caplog)
    assert logs.plain(record) == (
        "opening handshake failed: OpenTimeoutError: "
        "connection not open after 10 s (open_timeout): request"
    )


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.realtime(seconds=0.2)
async def test_one_byte_at_a_time_over_a_socket(
    secure: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    data = CLIENT_HELLO if secure else raw_http.request()
    context = tls_contexts()[0] if secure else None

    async def be_client(stream: trio.SocketStream) -> None:
        with pytest.raises(trio.BrokenResourceError):
            await trickle(stream, data, 0.01)

    async with serving(open_timeout=0.2, ssl=context) as server:
        async with await connected(server) as stream:
            start = trio.current_time()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(be_client, stream)
                try:
                    answer = await raw_http.read_to_end(stream)
                    assert answer[:12] == (b"" if secure else b"HTTP/1.1 408")
                except trio.BrokenResourceError:
                    pass
            assert trio.current_time() - start >= 0.2
    (record,) = [one for one in logs.told(caplog) if "failed" in one.msg]
    assert "OpenTimeoutError: connection not open after 0.2 s (open_timeout): " + (
        "TLS handshake" if secure else "request"
    ) in logs.plain(record)


@pytest.mark.realtime(seconds=1)
async def test_who_sends_for_ever_behind_a_bad_request_is_cut_off() -> None:
    async with serving() as server:
        async with await connected(server) as stream:
            await stream.send_all(CASES[0].data)
            start = trio.current_time()
            check_answer(await raw_http.read_answer(stream), CASES[0])
            with pytest.raises(trio.BrokenResourceError), trio.fail_after(60):
                await trickle(stream, itertools.repeat(0), 0.01)
            # It had the time to read the answer.
            assert trio.current_time() - start > 0.9
