"""The server's side of the opening handshake."""

from __future__ import annotations

from typing import Any

import pytest

from tests.protocol.handshake.handshakes import KEY, answer_to, request_bytes, serve
from trio_ws._protocol.errors import (
    InvalidHandshake,
    InvalidMessage,
    InvalidOrigin,
    InvalidUpgrade,
    NegotiationError,
)
from trio_ws._protocol.handshake.response_parser import ResponseParser
from trio_ws._protocol.handshake.server import ServerHandshake
from trio_ws._protocol.http.headers import Headers
from trio_ws._protocol.http.messages import Response


@pytest.mark.parametrize("leftover", [b"", b"\x81\x80\0\0\0\0"])
def test_accept(leftover: bytes) -> None:
    server = ServerHandshake()
    request = server.receive(request_bytes() + leftover)
    assert request is not None
    assert request.path == "/chat?room=1"
    assert server.leftover == leftover
    response = server.accept(request)
    del response.headers["Date"]
    assert response.serialize() == (
        b"HTTP/1.1 101 Switching Protocols\r\n"
        b"Upgrade: websocket\r\n"
        b"Connection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
        b"\r\n"
    )
    assert server.subprotocol is None


def test_accept_byte_by_byte() -> None:
    assert answer_to(request_bytes())[0].status_code == 101


@pytest.mark.parametrize(
    ("without", "changes"),
    [
        ("Connection", ["Connection: keep-alive, UPGRADE"]),
        ("Connection", ["Connection: keep-alive", "Connection: upgrade"]),
        ("Upgrade", ["upgrade: WebSocket"]),
        ("Upgrade", ["Upgrade: h2c, websocket"]),
        ("Host", ["Host: [::1]:8765"]),
        ("Host", ["Host: a_b.test:"]),
        ("", ["Content-Length: 0"]),
        ("", ["Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"]),
        ("", ["Sec-WebSocket-Protocol: chat, chat"]),
    ],
)
def test_accepted_variants(without: str, changes: list[str]) -> None:
    response, _ = answer_to(request_bytes(*changes, without=without))
    assert response.status_code == 101
    assert "Sec-WebSocket-Extensions" not in response.headers
    assert "Sec-WebSocket-Protocol" not in response.headers


def test_headers_of_the_servers_user() -> None:
    additional = Headers([("X", "1"), ("x", "2")])
    response, _ = answer_to(
        request_bytes(), additional_headers=additional, server_header="Test/1"
    )
    assert list(response.headers.raw_items())[3:-1] == [
        *[("X", "1"), ("x", "2"), ("Server", "Test/1")]
    ]
    response, _ = answer_to(
        request_bytes(), additional_headers={"server": "mine"}, server_header="Test/1"
    )
    assert response.headers.get_all("Server") == ["mine"]


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("http://example.com", "/"),
        ("http://EXAMPLE.com?a", "/?a"),
        ("WS://example.com/b?a=/", "/b?a=/"),
    ],
)
def test_absolute_request_target(target: str, path: str) -> None:
    request = ServerHandshake().receive(request_bytes(line=f"GET {target} HTTP/1.1"))
    assert request is not None
    assert request.path == path


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["Sec-WebSocket-Protocol: chat"], "chat"),
        (["Sec-WebSocket-Protocol: chat, superchat"], "superchat"),
        (["Sec-WebSocket-Protocol: x", "sec-websocket-protocol: chat,y"], "chat"),
    ],
)
def test_subprotocol(offered: list[str], chosen: str) -> None:
    server = ServerHandshake(subprotocols=["superchat", "chat"])
    response, _ = serve(server, [request_bytes(*offered)])
    assert response.headers["Sec-WebSocket-Protocol"] == chosen
    assert server.subprotocol == chosen


