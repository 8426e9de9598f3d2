"""The client's side of the opening handshake."""

from __future__ import annotations

from typing import Any

import pytest

from tests.protocol.handshake.handshakes import (
    ACCEPT,
    URI,
    by_byte,
    receive_all,
    response_bytes,
)
from trio_ws._protocol.errors import (
    InvalidHeader,
    InvalidHeaderFormat,
    InvalidHeaderValue,
    InvalidMessage,
    InvalidProtocol,
    InvalidStatus,
    InvalidUpgrade,
    NegotiationError,
    SecurityError,
)
from trio_ws._protocol.handshake.client import ClientHandshake
from trio_ws._protocol.http.messages import Response
from trio_ws._protocol.uri import parse_uri


@pytest.fixture
def _fixed_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.urandom", lambda size: b"the sample nonce"[:size])


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
        (
            b"\x15\x03\x01\x00\x02\x02",
            {},
            InvalidMessage,
            "first byte of TLS; this",
        ),
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
            *({}, NegotiationError, "no subprotocols supported; got a"),
        ),
        (
            response_bytes("Sec-WebSocket-Protocol: c"),
            {"subprotocols": ["a", "b"]},
            *(NegotiationError, "unsupported subprotocol: 'c'"),
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
