"""What both parsers have in common: limits, costs, any split."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.http11 import Request as PeerRequest
from websockets.streams import StreamReader

from tests.protocol.costs import grows_with_the_square
from tests.protocol.handshake.parsing import (
    REQUEST,
    Parser,
    cut,
    every_way,
    outcome,
    request,
)
from trio_ws._protocol.errors import (
    HeaderLineTooLong,
    RequestLineTooLong,
    TooManyHeaders,
)
from trio_ws._protocol.handshake.request_parser import RequestParser
from trio_ws._protocol.handshake.response_parser import ResponseParser
from trio_ws._protocol.limits import DEFAULT_LIMITS as MOST

# The limits


def test_longest_request_line() -> None:
    path = "/" * (MOST.header_line - len("GET  HTTP/1.1"))
    parsed, _ = every_way(RequestParser, request(f"GET {path} HTTP/1.1"))
    assert parsed.path == path


@pytest.mark.parametrize(
    "line",
    [
        "A" * (MOST.header_line + 1),
        "GET " + "/" * (MOST.header_line + 1),
        "GET " + "/" * (MOST.header_line - len("GET  HTTP/1.1") + 1) + " HTTP/1.1",
        "GET " + "/" * (MOST.header_line - len("GET  HT")) + " HTTFOO",
        "GET / HTTP/1." + "1" * MOST.header_line,
    ],
)
def test_request_line_too_long(line: str) -> None:
    kind, text = every_way(RequestParser, request(line, "Host: a"))
    assert kind is RequestLineTooLong
    assert "expected at most 8192 bytes" in text


def test_as_much_as_is_allowed() -> None:
    full = "X: " + "x" * (MOST.header_line - 3)
    headers = [full] * 3 + ["x:"] * (MOST.headers - 3)
    parsed, _ = every_way(RequestParser, request("GET / HTTP/1.1", *headers))
    assert len(list(parsed.headers.raw_items())) == MOST.headers


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (["X: " + "x" * (MOST.header_line - 2)], HeaderLineTooLong),
        (["X" * (MOST.header_line + 1)], HeaderLineTooLong),
        (["X: " + "x" * 4095] * 8, TooManyHeaders),
        (["X: " + "x" * (MOST.header_line - 5)] * 4 + ["X:"], TooManyHeaders),
        (["X:"] * (MOST.headers + 1), TooManyHeaders),
    ],
)
def test_too_large_headers(headers: list[str], expected: Any) -> None:
    for parser_type, line in (
        (RequestParser, "GET / HTTP/1.1"),
        (ResponseParser, "HTTP/1.1 101 x"),
    ):
        kind, text = every_way(parser_type, request(line, *headers))
        assert kind is expected
        assert "expected at most" in text


def test_headers_of_exactly_the_limit() -> None:
    headers = ["X: " + "x" * (MOST.header_line - 5)] * 4
    assert sum(len(header) + 2 for header in headers) == MOST.head
    parsed, _ = every_way(RequestParser, request("GET / HTTP/1.1", *headers))
    assert len(parsed.headers.get_all("X")) == 4


@pytest.mark.parametrize("parser_type", [RequestParser, ResponseParser])
def test_bytes_that_trickle_take_linear_time(parser_type: Parser) -> None:
    line = "GET / HTTP/1.1" if parser_type is RequestParser else "HTTP/1.1 101 x"

    def call(size: int) -> None:
        data = request(line, *["X: " + "x " * size] * 4)
        outcome(parser_type, [data[i : i + 1] for i in range(len(data))])

    assert not grows_with_the_square(call, 250)


MESSAGES = [
    *[REQUEST, b"GET ", b"GET / HTTP/1.1\r\n", b"HTTP/1.0\r\n", b"/ HTTP"],
    *[b"HTTP/1.1 101 x\r\n\r\n", b"HTTP/1.1 200 OK\r\n", b"A: b\r\n", b"\r\n", b"A :b"],
    *[b"Transfer-Encoding: chunked\r\n\r\n", b"5\r\nhello\r\n", b"0\r\n\r\n"],
    *[
        b"Content-Length: 3\r\n\r\n",
        b"\r",
        b"\n",
        b"\0",
        b" ",
        b"\x16\x03\x01",
        b"\xff",
    ],
]
STREAMS = st.lists(st.sampled_from(MESSAGES) | st.binary(max_size=3)).map(b"".join)
CUTS = st.lists(st.integers(0, 1000))


# Properties


@pytest.mark.parametrize("parser_type", [RequestParser, ResponseParser])
@given(data=STREAMS, positions=CUTS, eof=st.booleans())
def test_any_split_gives_the_same_outcome(
    parser_type: Parser, data: bytes, positions: list[int], eof: bool
) -> None:
    whole = every_way(parser_type, data, eof)
    assert outcome(parser_type, cut(data, positions), eof) == whole


NAMES = st.text("aZ0-_!~", min_size=1, max_size=8)
VALUES = st.text('aZ0 \t\xe9\xff:;,"', max_size=12)


@given(
    path=st.text("/aZ?%&=#~|", min_size=1),
    items=st.lists(st.tuples(NAMES, VALUES), max_size=9),
    leftover=st.binary(max_size=9),
)
def test_same_as_websockets(
    path: str, items: list[tuple[str, str]], leftover: bytes
) -> None:
    data = request(f"GET {path} HTTP/1.1", *[f"{n}: {v}" for n, v in items]) + leftover
    reader = StreamReader()
    reader.feed_data(data)
    parsing = PeerRequest.parse(reader.read_line)
    with pytest.raises(StopIteration) as stop:
        next(parsing)
    theirs: PeerRequest = stop.value.value
    ours, left = every_way(RequestParser, data)
    assert ours.path == theirs.path
    assert list(ours.headers.raw_items()) == list(theirs.headers.raw_items())
    assert left == leftover
