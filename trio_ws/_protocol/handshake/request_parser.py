"""The incremental parser of HTTP requests."""

from __future__ import annotations

import re
from collections.abc import Callable

from ..errors import (
    InvalidHandshake,
    InvalidHeaderValue,
    InvalidMessage,
    InvalidMethod,
    InvalidProtocol,
    RequestBodyTooLong,
    RequestLineTooLong,
)
from ..escaping import escape, excerpt
from ..http.headers import Headers
from ..http.messages import Request
from ..limits import DEFAULT_LIMITS, Limits, setting
from ..strangers import ASTRAY, PROXY_SIGNATURE, spoken_by
from .parser import Parser

_find_no_vchar = re.compile(rb"[^\x21-\x7e]").search
_find_no_tchar = re.compile(rb"[^!#$%&'*+\-.^_`|~0-9A-Za-z]").search
_is_http_version = re.compile(r"HTTP/[0-9]\.[0-9]").fullmatch


class RequestParser(Parser):
    """Parses one request (RFC 9112, sections 3 and 6).

    Unless ``plain``, one that can't open a WebSocket is refused as soon as that is
    known: by its method, its version, or the body that it says it has. If ``plain``,
    each of HTTP/1 is taken, with its body.

    What other headers mean is left to the caller.
    """

    def __init__(self, limits: Limits = DEFAULT_LIMITS, *, plain: bool = False) -> None:
        super().__init__("request", limits)
        self._plain = plain
        self._request: Request | None = None
        self._method = self._path = self._protocol = ""
        self._missing = 0  # bytes of the body
        self._had_empty_line = False
        self._step = RequestParser._empty_line

    @property
    def method(self) -> str:
        """That of the request, once it has come; empty before."""
        return self._method

    def receive(self, data: bytes) -> Request | None:
        """Take bytes; return the request once complete, None before.

        Raises InvalidMessage, InvalidHeaderValue, InvalidProtocol, InvalidMethod or a
        SecurityError; the parser is of no use then.
        """
        self._feed(data)
        return self._request if self._complete else None

    @property
    def head(self) -> Request | None:
        """The request, once all but its body has come."""
        return self._request

    @property
    def awaits_body(self) -> bool:
        """Whether there is to be a body, of which nothing has come."""
        return self._step is RequestParser._body and len(self._buffer) == self._start

    def _empty_line(self) -> bool:
        # "a server [...] SHOULD ignore at least one empty line (CRLF) received prior
        # to the request-line" (RFC 9112, section 2.2)
        if PROXY_SIGNATURE.startswith(self._buffer):
            if len(self._buffer) < len(PROXY_SIGNATURE):
                return False
        if self._buffer.startswith(PROXY_SIGNATURE):
            raise InvalidMessage(
                "expected HTTP; got a header of the PROXY protocol, version 2: "
                "the proxy isn't to send one"
            )
        if self._buffer.startswith(b"\r\n"):
            self._consume(2)
            self._had_empty_line = True
        self._step = RequestParser._method_part
        return True

    def _method_part(self) -> bool:
        method = self._part(_find_no_tchar, "a method")
        if method is None:
            return False
        spoken = spoken_by(f"{method} ".encode())
        if spoken is not None and spoken not in ASTRAY:
            raise InvalidMessage(f"expected HTTP; got {spoken}: {excerpt(method)}")
        self._method = method
        self._step = RequestParser._path_part
        return True

    def _path_part(self) -> bool:
        path = self._part(_find_no_vchar, "a request target")
        if path is None:
            return False
        self._path = path
        self._step = RequestParser._version_part
        return True

    def _part(
        self, find: Callable[[bytearray, int, int], re.Match[bytes] | None], what: str
    ) -> str | None:
        """Take a part of the request line and the space behind it.

        The request line is read in parts so that what doesn't speak HTTP, such
        as a TLS ClientHello, is known by its first wrong byte: it may never
        send the end of a line.
        """
        buffer = self._buffer
        start = self._start
        room = self._limits.header_line - len(self._method) - len(self._path)
        match = find(buffer, self._scanned, start + room + 1)
        if match is None:
            self._scanned = len(buffer)
            if self._scanned - start > room:
                raise self._line_too_long()
            return None
        pos = match.start()
        if buffer[pos] != 0x20 or pos == start:
            raise self._part_error(pos, what)
        self._consume(pos + 1)
        return buffer[start:pos].decode("ascii")

    def _part_error(self, pos: int, what: str) -> InvalidMessage:
        byte = self._buffer[pos]
        if not self._method and pos == 0 and byte == 0x16:
            # ContentType handshake (RFC 8446, section 5.1)
            return InvalidMessage(
                "expected HTTP; got 0x16, the first byte of TLS; "
                "this port speaks ws://, not wss://"
            )
        came = self._buffer[self._start : pos]
        if not self._method and (spoken := spoken_by(came)):
            return InvalidMessage(f"expected HTTP; got {spoken}: {excerpt(came)}")
        if byte == 0x0D and pos == self._start and self._had_empty_line:
            return InvalidMessage(
                "expected a method and a space; got the end of the line again"
            )
        if byte == 0x0D:
            return InvalidMessage(
                f"expected {what} and a space; got the end of the line"
            )
        if byte < 0x20 and byte != 0x09:
            return self._control_error(pos)
        return InvalidMessage(f"expected {what}; got {byte:#04x} {self._at(pos)}")

    def _version_part(self) -> bool:
        taken = len(self._method) + len(self._path) + 2
        room = max(self._limits.header_line - taken, 0)
        came = self._buffer[self._start : self._start + min(room + 1, 5)]
        if not b"HTTP/".startswith(came):
            if self._method == "PROXY":
                raise InvalidMessage(
                    "expected HTTP; got a header of the PROXY protocol: "
                    "the proxy isn't to send one"
                )
            while not b"HTTP/".startswith(came[:-1]):
                del came[-1]  # what came after the first wrong byte
            raise InvalidMessage(f"expected HTTP/1.1; got {excerpt(came)}")
        version = self._line(room, self._line_too_long)
        if version is None:
            return False
        if _is_http_version(version) is None:
            raise InvalidMessage(f"expected HTTP/1.1; got {excerpt(version)}")
        # A higher minor version is to be understood, another major one can't be
        # (RFC 9110, section 2.5).
        if version != "HTTP/1.1" and not (self._plain and version[:7] == "HTTP/1."):
            raise InvalidProtocol(version)
        if self._method != "GET" and not self._plain:
            raise InvalidMethod(self._method)
        self._protocol = version
        self._step = Parser.headers
        return True

    def _line_too_long(self) -> InvalidHandshake:
        return RequestLineTooLong(
            f"expected at most {self._limits.header_line} bytes of request line; "
            f"got more {setting('header_line')}"
        )

    def _head_complete(self, headers: Headers) -> None:
        if self._plain:
            most = self._limits.request_body
            self._missing = _body_length(headers, self._protocol, most)
        else:
            check_no_body(headers)
        self._request = Request(self._path, headers, self._method, self._protocol)
        self._step = RequestParser._body if self._missing else Parser.end

    def _body(self) -> bool:
        end = self._start + self._missing
        if len(self._buffer) < end:
            return False
        assert self._request is not None
        self._request.body = bytes(self._buffer[self._start : end])
        self._consume(end)
        self._step = Parser.end
        return True


