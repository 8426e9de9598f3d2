"""Responses, parsed."""

from __future__ import annotations

from typing import Any

import pytest

from tests.protocol.handshake.parsing import cut, every_way, outcome, request
from trio_ws._protocol.errors import (
    InvalidMessage,
    InvalidProtocol,
    SecurityError,
    StatusLineTooLong,
)
from trio_ws._protocol.handshake.response_parser import ResponseParser
from trio_ws._protocol.http.headers import Headers
from trio_ws._protocol.http.messages import Response
from trio_ws._protocol.limits import DEFAULT_LIMITS as MOST


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
        (
            b"\x15\x03\x01\x00\x02",
            "expected HTTP; got 0x15, the first byte of TLS; "
            "this port speaks wss://, not ws://",
        ),
        (b"\x16", "expected HTTP; got 0x16, the first byte of TLS"),
        (b"\0\0\x12\x04\0", "expected HTTP/1.1; got a NUL, the first byte of HTTP/2"),
        (b"SSH-2.0-x\r\n", "expected a status line; got 'SSH-2.0-x', which is SSH"),
        (b"-ERR wrong number\r\n", "got '-ERR wrong number', which is Redis"),
        (b"220 mail ESMTP\r\n", "got '220 mail ESMTP', which is SMTP or FTP"),
        (b"* OK IMAP4\r\n", "got '* OK IMAP4', which is IMAP"),
        (b"+OK ready\r\n", "got '+OK ready', which is POP3"),
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
    for status in (503, 300, 200):
        answer = every_way(ResponseParser, response(f"HTTP/1.0 {status} x"), eof=True)[
            0
        ]
        assert answer.status_code == status
    kind, text = every_way(ResponseParser, response("HTTP/1.0 101 x"))
    assert (kind, text[-8:]) == (InvalidProtocol, "HTTP/1.0")


def test_status_line_too_long() -> None:
    kind, _ = every_way(ResponseParser, b"HTTP/1.1 200 " + b"x" * MOST.header_line)
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


LARGE = bytes(MOST.response_body // 2)


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
