"""Requests of plain HTTP, with their bodies: what a hook may answer."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.handshake.handshakes import by_byte, request_bytes, serve
from tests.protocol.handshake.parsing import cut, every_way, outcome, request
from trio_ws._protocol.errors import (
    InvalidHandshake,
    InvalidHeader,
    InvalidHeaderValue,
    InvalidMessage,
    InvalidMethod,
    InvalidProtocol,
    RequestBodyTooLong,
)
from trio_ws._protocol.handshake.request_parser import RequestParser
from trio_ws._protocol.handshake.server import ServerHandshake
from trio_ws._protocol.limits import DEFAULT_LIMITS as MOST

# A type of parser, as those of every_way() are.
Plain: Any = functools.partial(RequestParser, plain=True)

POST = ("POST /jobs HTTP/1.1", "Host: a", "Content-Type: application/json")


@pytest.mark.parametrize("leftover", [b"", b"\r\n", b"POST /jobs HTTP/1.1\r\n\r\n"])
@pytest.mark.parametrize("body", [b"{", b'{"a": 1}\r\n\r\n', b"\x81\x80\0\0\0\0"])
def test_a_body_is_as_long_as_it_says(body: bytes, leftover: bytes) -> None:
    data = request(*POST, f"Content-Length: {len(body)}") + body + leftover
    parsed, left = every_way(Plain, data)
    assert (parsed.method, parsed.path, parsed.body) == ("POST", "/jobs", body)
    assert left == leftover
    assert every_way(Plain, data[: -len(leftover) - 1]) == (None, b"")


@pytest.mark.parametrize("lengths", [[], ["0"], ["00"]])
def test_no_body(lengths: list[str]) -> None:
    data = request(*POST, *(f"Content-Length: {length}" for length in lengths))
    parsed, left = every_way(Plain, data + b"more")
    assert (parsed.body, left) == (b"", b"more")


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PUT", "get", "M-SEARCH", "!"])
@pytest.mark.parametrize("protocol", ["HTTP/1.0", "HTTP/1.1", "HTTP/1.9"])
def test_any_method_and_version(method: str, protocol: str) -> None:
    parsed, _ = every_way(Plain, request(f"{method} / {protocol}"))
    assert (parsed.method, parsed.protocol) == (method, protocol)


def refused(*lines: str, line: str = POST[0]) -> tuple[type[Exception], str]:
    """Return why a request is refused: by its head, before any body."""
    result: tuple[type[Exception], str] = every_way(Plain, request(line, *lines))
    return result


@pytest.mark.parametrize(
    "lengths",
    [
        ["5", "5"],
        ["5", "6"],
        ["0", "5"],
        ["0", "0"],
        ["5, 5"],
        ["+5"],
        ["-5"],
        ["5 5"],
        ["0x5"],
        [""],
        ["\xb2"],
        ["9" * 5000],
    ],
)
def test_what_is_no_length(lengths: list[str]) -> None:
    kind, text = refused(*(f"Content-Length: {length}" for length in lengths))
    assert kind is InvalidMessage
    assert "expected one number as Content-Length" in text


def test_the_longest_body() -> None:
    body = b"x" * MOST.request_body
    data = request(POST[0], f"Content-Length: {len(body)}") + body
    assert outcome(Plain, [data])[0].body == body
    kind, text = refused(f"Content-Length: {len(body) + 1}")
    assert kind is RequestBodyTooLong
    assert "expected at most 65536 bytes of request body; got 65537" in text


@pytest.mark.parametrize("coding", ["chunked", "identity", "gzip, chunked", ""])
def test_transfer_encoding(coding: str) -> None:
    coded = f"Transfer-Encoding: {coding}"
    assert refused(coded)[0] is InvalidHeaderValue
    for kind, text in (
        refused(coded, "Content-Length: 5"),
        refused(coded, "Content-Length: 0"),
        refused(coded, line="POST / HTTP/1.0"),
        refused(coded, "Upgrade: websocket", line="GET / HTTP/1.1"),
    ):
        assert kind is InvalidMessage
        assert "got Transfer-Encoding" in text


@pytest.mark.parametrize("version", ["HTTP/0.9", "HTTP/2.0", "HTTP/9.1"])
def test_another_major_version_is_refused_by_its_line(version: str) -> None:
    assert outcome(Plain, [f"POST / {version}\r\n".encode()])[0] is InvalidProtocol


@given(
    body=st.binary(max_size=20),
    leftover=st.binary(max_size=5),
    positions=st.lists(st.integers(0, 1000)),
)
def test_any_split_gives_the_same(
    body: bytes, leftover: bytes, positions: list[int]
) -> None:
    data = request(*POST, f"Content-Length: {len(body)}") + body + leftover
    parsed, left = outcome(Plain, cut(data, positions))
    assert (parsed.body, left) == (body, leftover)


# The handshake


def received(*pieces: bytes) -> tuple[ServerHandshake, Any]:
    server = ServerHandshake(plain=True)
    result = None
    for piece in pieces:
        result = server.receive(piece)
    return server, result


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("OPTIONS * HTTP/1.0", "*"),
        ("OPTIONS / HTTP/1.0", "/"),
        ("GET /healthz HTTP/1.1", "/healthz"),
        ("CONNECT [::1]:443 HTTP/1.1", "[::1]:443"),
        ("GET http://example.com/a?b HTTP/1.1", "/a?b"),
    ],
)
def test_a_health_check_needs_no_host(line: str, path: str) -> None:
    for more in [], ["Host: example.com"]:
        for pieces in [request(line, *more)], by_byte(request(line, *more)):
            assert received(*pieces)[1].path == path


@pytest.mark.parametrize(
    ("line", "hosts"),
    [
        ("GET / HTTP/1.0", ["a", "a"]),
        ("GET / HTTP/1.0", [""]),
        ("GET / HTTP/1.0", ["a b"]),
        ("GET http://a/ HTTP/1.1", ["b"]),
        ("GET * HTTP/1.1", []),
        ("POST * HTTP/1.1", []),
        ("CONNECT / HTTP/1.1", []),
        ("CONNECT a/b HTTP/1.1", []),
        ("OPTIONS a:80 HTTP/1.1", []),
        ("OPTIONS ** HTTP/1.1", []),
    ],
)
def test_hosts_and_targets_that_are_none(line: str, hosts: list[str]) -> None:
    data = request(line, *(f"Host: {host}" for host in hosts))
    for pieces in [data], by_byte(data):
        response, exc = serve(ServerHandshake(plain=True), pieces)
        assert isinstance(exc, (InvalidHeader, InvalidMessage))
        assert response.status_code == 400


@pytest.mark.parametrize(
    ("data", "kind", "status"),
    [
        (request("GET / HTTP/1.0"), InvalidProtocol, 505),
        (request("POST / HTTP/1.0"), InvalidProtocol, 505),
        (request("GET / HTTP/1.2", "Host: a"), InvalidProtocol, 505),
        (request(*POST), InvalidMethod, 405),
        (request(*POST, "Content-Length: 2") + b"hi", InvalidMethod, 405),
        (request(*POST, "Content-Length: 2", "Content-Length: 2"), InvalidMessage, 400),
        (request(*POST, "Content-Length: 65537"), RequestBodyTooLong, 413),
        (request(*POST, "Transfer-Encoding: chunked"), InvalidHeaderValue, 501),
        (request_bytes("Content-Length: 2") + b"\x81\x80", InvalidMessage, 400),
        (request_bytes("Content-Length: 00"), InvalidMessage, 400),
        (request_bytes(without="Host"), InvalidHeader, 400),
        (request_bytes(without="Upgrade"), InvalidHeader, 426),
        # As without a hook, since frames may be meant by what comes
        (request_bytes("Transfer-Encoding: chunked"), InvalidMessage, 400),
    ],
)
def test_what_opens_no_websocket(
    data: bytes, kind: type[InvalidHandshake], status: int
) -> None:
    for pieces in [data], by_byte(data):
        response, exc = serve(ServerHandshake(plain=True), pieces)
        assert isinstance(exc, kind)
        assert response.status_code == status


def test_what_opens_one() -> None:
    for pieces in [request_bytes()], by_byte(request_bytes()):
        assert serve(ServerHandshake(plain=True), pieces)[0].status_code == 101


EXPECTS = (POST[0], "Content-Length: 2")


@pytest.mark.parametrize(
    ("lines", "waits"),
    [
        ((*EXPECTS, "Expect: 100-continue"), True),
        ((*EXPECTS, "Expect: x, 100-Continue"), True),
        ((*EXPECTS, "Expect: x", "Expect: 100-continue"), True),
        ((*EXPECTS, "Expect: x-100-continue"), False),
        (EXPECTS, False),
        # "A server that receives a 100-continue expectation in an HTTP/1.0 request
        # MUST ignore that expectation" (RFC 9110, section 10.1.1).
        (("POST / HTTP/1.0", EXPECTS[1], "Expect: 100-continue"), False),
        # Nothing to wait for
        ((POST[0], "Expect: 100-continue"), False),
        ((POST[0], "Content-Length: 0", "Expect: 100-continue"), False),
    ],
)
def test_who_waits_for_100(lines: tuple[str, ...], waits: bool) -> None:
    data = request(*lines)
    server = ServerHandshake(plain=True)
    for piece in by_byte(data):
        assert (server.awaits_continue, server.has_head) == (False, False)
        server.receive(piece)
    assert (server.awaits_continue, server.has_head) == (waits, True)
    if waits:
        # Whoever sends some of it waits no more.
        assert server.receive(b"a") is None
        assert not server.awaits_continue
        result = server.receive(b"bc")
        assert result is not None
        assert (result.body, server.leftover) == (b"ab", b"c")
        assert not server.awaits_continue
        assert not received(data + b"a")[0].awaits_continue


def test_an_end_within_the_body() -> None:
    server, result = received(request(*EXPECTS) + b"a")
    assert result is None
    with pytest.raises(InvalidMessage, match="after 43 bytes of the HTTP request"):
        server.receive_eof()
