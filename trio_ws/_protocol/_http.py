"""HTTP/1.1 messages of the opening handshake, and their incremental parsers.

Why no HTTP library: h11 0.16 was measured against this file, both as a server
would use them, from a browser's GET of 555 bytes in one piece to a Request with
Headers: 24 us here, 43 to 51 us with h11 (with or without checking the headers
again), on CPython 3.11; 32 KB byte by byte: 19 ms here, 44 ms there. h11 also
takes what must be refused here (a bare LF, obs-fold, HTTP/1.0, any number of
headers), and doesn't tell one malformed header from another.

The parsers are strict (RFC 9112; section 11 there tells what leniency has cost)
and look at each byte a fixed number of times, however the input is cut. What is
wrong first in the stream is what is reported, so that cuts don't change the
outcome, and as soon as it has come.
"""

from __future__ import annotations

import abc
import dataclasses
import re
from typing import TYPE_CHECKING

from ._errors import (
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
from ._headers import Headers, is_field_value, is_token

if TYPE_CHECKING:
    from collections.abc import Callable

# Lengths are in bytes and leave out the CRLF.
MAX_LINE_LENGTH = 8192  # of a request line, a status line, a header line
MAX_HEADERS = 100
MAX_HEADERS_SIZE = 32768

# The body of a response is kept to tell a human why a server refused; a page
# that says so fits, and a client that reconnects for ever reads no more than
# this each time. The rest is cut off and never read, which is no error: the
# status is what counts.
MAX_BODY_SIZE = 65536

# chunk-size in hexadecimal digits and chunk extensions, which no one uses.
_MAX_CHUNK_LINE_LENGTH = 256


@dataclasses.dataclass
class Request:
    """A handshake request. ``path`` is its request-target, query included."""

    path: str
    headers: Headers
    method: str = "GET"
    protocol: str = "HTTP/1.1"

    def serialize(self) -> bytes:
        """Return the request as on the wire (RFC 9112, section 3).

        Raises ValueError if the request line isn't one.
        """
        if is_token(self.method) is None:
            raise ValueError(f"method: expected a token; got {self.method!r}")
        if re.fullmatch(r"[\x21-\x7e]+", self.path) is None:
            raise ValueError(
                f"path: expected ASCII without spaces or control characters; "
                f"got {self.path!r}"
            )
        if re.fullmatch(r"HTTP/[0-9]\.[0-9]", self.protocol) is None:
            raise ValueError(f"protocol: expected HTTP/1.1; got {self.protocol!r}")
        line = f"{self.method} {self.path} {self.protocol}\r\n"
        return line.encode("ascii") + self.headers.serialize()


@dataclasses.dataclass
class Response:
    """A handshake response."""

    status_code: int
    reason_phrase: str
    headers: Headers
    body: bytes = b""

    def serialize(self) -> bytes:
        """Return the response as on the wire (RFC 9112, section 4).

        Raises ValueError if the status line isn't one.
        """
        if not 100 <= self.status_code <= 999:
            raise ValueError(
                f"status code: expected 100 to 999; got {self.status_code}"
            )
        if is_field_value(self.reason_phrase) is None:
            raise ValueError(
                f"reason phrase: expected no control characters and nothing above "
                f"U+00FF; got {self.reason_phrase!r}"
            )
        line = f"HTTP/1.1 {self.status_code:d} {self.reason_phrase}\r\n"
        return line.encode("iso-8859-1") + self.headers.serialize() + self.body


# CTL (RFC 5234, appendix B.1) other than HTAB: what no line of a head may hold.
_find_control = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]").search
_find_no_vchar = re.compile(rb"[^\x21-\x7e]").search
_find_no_tchar = re.compile(rb"[^!#$%&'*+\-.^_`|~0-9A-Za-z]").search

_SHOWN = 60  # bytes of a bad line that an error shows


def _shown(data: str | bytearray) -> str:
    start = data[:_SHOWN]
    text = ascii(start if isinstance(start, str) else start.decode("iso-8859-1"))
    return text + "..." if len(data) > _SHOWN else text


