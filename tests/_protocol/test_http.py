"""trio_ws._protocol._http*: requests, responses, and their parsers."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.http11 import Request as PeerRequest
from websockets.streams import StreamReader

from tests._protocol.costs import grows_with_the_square
from trio_ws._protocol.errors import (
    HeaderLineTooLong,
    InvalidHandshake,
    InvalidMessage,
    InvalidMethod,
    InvalidProtocol,
    RequestLineTooLong,
    SecurityError,
    StatusLineTooLong,
    TooManyHeaders,
)
from trio_ws._protocol.handshake.parser import (
    MAX_HEADERS,
    MAX_HEADERS_SIZE,
    MAX_LINE_LENGTH,
)
from trio_ws._protocol.handshake.request_parser import RequestParser
from trio_ws._protocol.handshake.response_parser import MAX_BODY_SIZE, ResponseParser
from trio_ws._protocol.http.headers import Headers
from trio_ws._protocol.http.messages import Request, Response

Parser = type[RequestParser] | type[ResponseParser]
Outcome = tuple[Any, ...]


def outcome(parser_type: Parser, pieces: list[bytes], eof: bool = False) -> Outcome:
    """Tell what came of the pieces: a message, or an error, with its text."""
    parser = parser_type()
    message: Request | Response | None = None
    for index, piece in enumerate(pieces):
        try:
            message = parser.receive(piece)
        except InvalidHandshake as exc:
            return type(exc), str(exc)
        if message is not None:
            return message, parser.leftover + b"".join(pieces[index + 1 :])
    if eof and isinstance(parser, ResponseParser):
        try:
            return parser.receive_eof(), parser.leftover
        except InvalidMessage as exc:
            return type(exc), str(exc)
    return None, parser.leftover


def every_way(parser_type: Parser, data: bytes, eof: bool = False) -> Outcome:
    """Parse whole and byte by byte; the outcome must be the same."""
    whole = outcome(parser_type, [data], eof)
    by_byte = outcome(parser_type, [data[i : i + 1] for i in range(len(data))], eof)
    assert by_byte == whole
    return whole


def cut(data: bytes, positions: list[int]) -> list[bytes]:
    bounds = [0, *sorted(pos % (len(data) + 1) for pos in positions), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(bounds)]


# Requests


def request(*lines: str) -> bytes:
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("iso-8859-1")


REQUEST = request(
    "GET /chat?room=1 HTTP/1.1",
    "Host: example.com",
    "Empty:",
    "X: \t a\tb \xe9 \t",
    "X:c",
)
PARSED_REQUEST = Request(
    "/chat?room=1",
    Headers([("Host", "example.com"), ("Empty", ""), ("X", "a\tb \xe9"), ("X", "c")]),
)


@pytest.mark.parametrize("leftover", [b"", b"\x81\x00", b"\r\n", b"GET / HTTP/1.1"])
def test_request(leftover: bytes) -> None:
    parsed, left = every_way(RequestParser, REQUEST + leftover)
    assert (parsed, left) == (PARSED_REQUEST, leftover)
    assert (parsed.method, parsed.protocol) == ("GET", "HTTP/1.1")


@pytest.mark.parametrize("size", range(len(REQUEST)))
def test_incomplete_request(size: int) -> None:
    assert every_way(RequestParser, REQUEST[:size]) == (None, b"")


def test_request_without_headers() -> None:
    assert every_way(RequestParser, request("GET / HTTP/1.1")) == (
        Request("/", Headers()),
        b"",
    )


def test_a_complete_parser_takes_nothing_more() -> None:
    parser = RequestParser()
    assert parser.receive(REQUEST) is not None
    with pytest.raises(RuntimeError, match="the HTTP request is complete"):
        parser.receive(b"")


@pytest.mark.parametrize(
    ("data", "error"),
    [
        # Told by the last byte given here, without the end of a line
        (b"\x16", "got 0x16, the first byte of TLS; this port speaks ws://"),
        (b"G\x16", "expected text; got the control character 0x16 after 'G'"),
        (b"\x00", "got a NUL after ''"),
        (b"\x80", "expected a method; got 0x80 after ''"),
        (b"{", "expected a method; got 0x7b after ''"),
        (b" ", "expected a method; got 0x20 after ''"),
        (b"\r", "expected a method and a space; got the end of the line"),
        (b"\n", "expected CRLF; got a bare LF after ''"),
        (b"GET\r", "expected a method and a space; got the end of the line"),
        (b"GET\n", "got a bare LF after 'GET'"),
        (b"GET\t", "expected a method; got 0x09 after 'GET'"),
        (b"GET  ", "expected a request target; got 0x20 after ''"),
        (b"GET /\r", "expected a request target and a space; got the end of the line"),
        (b"GET /\n", "got a bare LF after '/'"),
        (b"GET /\0", "got a NUL after '/'"),
        (b"GET /\xc3", "expected a request target; got 0xc3 after '/'"),
        (b"GET /\x7f", "expected a request target; got 0x7f after '/'"),
        (b"GET / F", "expected HTTP/1.1; got 'F'"),
        (b"GET / HTTQ", "expected HTTP/1.1; got 'HTTQ'"),
        (b"GET / HTTP\r", "expected HTTP/1.1; got 'HTTP\\r'"),
        (b"GET / HTTP/1.1\n", "got a bare LF after 'HTTP/1.1'"),
        (b"GET / HTTP/1.1\r ", "expected LF after CR; got a bare CR after 'HTTP/1.1'"),
        (b"GET / HTTP/1.1\0", "got a NUL after 'HTTP/1.1'"),
        (b"GET / HTTP/1.1 x\r\n", "expected HTTP/1.1; got 'HTTP/1.1 x'"),
        (b"GET / HTTP/11\r\n", "expected HTTP/1.1; got 'HTTP/11'"),
    ],
)
def test_malformed_request_line(data: bytes, error: str) -> None:
    assert every_way(RequestParser, data[:-1]) == (None, b"")
    kind, text = every_way(RequestParser, data)
    assert kind is InvalidMessage
    assert error in text
    assert every_way(RequestParser, data + b"\x00\n\r\n") == (kind, text)


@pytest.mark.parametrize(
    ("line", "kind", "error"),
    [
        (
            b"GET / HTTP/1.0\r\n",
            InvalidProtocol,
            "unsupported HTTP version; expected HTTP/1.1; got HTTP/1.0",
        ),
        (
            b"PRI * HTTP/2.0\r\n",
            InvalidProtocol,
            "unsupported HTTP version; expected HTTP/1.1; got HTTP/2.0",
        ),
        (
            b"POST / HTTP/1.1\r\n",
            InvalidMethod,
            "unsupported HTTP method; expected GET; got POST",
        ),
        (
            b"get / HTTP/1.1\r\n",
            InvalidMethod,
            "unsupported HTTP method; expected GET; got get",
        ),
    ],
)
def test_other_versions_and_methods(line: bytes, kind: Any, error: str) -> None:
    assert every_way(RequestParser, line) == (kind, error)


BAD_HEADER_LINES = [
    (b"Host: a\n", "expected CRLF; got a bare LF after 'Host: a'"),
    (b"\n", "expected CRLF; got a bare LF after ''"),
    (b"Host: a\rb", "expected LF after CR; got a bare CR after 'Host: a'"),
    (b"\r\r", "expected LF after CR; got a bare CR after ''"),
    (b"Host: a\0", "expected text; got a NUL after 'Host: a'"),
    (b"Host: \x1b", "expected text; got the control character 0x1b after 'Host: '"),
    (b"Ho\x7f", "expected text; got the control character 0x7f after 'Ho'"),
    (b" folded\r\n", "got white space, an obsolete folded line: ' folded'"),
    (b"\tfolded: x\r\n", "got white space, an obsolete folded line: '\\tfolded: x'"),
    (b"Host\r\n", "expected a colon in a header line; got none: 'Host'"),
    (b"Host : a\r\n", "expected no white space before the colon of a header; got"),
    (b"Host\t: a\r\n", "expected no white space before the colon of a header; got"),
    (b": a\r\n", "expected a token as header name; got ': a'"),
    (b"A B: a\r\n", "expected a token as header name; got 'A B: a'"),
    (b"A B : a\r\n", "expected a token as header name; got 'A B : a'"),
    (b"\xe9: a\r\n", "expected a token as header name; got '\\xe9: a'"),
    (b"(" * 61 + b":\r\n", "got '" + "(" * 60 + "'..."),
]


@pytest.mark.parametrize(("line", "error"), BAD_HEADER_LINES)
def test_malformed_header(line: bytes, error: str) -> None:
    for parser_type, head in (
        (RequestParser, b"GET / HTTP/1.1\r\n"),
        (ResponseParser, b"HTTP/1.1 101 x\r\n"),
        (ResponseParser, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"),
    ):
        kind, text = every_way(parser_type, head + b"A: b\r\n" + line)
        assert kind is InvalidMessage
        assert error in text
        assert text.isprintable()


# The limits


def test_longest_request_line() -> None:
    path = "/" * (MAX_LINE_LENGTH - len("GET  HTTP/1.1"))
    parsed, _ = every_way(RequestParser, request(f"GET {path} HTTP/1.1"))
    assert parsed.path == path


@pytest.mark.parametrize(
    "line",
    [
        "A" * (MAX_LINE_LENGTH + 1),
        "GET " + "/" * (MAX_LINE_LENGTH + 1),
        "GET " + "/" * (MAX_LINE_LENGTH - len("GET  HTTP/1.1") + 1) + " HTTP/1.1",
        "GET " + "/" * (MAX_LINE_LENGTH - len("GET  HT")) + " HTTFOO",
        "GET / HTTP/1." + "1" * MAX_LINE_LENGTH,
    ],
)
def test_request_line_too_long(line: str) -> None:
    kind, text = every_way(RequestParser, request(line, "Host: a"))
    assert kind is RequestLineTooLong
    assert "expected at most 8192 bytes" in text


def test_as_much_as_is_allowed() -> None:
    full = "X: " + "x" * (MAX_LINE_LENGTH - 3)
    headers = [full] * 3 + ["x:"] * (MAX_HEADERS - 3)
    parsed, _ = every_way(RequestParser, request("GET / HTTP/1.1", *headers))
    assert len(list(parsed.headers.raw_items())) == MAX_HEADERS


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (["X: " + "x" * (MAX_LINE_LENGTH - 2)], HeaderLineTooLong),
        (["X" * (MAX_LINE_LENGTH + 1)], HeaderLineTooLong),
        (["X: " + "x" * 4095] * 8, TooManyHeaders),
        (["X: " + "x" * (MAX_LINE_LENGTH - 5)] * 4 + ["X:"], TooManyHeaders),
        (["X:"] * (MAX_HEADERS + 1), TooManyHeaders),
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
    headers = ["X: " + "x" * (MAX_LINE_LENGTH - 5)] * 4
    assert sum(len(header) + 2 for header in headers) == MAX_HEADERS_SIZE
    parsed, _ = every_way(RequestParser, request("GET / HTTP/1.1", *headers))
    assert len(parsed.headers.get_all("X")) == 4


@pytest.mark.parametrize("parser_type", [RequestParser, ResponseParser])
def test_bytes_that_trickle_take_linear_time(parser_type: Parser) -> None:
    line = "GET / HTTP/1.1" if parser_type is RequestParser else "HTTP/1.1 101 x"

    def call(size: int) -> None:
        data = request(line, *["X: " + "x " * size] * 4)
        outcome(parser_type, [data[i : i + 1] for i in range(len(data))])

    assert not grows_with_the_square(call, 250)


# Responses


def response(status_line: str, *headers: str, body: bytes = b"") -> bytes:
    return request(status_line, *headers) + body


@pytest.mark.parametrize(
    ("line", "status_code", "reason_phrase"),
    [
        ("HTTP/1.1 101 Switching Protocols", 101, "Switching Protocols"),
        ("HTTP/1.1 204 ", 204, ""),
        ("HTTP/1.1 304", 304, ""),
        ("HTTP/1.1 101 \xe9\t!", 101, "\xe9\t!"),
    ],
)
@pytest.mark.parametrize("leftover", [b"", b"\x81\x00"])
def test_response_without_body(
    line: str, status_code: int, reason_phrase: str, leftover: bytes
) -> None:
    # None of them has a body, whatever the headers say.
    headers = ["Content-Length: 9", "Transfer-Encoding: chunked"]
    assert every_way(ResponseParser, response(line, *headers, body=leftover)) == (
        Response(
            status_code,
            reason_phrase,
            Headers([("Content-Length", "9"), ("Transfer-Encoding", "chunked")]),
        ),
        leftover,
    )


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"\x15\x03\x01\x00\x02", "got the control character 0x15 after ''"),
        (b"SSH-2.0-x\r\n", "expected a status line; got 'SSH-2.0-x'"),
        (b"HTTP/1.1  200 OK\r\n", "expected a status line"),
        (b"HTTP/1.1 20 OK\r\n", "expected a status line"),
        (b"HTTP/1.1 099 OK\r\n", "expected a status line"),
        (b"HTTP/1.1 2000 OK\r\n", "expected a status line"),
        (b"HTTP/1.1 200OK\r\n", "expected a status line"),
        (b"HTTP/1.1 200 OK\n", "expected CRLF; got a bare LF"),
        (b"\r\n", "expected a status line; got ''"),
    ],
)
def test_malformed_status_line(data: bytes, error: str) -> None:
    kind, text = every_way(ResponseParser, data)
    assert kind is InvalidMessage
    assert error in text


def test_response_of_another_version() -> None:
    for status in (503, 300):
        answer = every_way(ResponseParser, response(f"HTTP/1.0 {status} x"), eof=True)[
            0
        ]
        assert answer.status_code == status
    kind, text = every_way(ResponseParser, response("HTTP/1.0 200 OK"))
    assert (kind, text[-8:]) == (InvalidProtocol, "HTTP/1.0")


def test_status_line_too_long() -> None:
    kind, _ = every_way(ResponseParser, b"HTTP/1.1 200 " + b"x" * MAX_LINE_LENGTH)
    assert kind is StatusLineTooLong


CHUNKED = "Transfer-Encoding: Chunked"


@pytest.mark.parametrize(
    ("header", "raw"),
    [
        ("Content-Length: 5", b"hello"),
        (CHUNKED, b"5\r\nhello\r\n0\r\n\r\n"),
        (CHUNKED, b"2;a=b\r\nhe\r\n03 \t;c\r\nllo\r\n0\r\nTrailer: x\r\nY: z\r\n\r\n"),
    ],
)
@pytest.mark.parametrize("leftover", [b"", b"HTTP/1.1 200 OK\r\n"])
def test_body(header: str, raw: bytes, leftover: bytes) -> None:
    data = response("HTTP/1.1 403 Forbidden", header, body=raw)
    parsed, left = every_way(ResponseParser, data + leftover)
    assert (parsed.body, left) == (b"hello", leftover)
    # Trailers don't become headers.
    assert len(parsed.headers) == 1
    head = data.index(b"\r\n\r\n") + 4
    for size in range(len(data)):
        assert every_way(ResponseParser, data[:size]) == (None, b"")
        got, rest = every_way(ResponseParser, data[:size], eof=True)
        if size < head:
            assert got is InvalidMessage
            assert rest.startswith("connection closed ")
        else:
            assert got.status_code == 403
            assert b"hello".startswith(got.body)


def test_empty_body() -> None:
    data = response("HTTP/1.1 200 OK", "Content-Length: 0", "content-length: 0")
    assert every_way(ResponseParser, data + b"x")[0].body == b""


def test_body_until_eof() -> None:
    data = response("HTTP/1.1 200 OK", body=b"hello")
    assert every_way(ResponseParser, data) == (None, b"")
    parsed, left = every_way(ResponseParser, data, eof=True)
    assert (parsed.body, left) == (b"hello", b"")


LARGE = bytes(MAX_BODY_SIZE // 2)


@pytest.mark.parametrize(
    ("headers", "raw"),
    [
        ([f"Content-Length: {10**17}"], LARGE * 3),
        (["Content-Length: 65537"], LARGE * 3),
        ([CHUNKED], b"%x\r\n%b" % (10**17, LARGE * 3)),
        ([CHUNKED], b"8000\r\n%b\r\n8001\r\n%b" % (LARGE, LARGE)),
        ([], LARGE * 3),
    ],
)
def test_a_large_body_is_cut_off(headers: list[str], raw: bytes) -> None:
    data = response("HTTP/1.1 200 OK", *headers, body=raw)
    for pieces in ([data], cut(data, list(range(0, len(data), 1000)))):
        parsed, _ = outcome(ResponseParser, pieces)
        assert parsed.body == LARGE * 2


@pytest.mark.parametrize(
    ("headers", "raw", "kind", "error"),
    [
        (["Content-Length: 5, 5"], b"", InvalidMessage, "got '5, 5'"),
        (["Content-Length: 5", "Content-Length: 6"], b"", InvalidMessage, "got '5, 6'"),
        (["Content-Length: -1"], b"", InvalidMessage, "got '-1'"),
        (["Content-Length: \xb2"], b"", InvalidMessage, "got '\\xb2'"),
        (["Content-Length: " + "9" * 5000], b"", InvalidMessage, "999'..."),
        (["Transfer-Encoding: gzip"], b"", InvalidMessage, "got 'gzip'"),
        ([CHUNKED, CHUNKED], b"", InvalidMessage, "got 'Chunked, Chunked'"),
        ([CHUNKED], b"\r\n", InvalidMessage, "expected the size of a chunk; got ''"),
        ([CHUNKED], b"-1\r\n", InvalidMessage, "got '-1'"),
        ([CHUNKED], b"0x1\r\n", InvalidMessage, "got '0x1'"),
        ([CHUNKED], b"1" * 16 + b"\r\n", InvalidMessage, "got '1111111111111111'"),
        ([CHUNKED], b"1" * 257, SecurityError, "expected at most 256 bytes"),
        ([CHUNKED], b"1\n", InvalidMessage, "a bare LF"),
        ([CHUNKED], b"1\r\nab", InvalidMessage, "expected CRLF after the data"),
        ([CHUNKED], b"1\r\na\n", InvalidMessage, "a bare LF"),
        ([CHUNKED], b"0\r\nx\r\n", InvalidMessage, "expected a colon"),
    ],
)
def test_malformed_body(headers: list[str], raw: bytes, kind: Any, error: str) -> None:
    data = response("HTTP/1.1 200 OK", *headers, body=raw)
    got, text = every_way(ResponseParser, data)
    assert got is kind
    assert error in text


def test_eof_tells_how_far_the_message_came() -> None:
    for data, text in (
        (b"", "connection closed before any byte of the HTTP response came"),
        (b"H", "connection closed after 1 byte of the HTTP response"),
        (b"HTTP/1.1 200", "connection closed after 12 bytes of the HTTP response"),
    ):
        parser = ResponseParser()
        parser.receive(data)
        with pytest.raises(InvalidMessage) as caught:
            parser.receive_eof()
        assert str(caught.value) == text
        assert isinstance(caught.value.__cause__, EOFError)
        assert str(caught.value.__cause__) == text


# Serialization


def test_serialize_round_trip() -> None:
    assert every_way(RequestParser, PARSED_REQUEST.serialize()) == (PARSED_REQUEST, b"")
    answer = Response(403, "Non \xe9", Headers([("Content-Length", "2")]), b"no")
    assert answer.serialize() == (
        b"HTTP/1.1 403 Non \xe9\r\nContent-Length: 2\r\n\r\nno"
    )
    assert every_way(ResponseParser, answer.serialize()) == (answer, b"")


BREAKS = ["\r", "\n", "\0", "\r\nX: y", "\x7f", "\u0100"]


@pytest.mark.parametrize("bad", BREAKS)
@pytest.mark.parametrize("field", ["path", "method", "protocol"])
def test_request_injection(field: str, bad: str) -> None:
    for value in (bad, f"/{bad}", f"HTTP/1.1{bad}", ""):
        message = Request("/", Headers())
        setattr(message, field, value)
        with pytest.raises(ValueError, match=f"{field}: expected "):
            message.serialize()


@pytest.mark.parametrize("bad", BREAKS)
def test_response_injection(bad: str) -> None:
    with pytest.raises(ValueError, match="reason phrase: expected "):
        Response(200, f"OK{bad}", Headers()).serialize()


@pytest.mark.parametrize("status_code", [0, 99, 1000, -200])
def test_response_with_a_wrong_status(status_code: int) -> None:
    with pytest.raises(ValueError, match="status code: expected "):
        Response(status_code, "", Headers()).serialize()


# Properties

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