VERSION_13 = {"Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
UPGRADE = {"Upgrade": "websocket"}


@pytest.mark.parametrize(
    ("data", "status_code", "extra", "text"),
    [
        # What isn't HTTP/1.1
        (b"\x16\x03\x01\x02\x00\x01", 400, {}, "the first byte of TLS"),
        (b"\0garbage", 400, {}, "got a NUL"),
        (b"hello\r\n", 400, {}, "expected a method"),
        (request_bytes(line="GET / HTTP/1.0"), 505, {}, "expected HTTP/1.1"),
        (request_bytes(line="POST / HTTP/1.0"), 505, {}, "expected HTTP/1.1"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, {}, "got HTTP/2.0"),
        (request_bytes(line="POST / HTTP/1.1"), 405, {"Allow": "GET"}, "got POST"),
        (
            request_bytes(line="OPTIONS * HTTP/1.1"),
            405,
            {"Allow": "GET"},
            "got OPTIONS",
        ),
        (request_bytes().replace(b"\r\n", b"\n"), 400, {}, "got a bare LF"),
        (request_bytes("A: \0"), 400, {}, "got a NUL"),
        (request_bytes("A: b", " c"), 400, {}, "an obsolete folded line"),
        (request_bytes("A : b"), 400, {}, "no white space before the colon"),
        (request_bytes("A"), 400, {}, "expected a colon"),
        # What is too long
        (request_bytes(line=f"GET /{'a' * 8192} HTTP/1.1"), 414, {}, "at most 8192"),
        (request_bytes("A: " + "b" * 8192), 431, {}, "at most 8192"),
        (request_bytes(*["A: " + "b" * 8000] * 5), 431, {}, "at most 32768"),
        (request_bytes(*["A: b"] * 96), 431, {}, "at most 100"),
        # Requests that HTTP refuses
        (request_bytes("Content-Length: 1"), 400, {}, "without a body"),
        (request_bytes("Content-Length: 00"), 400, {}, "without a body"),
        (
            request_bytes("Content-Length: 0", "Content-Length: 5"),
            *(400, {}, "without a body"),
        ),
        (
            request_bytes("Content-Length: 0", "Content-Length: 0"),
            *(400, {}, "without a body"),
        ),
        (request_bytes("Transfer-Encoding: chunked"), 400, {}, "without a body"),
        (request_bytes(without="Host"), 400, {}, "missing Host header"),
        (request_bytes("Host: b"), 400, {}, "invalid Host header: multiple values"),
        (request_bytes("Host:", without="Host"), 400, {}, "empty Host header"),
        (
            request_bytes("Host: a/b", without="Host"),
            400,
            {},
            "invalid Host header: a/b",
        ),
        (request_bytes(line="GET * HTTP/1.1"), 400, {}, "expected a path or an"),
        (request_bytes(line="GET ftp://a/ HTTP/1.1"), 400, {}, "expected a path or an"),
        (request_bytes(line="GET /#a HTTP/1.1"), 400, {}, "without a fragment"),
        (request_bytes(line="GET http://b/ HTTP/1.1"), 400, {}, "invalid Host header"),
        # Requests that RFC 6455 refuses
        (request_bytes(without="Upgrade"), 426, UPGRADE, "missing Upgrade header"),
        (
            request_bytes(without="Connection"),
            426,
            UPGRADE,
            "missing Connection header",
        ),
        (
            request_bytes("Upgrade: h2c", without="Upgrade"),
            *(426, UPGRADE, "invalid Upgrade header: h2c"),
        ),
        (
            request_bytes("Upgrade: ,", without="Upgrade"),
            *(426, UPGRADE, "invalid Upgrade header: ,"),
        ),
        (
            request_bytes("Connection: close", without="Connection"),
            *(426, UPGRADE, "invalid Connection header: close"),
        ),
        (
            request_bytes(without="Sec-WebSocket-Version"),
            *(426, VERSION_13, "missing Sec-WebSocket-Version header"),
        ),
        (
            request_bytes("Sec-WebSocket-Version: 8", without="Sec-WebSocket-Version"),
            *(426, VERSION_13, "invalid Sec-WebSocket-Version header: 8"),
        ),
        (
            request_bytes("Sec-WebSocket-Version: 13"),
            *(426, VERSION_13, "multiple values"),
        ),
        (
            request_bytes(without="Sec-WebSocket-Key"),
            *(400, {}, "missing Sec-WebSocket-Key header"),
        ),
        (request_bytes(f"Sec-WebSocket-Key: {KEY}"), 400, {}, "multiple values"),
        *[
            (
                request_bytes(f"Sec-WebSocket-Key: {key}", without="Sec-WebSocket-Key"),
                *(400, {}, f"Sec-WebSocket-Key header{shown}"),
            )
            for key, shown in [
                ("", ".\n"),
                ("AAAA", ": AAAA"),
                ("A" * 24, ": AAAA"),
                (KEY[:-1], ": dGhlIHNhbXBsZSBub25jZQ=."),
                (KEY.replace("G", "-"), ": d-"),
                (KEY.replace("=", "\xe9"), r": dGhlIHNhbXBsZSBub25jZQ\xe9\xe9."),
                ("A" * 43 + "=", ": AAAA"),
            ]
        ],
        (
            request_bytes("Sec-WebSocket-Extensions: a; ="),
            *(400, {}, "invalid Sec-WebSocket-Extensions header: expected token at 3"),
        ),
        (
            request_bytes("Sec-WebSocket-Protocol: a b"),
            *(400, {}, "invalid Sec-WebSocket-Protocol header: expected token at 0"),
        ),
        (request_bytes("Sec-WebSocket-Protocol:"), 400, {}, "expected token at 0"),
    ],
)
def test_rejection(
    data: bytes, status_code: int, extra: dict[str, str], text: str
) -> None:
    response, _ = answer_to(data)
    assert response.status_code == status_code
    check_rejection(response, extra)
    assert text in response.body.decode("ascii")


def check_rejection(response: Response, extra: dict[str, str]) -> None:
    parsed = ResponseParser().receive(response.serialize())
    assert parsed == response
    del response.headers["Date"]
    connection = "close, Upgrade" if "Upgrade" in extra else "close"
    assert response.headers == Headers(
        {
            "Connection": connection,
            "Content-Type": "text/plain; charset=utf-8",
            "Content-Length": str(len(response.body)),
        },
        extra,
    )
    text = response.body.decode("ascii")
    assert text.startswith("Failed to open a WebSocket connection: ")
    assert text.replace("\n", "").isprintable()
    assert len(text) < 1000


@pytest.mark.parametrize(
    ("offered", "text"),
    [
        ([], "missing subprotocol"),
        (
            ["Sec-WebSocket-Protocol: x"],
            "subprotocol; expected one of a, b; got x",
        ),
    ],
)
def test_no_subprotocol_in_common(offered: list[str], text: str) -> None:
    response, exc = answer_to(request_bytes(*offered), subprotocols=["a", "b"])
    assert isinstance(exc, NegotiationError)
    assert response.status_code == 400
    assert text in response.body.decode()


def test_every_error_has_a_rejection() -> None:
    kinds = [InvalidHandshake]
    for kind in kinds:
        kinds += kind.__subclasses__()
    arguments: dict[str, tuple[Any, ...]] = {
        "InvalidStatus": (Response(403, "", Headers()),),
        "InvalidProxyStatus": (Response(407, "", Headers()),),
        "InvalidHeader": ("A", "\x1b\u20ac" * 1000),
        "InvalidHeaderFormat": ("A", "expected b", "\r\n" * 1000, 7),
    }
    for kind in kinds:
        exc = kind(*arguments.get(kind.__name__, ("<\x00>",)))
        extra = UPGRADE if kind is InvalidUpgrade else {}
        response = ServerHandshake().rejection(exc)
        assert 400 <= response.status_code < 600
        if response.status_code == 405:
            extra = {"Allow": "GET"}
        check_rejection(response, extra)
    assert ServerHandshake().rejection(InvalidOrigin("http://a")).status_code == 403


def test_eof_in_the_request() -> None:
    server = ServerHandshake()
    server.receive(b"GET")
    with pytest.raises(
        InvalidMessage, match="closed after 3 bytes of the HTTP request"
    ):
        server.receive_eof()
