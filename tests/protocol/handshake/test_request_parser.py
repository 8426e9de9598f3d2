"""Requests, parsed."""

from __future__ import annotations

from typing import Any

import pytest

from tests.protocol.handshake.parsing import PARSED_REQUEST, REQUEST, every_way, request
from trio_ws._protocol.errors import InvalidMessage, InvalidMethod, InvalidProtocol
from trio_ws._protocol.handshake.request_parser import RequestParser
from trio_ws._protocol.handshake.response_parser import ResponseParser
from trio_ws._protocol.http.headers import Headers
from trio_ws._protocol.http.messages import Request


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
        (b"\rG", "expected a method and a space; got the end of the line"),
        (b"\n", "expected CRLF; got a bare LF after ''"),
        (b"GET\r", "expected a method and a space; got the end of the line"),
        (b"SSH-2.0-OpenSSH_9\r", "expected HTTP; got SSH: 'SSH-2.0-OpenSSH_9'"),
        (b"*1\r", "expected HTTP; got Redis: '*1'"),
        (b"\r\n\rG", "expected a method and a space; got the end of the line again"),
        (b"\r\n\r\nG", "expected a method and a space; got the end of the line again"),
        (b"\r\n\r\n\0\r\nQUIT ", "got the end of the line again"),
        (
            b"\r\n\r\n\0\r\nQUIT\n",
            "expected HTTP; got a header of the PROXY protocol, version 2: the proxy",
        ),
        (b"RFB ", "expected HTTP; got VNC: 'RFB'"),
        (b"220 ", "expected HTTP; got SMTP or FTP: '220'"),
        (b"* ", "expected HTTP; got IMAP: '*'"),
        (
            b"PROXY TCP4 1",
            "expected HTTP; got a header of the PROXY protocol: the proxy isn't to",
        ),
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
            "unsupported HTTP version; expected HTTP/1.1; got HTTP/2.0, "
            "with which nobody is to begin here (RFC 9113, section 3.3)",
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


def test_one_empty_line_before_the_request_is_ignored() -> None:
    request, _ = every_way(RequestParser, b"\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n")
    assert request.path == "/"
    kind, text = every_way(RequestParser, b"\r\n\r\nGET / HTTP/1.1\r\n\r\n")
    assert kind is InvalidMessage
    assert "expected a method and a space; got the end of the line" in text