def check_no_body(headers: Headers) -> None:
    """Refuse a request with a body (RFC 9112, section 6.3).

    Where it ends could be read in two ways, and what stands in it be taken for
    frames.
    """
    if "Transfer-Encoding" in headers:
        raise InvalidMessage("expected a request without a body; got Transfer-Encoding")
    lengths = headers.get_all("Content-Length")
    if lengths not in ([], ["0"]):
        raise InvalidMessage(
            f"expected a request without a body; got Content-Length: "
            f"{escape(', '.join(lengths))}"
        )


_is_length = re.compile(r"[0-9]{1,18}").fullmatch


def _body_length(headers: Headers, protocol: str, most: int) -> int:
    """Tell how long a request's body is (RFC 9112, section 6.3).

    What two readers could read in two ways is refused, even where the RFC has a rule
    for it: several lengths, a length beside chunks, chunks in HTTP/1.0.
    """
    lengths = headers.get_all("Content-Length")
    if "Transfer-Encoding" in headers:
        if lengths or protocol == "HTTP/1.0" or "Upgrade" in headers:
            check_no_body(headers)
        # "A server that receives a request message with a transfer coding it does not
        # understand SHOULD respond with 501" (section 6.1).
        codings = ", ".join(headers.get_all("Transfer-Encoding"))
        raise InvalidHeaderValue("Transfer-Encoding", escape(codings))
    if not lengths:
        return 0
    if len(lengths) > 1 or _is_length(lengths[0]) is None:
        shown = excerpt(", ".join(lengths))
        raise InvalidMessage(f"expected one number as Content-Length; got {shown}")
    size = int(lengths[0])
    if size > most:
        raise RequestBodyTooLong(
            f"expected at most {most} bytes of request body; got {size} "
            f"{setting('request_body')}"
        )
    return size