class _Parser(abc.ABC):
    """What both parsers share: lines, headers, and steps.

    ``_step`` is the state: a method that takes what it can from the buffer and
    tells whether it finished its part, having set the next step.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._buffer = bytearray()
        # The line or the piece of the body under way begins at _start; up to
        # _scanned nothing in it ends it or is wrong.
        self._start = 0
        self._scanned = 0
        self._items: list[tuple[str, str]] = []
        self._headers_size = 0
        self._received = 0
        self._step: Callable[[], bool] = self._header_line

    @property
    def _complete(self) -> bool:
        return self._step == self._end

    @property
    def leftover(self) -> bytes:
        """The bytes after the message, once it is complete."""
        return bytes(self._buffer[self._start :]) if self._complete else b""

    def eof_error(self) -> InvalidMessage:
        """Make the error for a stream that ended within the message."""
        if self._received == 0:
            text = f"connection closed before any byte of the HTTP {self._what} came"
        else:
            plural = "" if self._received == 1 else "s"
            text = (
                f"connection closed after {self._received} byte{plural} "
                f"of the HTTP {self._what}"
            )
        error = InvalidMessage(text)
        error.__cause__ = EOFError(text)
        return error

    def _feed(self, data: bytes) -> None:
        if self._complete:
            raise RuntimeError(f"the HTTP {self._what} is complete already")
        self._received += len(data)
        self._buffer += data
        while self._step():
            pass

    def _end(self) -> bool:
        return False  # all that comes is left over

    def _consume(self, end: int) -> None:
        self._start = self._scanned = end

    def _line(self, limit: int, too_long: Callable[[], InvalidHandshake]) -> str | None:
        """Take a line off the buffer, or None if it isn't there in full.

        RFC 9112, section 2.2: a line ends with CRLF; a bare LF may be taken for
        one, and is refused here, since others may read it otherwise.
        """
        buffer = self._buffer
        start = self._start
        end = start + limit
        match = _find_control(buffer, self._scanned, end + 1)
        if match is None:
            self._scanned = len(buffer)
            if self._scanned > end:
                raise too_long()
            return None
        pos = match.start()
        if buffer[pos] != 0x0D:
            raise self._control_error(pos)
        if pos + 1 == len(buffer):
            self._scanned = pos
            return None
        if buffer[pos + 1] != 0x0A:
            raise InvalidMessage(f"expected LF after CR; got a bare CR {self._at(pos)}")
        self._consume(pos + 2)
        return buffer[start:pos].decode("iso-8859-1")

    def _control_error(self, pos: int) -> InvalidMessage:
        byte = self._buffer[pos]
        if byte == 0x0A:
            return InvalidMessage(f"expected CRLF; got a bare LF {self._at(pos)}")
        if byte == 0x00:
            return InvalidMessage(f"expected text; got a NUL {self._at(pos)}")
        return InvalidMessage(
            f"expected text; got the control character {byte:#04x} {self._at(pos)}"
        )

    def _at(self, pos: int) -> str:
        return f"after {_shown(self._buffer[self._start : pos])}"

    def _take_header_line(self) -> bool | None:
        """Take a header line (RFC 9112, section 5).

        Returns whether it was one, False for the empty line that ends the
        headers; None if it isn't there in full.
        """
        # The limits are one: what is reached first decides.
        room = MAX_HEADERS_SIZE - self._headers_size
        if room < MAX_LINE_LENGTH:
            line = self._line(max(room, 0), self._headers_too_large)
        else:
            line = self._line(MAX_LINE_LENGTH, self._header_too_long)
        if not line:
            return None if line is None else False
        name, colon, value = line.partition(":")
        if not colon or is_token(name) is None:
            raise _header_line_error(line)
        if len(self._items) == MAX_HEADERS:
            raise TooManyHeaders(f"expected at most {MAX_HEADERS} headers; got more")
        self._headers_size += len(line) + 2
        self._items.append((name, value.strip(" \t")))
        return True

    def _header_line(self) -> bool:
        more = self._take_header_line()
        if more is False:
            self._head_complete(Headers.from_valid(self._items))
        return more is not None

    @abc.abstractmethod
    def _head_complete(self, headers: Headers) -> None:
        """Go on after the empty line that ends the headers."""

    def _header_too_long(self) -> InvalidHandshake:
        return HeaderLineTooLong(
            f"expected at most {MAX_LINE_LENGTH} bytes a header line; got more"
        )

    def _headers_too_large(self) -> InvalidHandshake:
        return TooManyHeaders(
            f"expected at most {MAX_HEADERS_SIZE} bytes of headers; got more"
        )


def _header_line_error(line: str) -> InvalidMessage:
    shown = _shown(line)
    if line[0] in " \t":
        # obs-fold (RFC 9112, section 5.2): "A server that receives an obs-fold
        # in a request message [...] MUST either reject the message [...]".
        return InvalidMessage(
            f"expected a header name; got white space, an obsolete folded line: {shown}"
        )
    name, colon, _ = line.partition(":")
    if not colon:
        return InvalidMessage(f"expected a colon in a header line; got none: {shown}")
    if name and name[-1] in " \t" and is_token(name.rstrip(" \t")):
        return InvalidMessage(
            f"expected no white space before the colon of a header; got {shown}"
        )
    return InvalidMessage(f"expected a token as header name; got {shown}")


_is_http_version = re.compile(r"HTTP/[0-9]\.[0-9]").fullmatch


class RequestParser(_Parser):
    """Parses the head of one request (RFC 9112, section 3), for HTTP/1.1 only.

    Request bodies, and what the headers mean, are left to the caller.
    """

    def __init__(self) -> None:
        super().__init__("request")
        self._request: Request | None = None
        self._method = self._path = ""
        self._step = self._method_part

    def receive(self, data: bytes) -> Request | None:
        """Take bytes; return the request once complete, None before.

        Raises InvalidMessage, InvalidProtocol, RequestLineTooLong,
        HeaderLineTooLong or TooManyHeaders; the parser is of no use then.
        """
        self._feed(data)
        return self._request

    def _method_part(self) -> bool:
        method = self._part(_find_no_tchar, "a method")
        if method is None:
            return False
        self._method = method
        self._step = self._path_part
        return True

    def _path_part(self) -> bool:
        path = self._part(_find_no_vchar, "a request target")
        if path is None:
            return False
        self._path = path
        self._step = self._version_part
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
        room = MAX_LINE_LENGTH - len(self._method) - len(self._path)
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
        if byte == 0x0D:
            return InvalidMessage(
                f"expected {what} and a space; got the end of the line"
            )
        if byte < 0x20 and byte != 0x09:
            return self._control_error(pos)
        return InvalidMessage(f"expected {what}; got {byte:#04x} {self._at(pos)}")

    def _version_part(self) -> bool:
        room = max(MAX_LINE_LENGTH - len(self._method) - len(self._path) - 2, 0)
        came = self._buffer[self._start : self._start + min(room + 1, 5)]
        if not b"HTTP/".startswith(came):
            while not b"HTTP/".startswith(came[:-1]):
                del came[-1]  # what came after the first wrong byte
            raise InvalidMessage(f"expected HTTP/1.1; got {_shown(came)}")
        version = self._line(room, self._line_too_long)
        if version is None:
            return False
        if _is_http_version(version) is None:
            raise InvalidMessage(f"expected HTTP/1.1; got {_shown(version)}")
        if version != "HTTP/1.1":
            raise InvalidProtocol(version)
        if self._method != "GET":
            raise InvalidMethod(self._method)
        self._step = self._header_line
        return True

    def _line_too_long(self) -> InvalidHandshake:
        return RequestLineTooLong(
            f"expected at most {MAX_LINE_LENGTH} bytes of request line; got more"
        )

    def _head_complete(self, headers: Headers) -> None:
        self._request = Request(self._path, headers)
        self._step = self._end


# status-line = HTTP-version SP status-code SP [ reason-phrase ] (RFC 9112,
# section 4). The second space is often forgotten where no phrase follows.
_match_status_line = re.compile(
    r"(?P<version>HTTP/[0-9]\.[0-9]) (?P<code>[1-9][0-9]{2})(?: (?P<reason>.*))?",
    re.DOTALL,
).fullmatch

# chunk-size [ chunk-ext ] (RFC 9112, section 7.1). Fifteen digits are plenty.
_match_chunk_line = re.compile(
    r"([0-9A-Fa-f]{1,15})[\t ]*(?:;.*)?", re.DOTALL
).fullmatch


class ResponseParser(_Parser):
    """Parses one response to a GET (RFC 9112, section 4), for HTTP/1.1 only.

    The body is read by Content-Length, in chunks or until the end of the
    stream, and cut off after MAX_BODY_SIZE bytes.
    """

    def __init__(self) -> None:
        super().__init__("response")
        self._response = Response(0, "", Headers())  # filled as it comes
        self._body = bytearray()
        self._step = self._status_line
        self._remaining = 0  # bytes of the body, or of the chunk, that must come

    def receive(self, data: bytes) -> Response | None:
        """Take bytes; return the response once complete, None before.

        Raises InvalidMessage, InvalidProtocol or a SecurityError; the parser is
        of no use then.
        """
        self._feed(data)
        return self._response if self._complete else None

    def receive_eof(self) -> Response:
        """Take the end of the stream; return the response that it completes.

        Raises InvalidMessage, whose cause is an EOFError, if the response is
        not complete.
        """
        if self._step != self._body_until_eof:
            raise self.eof_error()
        self._finish()
        return self._response

    def _status_line(self) -> bool:
        line = self._line(MAX_LINE_LENGTH, self._line_too_long)
        if line is None:
            return False
        match = _match_status_line(line)
        if match is None:
            raise InvalidMessage(f"expected a status line; got {_shown(line)}")
        if match["version"] != "HTTP/1.1":
            raise InvalidProtocol(match["version"])
        self._response.status_code = int(match["code"])
        self._response.reason_phrase = match["reason"] or ""
        self._step = self._header_line
        return True

    def _line_too_long(self) -> InvalidHandshake:
        return StatusLineTooLong(
            f"expected at most {MAX_LINE_LENGTH} bytes of status line; got more"
        )

    def _head_complete(self, headers: Headers) -> None:
        self._response.headers = headers
        status_code = self._response.status_code
        # RFC 9112, section 6.3, in its order. The answer is to a GET.
        if status_code < 200 or status_code in (204, 304):
            self._finish()
        elif "Transfer-Encoding" in headers:
            codings = headers.get_all("Transfer-Encoding")
            if [coding.lower() for coding in codings] != ["chunked"]:
                raise InvalidMessage(
                    f"expected no transfer coding other than chunked; "
                    f"got {_shown(', '.join(codings))}"
                )
            self._step = self._chunk_line
        elif "Content-Length" in headers:
            self._remaining = _content_length(headers)
            self._step = self._body_by_length
        else:
            self._step = self._body_until_eof

    def _finish(self) -> None:
        self._response.body = bytes(self._body)
        self._step = self._end

    def _take_body(self, size: int) -> int:
        """Move up to ``size`` bytes to the body; return how many they were."""
        taken = self._buffer[self._start : self._start + size]
        self._body += taken
        # From here on the head is of no use, and the buffer stays small.
        del self._buffer[: self._start + len(taken)]
        self._consume(0)
        return len(taken)

    def _body_full(self) -> bool:
        if len(self._body) < MAX_BODY_SIZE:
            return False
        del self._body[MAX_BODY_SIZE:]
        self._finish()
        return True

    def _body_by_length(self) -> bool:
        self._remaining -= self._take_body(self._remaining)
        if not self._body_full() and self._remaining == 0:
            self._finish()
        return self._complete

    def _body_until_eof(self) -> bool:
        self._take_body(len(self._buffer))
        return self._body_full()

    def _chunk_line(self) -> bool:
        line = self._line(_MAX_CHUNK_LINE_LENGTH, self._chunk_line_too_long)
        if line is None:
            return False
        match = _match_chunk_line(line)
        if match is None:
            raise InvalidMessage(f"expected the size of a chunk; got {_shown(line)}")
        self._remaining = int(match[1], 16)
        self._step = self._chunk_data if self._remaining else self._trailer_line
        if not self._remaining:
            self._items = []
            self._headers_size = 0
        return True

    def _chunk_line_too_long(self) -> InvalidHandshake:
        return SecurityError(
            f"expected at most {_MAX_CHUNK_LINE_LENGTH} bytes before a chunk; got more"
        )

    def _chunk_data(self) -> bool:
        self._remaining -= self._take_body(self._remaining)
        if self._body_full():
            return True
        if self._remaining:
            return False
        self._step = self._chunk_end
        return True

    def _chunk_end(self) -> bool:
        line = self._line(0, self._chunk_end_missing)
        if line is None:
            return False
        self._step = self._chunk_line
        return True

    def _chunk_end_missing(self) -> InvalidHandshake:
        return InvalidMessage("expected CRLF after the data of a chunk; got more data")

    def _trailer_line(self) -> bool:
        # Trailers are read by the rules of headers and dropped (RFC 9110,
        # section 6.5.1): nothing in a handshake may depend on them.
        more = self._take_header_line()
        if more is False:
            self._finish()
        return more is not None


_is_length = re.compile(r"[0-9]{1,18}").fullmatch


def _content_length(headers: Headers) -> int:
    """Read Content-Length (RFC 9110, section 8.6): several must be the same."""
    values = headers.get_all("Content-Length")
    if len(set(values)) > 1 or _is_length(values[0]) is None:
        raise InvalidMessage(
            f"expected one number as Content-Length; got {_shown(', '.join(values))}"
        )
    return int(values[0])
