"""trio_ws._protocol._handshake*: both sides, alone, together and with websockets."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
import websockets.client
import websockets.server
import websockets.uri
from hypothesis import given
from hypothesis import strategies as st
from websockets.http11 import Request as PeerRequest
from websockets.http11 import Response as PeerResponse

from trio_ws._protocol.errors import (
    InvalidHandshake,
    InvalidHeader,
    InvalidHeaderFormat,
    InvalidHeaderValue,
    InvalidMessage,
    InvalidOrigin,
    InvalidProtocol,
    InvalidStatus,
    InvalidUpgrade,
    NegotiationError,
    SecurityError,
)
from trio_ws._protocol.handshake.client import ClientHandshake, generate_key
from trio_ws._protocol.handshake.common import accept_key
from trio_ws._protocol.handshake.response_parser import ResponseParser
from trio_ws._protocol.handshake.server import ServerHandshake
from trio_ws._protocol.http.headers import Headers
from trio_ws._protocol.http.messages import Request, Response
from trio_ws._protocol.uri import WebSocketURI, parse_uri

# The example of RFC 6455, section 1.3
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

URI = parse_uri("ws://example.com/chat?room=1")


@pytest.fixture
def _fixed_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.urandom", lambda size: b"the sample nonce"[:size])


def test_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    assert accept_key(KEY) == ACCEPT
    assert re.fullmatch(r"[A-Za-z0-9+/]{22}==", generate_key())
    assert generate_key() != generate_key()
    monkeypatch.setattr("os.urandom", lambda size: b"the sample nonce"[:size])
    assert generate_key() == KEY


# The server's side


def request_bytes(
    *changes: str,
    line: str = "GET /chat?room=1 HTTP/1.1",
    without: str = "",
) -> bytes:
    """Make a valid request, less a header, plus some."""
    headers = [
        "Host: example.com",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {KEY}",
        "Sec-WebSocket-Version: 13",
    ]
    kept = [header for header in headers if header.partition(":")[0] != without]
    text = "".join(f"{each}\r\n" for each in [line, *kept, *changes, ""])
    return text.encode("iso-8859-1")


def serve(
    server: ServerHandshake, pieces: list[bytes]
) -> tuple[Response, InvalidHandshake | None]:
    """Answer a request in pieces as a server would."""
    request = None
    try:
        for piece in pieces:
            request = server.receive(piece)
            if request is not None:
                return server.accept(request), None
    except InvalidHandshake as exc:
        return server.rejection(exc), exc
    return Response(0, "more needed", Headers()), None


def by_byte(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def answer_to(data: bytes, **options: Any) -> tuple[Response, InvalidHandshake | None]:
    whole, exc = serve(ServerHandshake(**options), [data])
    in_bytes, other_exc = serve(ServerHandshake(**options), by_byte(data))
    assert in_bytes == whole
    assert (type(other_exc), str(other_exc)) == (type(exc), str(exc))
    return whole, exc


@pytest.mark.parametrize("leftover", [b"", b"\x81\x80\0\0\0\0"])
def test_accept(leftover: bytes) -> None:
    server = ServerHandshake()
    request = server.receive(request_bytes() + leftover)
    assert request is not None
    assert request.path == "/chat?room=1"
    assert server.leftover == leftover
    response = server.accept(request)
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
        ("", ["Content-Length: 0", "Content-Length: 0"]),
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
    assert list(response.headers.raw_items())[3:] == [
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
    assert ResponseParser().receive(response.serialize()) == response


@pytest.mark.parametrize(
    ("offered", "text"),
    [
        ([], "missing subprotocol"),
        (["Sec-WebSocket-Protocol: x"], "invalid subprotocol; expected one of a, b"),
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


# The client's side


@pytest.mark.usefixtures("_fixed_key")
def test_request() -> None:
    client = ClientHandshake(URI)
    assert client.request_bytes == (
        b"GET /chat?room=1 HTTP/1.1\r\n"
        b"Host: example.com\r\n"
        b"Upgrade: websocket\r\n"
        b"Connection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"Sec-WebSocket-Version: 13\r\n"
        b"\r\n"
    )
    assert client.request.serialize() == client.request_bytes


def test_request_with_all_that_may_be_told() -> None:
    client = ClientHandshake(
        parse_uri("wss://Aladdin:open%20sesame@[::1]:8765"),
        subprotocols=["a", "b"],
        additional_headers=[("X", "1"), ("X", "2")],
        user_agent_header="Test/1",
        origin="https://example.com",
    )
    headers = client.request.headers
    assert client.request.path == "/"
    assert headers["Host"] == "[::1]:8765"
    assert headers["Authorization"] == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
    assert headers["Origin"] == "https://example.com"
    assert headers["Sec-WebSocket-Protocol"] == "a, b"
    assert headers.get_all("X") == ["1", "2"]
    assert headers["User-Agent"] == "Test/1"


def test_user_agent_of_the_user_goes_first() -> None:
    client = ClientHandshake(
        URI, additional_headers={"user-agent": "mine"}, user_agent_header="Test/1"
    )
    assert client.request.headers.get_all("User-Agent") == ["mine"]


def response_bytes(
    *changes: str, line: str = "HTTP/1.1 101 Switching Protocols", without: str = ""
) -> bytes:
    headers = [
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {ACCEPT}",
    ]
    kept = [header for header in headers if header.partition(":")[0] != without]
    text = "".join(f"{each}\r\n" for each in [line, *kept, *changes, ""])
    return text.encode("iso-8859-1")


def receive_all(
    pieces: list[bytes], **options: Any
) -> tuple[Response | InvalidHandshake | None, str | None, bytes]:
    """Take a response in pieces as a client would; what came, and how it ended."""
    client = ClientHandshake(URI, **options)
    for index, piece in enumerate(pieces):
        try:
            response = client.receive(piece)
        except InvalidHandshake as exc:
            return exc, client.subprotocol, b""
        if response is not None:
            leftover = client.leftover + b"".join(pieces[index + 1 :])
            return response, client.subprotocol, leftover
    return None, None, client.leftover


@pytest.mark.usefixtures("_fixed_key")
@pytest.mark.parametrize("leftover", [b"", b"\x81\x00\x88\x00"])
@pytest.mark.parametrize(
    ("without", "changes"),
    [
        ("", []),
        ("", ["Content-Length: 5", "Transfer-Encoding: chunked"]),
        ("Connection", ["Connection: Keep-Alive,upgrade"]),
        ("Upgrade", ["upgrade: WebSocket"]),
    ],
)
def test_response(without: str, changes: list[str], leftover: bytes) -> None:
    data = response_bytes(*changes, without=without) + leftover
    for pieces in ([data], by_byte(data)):
        response, subprotocol, left = receive_all(pieces)
        assert isinstance(response, Response)
        assert (response.status_code, response.body) == (101, b"")
        assert (subprotocol, left) == (None, leftover)


@pytest.mark.usefixtures("_fixed_key")
def test_interim_responses_are_skipped() -> None:
    interim = (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n"
    )
    data = interim * 4 + response_bytes() + b"x"
    for pieces in ([data], by_byte(data)):
        response, _, leftover = receive_all(pieces)
        assert isinstance(response, Response)
        assert (response.status_code, leftover) == (101, b"x")
        error, _, _ = receive_all([interim, *pieces])
        assert isinstance(error, SecurityError)
        assert "at most 8 interim responses" in str(error)


@pytest.mark.usefixtures("_fixed_key")
def test_subprotocol_of_the_server() -> None:
    data = response_bytes("Sec-WebSocket-Protocol: b")
    assert receive_all([data], subprotocols=["a", "b"])[1] == "b"
    assert receive_all([response_bytes()], subprotocols=["a", "b"])[1] is None


@pytest.mark.usefixtures("_fixed_key")
@pytest.mark.parametrize(
    ("data", "options", "kind", "text"),
    [
        (b"\x15\x03\x01\x00\x02\x02", {}, InvalidMessage, "control character 0x15"),
        (b"SSH-2.0-x\r\n", {}, InvalidMessage, "expected a status line"),
        (response_bytes(line="HTTP/1.0 101 x"), {}, InvalidProtocol, "got HTTP/1.0"),
        (response_bytes("A: " + "b" * 8192), {}, SecurityError, "at most 8192"),
        (
            response_bytes(without="Upgrade"),
            {},
            InvalidUpgrade,
            "missing Upgrade header",
        ),
        (
            response_bytes("Upgrade: h2c"),
            *({}, InvalidUpgrade, "invalid Upgrade header: websocket, h2c"),
        ),
        (
            response_bytes("Connection: close", without="Connection"),
            *({}, InvalidUpgrade, "invalid Connection header: close"),
        ),
        (
            response_bytes(without="Sec-WebSocket-Accept"),
            *({}, InvalidHeader, "missing Sec-WebSocket-Accept header"),
        ),
        (
            response_bytes(f"Sec-WebSocket-Accept: {ACCEPT}"),
            *(
                {},
                InvalidHeader,
                "invalid Sec-WebSocket-Accept header: multiple values",
            ),
        ),
        (
            response_bytes(
                "Sec-WebSocket-Accept: \x9b\xe9", without="Sec-WebSocket-Accept"
            ),
            *({}, InvalidHeaderValue, r"invalid Sec-WebSocket-Accept header: \x9bé"),
        ),
        (
            response_bytes("Sec-WebSocket-Extensions: permessage-deflate"),
            *({}, NegotiationError, "not offered"),
        ),
        (
            response_bytes("Sec-WebSocket-Protocol: a"),
            *({}, NegotiationError, "no subprotocols supported"),
        ),
        (
            response_bytes("Sec-WebSocket-Protocol: c"),
            {"subprotocols": ["a", "b"]},
            *(NegotiationError, "unsupported subprotocol: c"),
        ),
        (
            response_bytes("Sec-WebSocket-Protocol: a", "Sec-WebSocket-Protocol: b"),
            {"subprotocols": ["a", "b"]},
            *(InvalidHeader, "multiple values: a, b"),
        ),
        (
            response_bytes("Sec-WebSocket-Protocol:"),
            {"subprotocols": ["a", "b"]},
            *(InvalidHeaderFormat, "expected token at 0"),
        ),
    ],
)
def test_wrong_response(
    data: bytes, options: dict[str, Any], kind: Any, text: str
) -> None:
    for pieces in ([data], by_byte(data)):
        error, subprotocol, _ = receive_all(pieces, **options)
        assert type(error) is kind or kind is SecurityError
        assert isinstance(error, kind)
        assert text in str(error)
        assert str(error).isprintable()
        assert subprotocol is None


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nnope",
        b"HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"4\r\nnope\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 403 x\r\nContent-Length: 4\r\n\r\nnope",
    ],
)
def test_refusal_comes_with_its_whole_body(raw: bytes) -> None:
    for pieces in ([raw], by_byte(raw)):
        error, _, _ = receive_all(pieces)
        assert isinstance(error, InvalidStatus)
        assert (error.response.status_code, error.response.body) == (403, b"nope")
        assert str(error) == "server rejected WebSocket connection: HTTP 403"


def test_refusal_until_eof() -> None:
    client = ClientHandshake(URI)
    assert client.receive(b"HTTP/1.1 503 Busy\r\n\r\nlat") is None
    assert client.receive(b"er") is None
    with pytest.raises(InvalidStatus) as caught:
        client.receive_eof()
    assert caught.value.response.body == b"later"


def test_eof_in_the_body_of_a_refusal() -> None:
    client = ClientHandshake(URI)
    refused = [client.is_refused]
    for data in (
        b"HTTP/1.1 100 x\r\n\r\nHTTP/1.1 401 x\r\nContent-Length: 9\r\n\r",
        b"\nwho",
    ):
        assert client.receive(data) is None
        refused.append(client.is_refused)
    assert refused == [False, False, True]
    with pytest.raises(InvalidStatus) as caught:
        client.receive_eof()
    assert caught.value.response.body == b"who"


def test_eof_in_the_response() -> None:
    for data, text in (
        (b"", "connection closed before any byte of the HTTP response came"),
        (response_bytes()[:-1], "connection closed after 128 bytes"),
    ):
        client = ClientHandshake(URI)
        client.receive(data)
        with pytest.raises(InvalidMessage, match=text) as caught:
            client.receive_eof()
        assert isinstance(caught.value.__cause__, EOFError)


# Nothing is built of what would break out of its place


BREAKS = ["\r", "\n", "\0", "\r\nX: y", "\x7f", "\u0100"]


@pytest.mark.parametrize("bad", BREAKS)
@pytest.mark.parametrize("template", ["{}", "a{}", "{}b"])
def test_injection(template: str, bad: str) -> None:
    value = template.format(bad)
    client_options: list[dict[str, Any]] = [
        {"subprotocols": [value]},
        {"user_agent_header": value},
        {"origin": value},
        {"additional_headers": {value: "x"}},
        {"additional_headers": {"X": value}},
        {"additional_headers": [("A", "b"), ("X", value)]},
    ]
    for options in client_options:
        with pytest.raises(ValueError, match="expected "):
            ClientHandshake(URI, **options)
    server_options: list[dict[str, Any]] = [
        {"subprotocols": [value]},
        {"server_header": value},
        {"additional_headers": {value: "x"}},
        {"additional_headers": {"X": value}},
    ]
    for options in server_options:
        with pytest.raises(ValueError, match="expected "):
            ServerHandshake(**options)
    for uri in (
        WebSocketURI(False, value, 80, "/", ""),
        WebSocketURI(False, "h", 80, f"/{value}", ""),
        WebSocketURI(False, "h", 80, "/", value),
    ):
        with pytest.raises(ValueError, match="expected "):
            ClientHandshake(uri)


OWN = [
    *["Upgrade", "connection", "SEC-WEBSOCKET-KEY", "Sec-WebSocket-Extensions"],
    *["Sec-WebSocket-Anything", "Content-Length", "transfer-encoding"],
]


@pytest.mark.parametrize("name", OWN)
def test_headers_that_may_not_be_added(name: str) -> None:
    error = f"expected no header that the handshake makes itself; got {name.lower()}"
    with pytest.raises(ValueError, match=error):
        ServerHandshake(additional_headers={name: "x"})
    with pytest.raises(ValueError, match=error):
        ClientHandshake(URI, additional_headers={name: "x"})


def test_headers_that_a_client_may_not_add() -> None:
    with pytest.raises(ValueError, match="got host"):
        ClientHandshake(URI, additional_headers={"Host": "x"})
    with pytest.raises(ValueError, match="got origin"):
        ClientHandshake(URI, additional_headers={"Origin": "x"}, origin="y")
    with pytest.raises(ValueError, match="got authorization"):
        ClientHandshake(
            parse_uri("ws://u:p@h"), additional_headers={"Authorization": "x"}
        )
    added = {"Origin": "x", "Authorization": "y"}
    assert (
        ClientHandshake(URI, additional_headers=added).request.headers["Origin"] == "x"
    )


# Properties

PIECES = [
    *[
        request_bytes(),
        response_bytes(),
        b"GET / HTTP/1.1\r\n",
        b"Host: a\r\n",
        b"\r\n",
    ],
    *[request_bytes()[:-2], response_bytes()[:-2], b"HTTP/1.1 103 x\r\n\r\n"],
    *[b"HTTP/1.1 200 OK\r\n", b"Content-Length: 3\r\n", b"Upgrade: websocket\r\n"],
    *[b"Sec-WebSocket-Protocol: a, b\r\n", b"Sec-WebSocket-Extensions: a;b=\r\n"],
    *[b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n", b"0\r\n\r\n", b"\n", b"\0"],
]
STREAMS = st.lists(st.sampled_from(PIECES) | st.binary(max_size=3)).map(b"".join)
CUTS = st.lists(st.integers(0, 1000))


def cut(data: bytes, positions: list[int]) -> list[bytes]:
    bounds = [0, *sorted(pos % (len(data) + 1) for pos in positions), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(bounds)]


@given(data=STREAMS, positions=CUTS)
def test_a_server_answers_any_bytes_however_split(
    data: bytes, positions: list[int]
) -> None:
    response, _ = answer_to(data, subprotocols=["a"])
    pieces = cut(data, positions)
    assert serve(ServerHandshake(subprotocols=["a"]), pieces)[0] == response


@given(data=STREAMS, positions=CUTS)
def test_a_client_takes_any_bytes_however_split(
    data: bytes, positions: list[int]
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("os.urandom", lambda size: b"the sample nonce"[:size])
        outcomes = [
            receive_all(pieces, subprotocols=["a"])
            for pieces in ([data], by_byte(data), cut(data, positions))
        ]
    assert len({(type(result), str(result), *rest) for result, *rest in outcomes}) == 1


# Against each other and against websockets

TOKENS = st.lists(st.text("abc-", min_size=1, max_size=3), unique=True, max_size=4)
ADDED = st.lists(
    st.tuples(
        st.text("xyz", min_size=1, max_size=3), st.text("a \t\xe9").map(str.strip)
    ),
    max_size=3,
)


@given(offered=TOKENS, available=TOKENS, added=ADDED, leftover=st.binary(max_size=5))
def test_both_sides_agree(
    offered: list[str],
    available: list[str],
    added: list[tuple[str, str]],
    leftover: bytes,
) -> None:
    client = ClientHandshake(URI, subprotocols=offered, additional_headers=added)
    server = ServerHandshake(subprotocols=available, additional_headers=added)
    answer, exc = serve(server, [client.request_bytes + leftover])
    assert server.leftover == leftover
    if exc is not None:
        assert not set(offered) & set(available)
        with pytest.raises(InvalidStatus):
            client.receive(answer.serialize())
        return
    response = client.receive(answer.serialize() + leftover)
    assert response == answer
    assert client.leftover == leftover
    assert client.subprotocol == server.subprotocol


def peer_server(subprotocols: list[str], data: bytes) -> PeerResponse:
    peer = websockets.server.ServerProtocol(subprotocols=subprotocols)  # type: ignore[arg-type]
    peer.receive_data(data)
    (request,) = peer.events_received()
    assert isinstance(request, PeerRequest)
    return peer.accept(request)


@given(offered=TOKENS, available=TOKENS)
def test_our_client_and_a_websockets_server(
    offered: list[str], available: list[str]
) -> None:
    client = ClientHandshake(URI, subprotocols=offered)
    theirs = peer_server(available, client.request_bytes)
    ours, _ = serve(ServerHandshake(subprotocols=available), [client.request_bytes])
    assert ours.status_code == theirs.status_code
    name = "Sec-WebSocket-Protocol"
    assert ours.headers.get(name) == theirs.headers.get(name)
    if theirs.status_code == 101:
        assert client.receive(theirs.serialize()) is not None
        assert client.subprotocol == ours.headers.get(name)


def test_a_websockets_client_and_our_server() -> None:
    uri = websockets.uri.parse_uri("wss://u:p@example.com:8765/chat")
    peer = websockets.client.ClientProtocol(uri, subprotocols=["a", "b"])  # type: ignore[list-item]
    peer.send_request(peer.connect())
    (data,) = peer.data_to_send()
    server = ServerHandshake(subprotocols=["b"])
    request = server.receive(data)
    assert isinstance(request, Request)
    ours = ClientHandshake(
        parse_uri("wss://u:p@example.com:8765/chat"), subprotocols=["a", "b"]
    )
    for name, value in ours.request.headers.raw_items():
        if name != "Sec-WebSocket-Key":
            assert request.headers.get_all(name) == [value]
    peer.receive_data(server.accept(request).serialize())
    assert peer.handshake_exc is None
    assert peer.subprotocol == "b"
