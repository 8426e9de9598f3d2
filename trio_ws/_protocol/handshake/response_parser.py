"""The incremental parser of HTTP/1.1 responses, their bodies included."""

from __future__ import annotations

import re

from ..errors import (
    InvalidHandshake,
    InvalidMessage,
    InvalidProtocol,
    SecurityError,
    StatusLineTooLong,
)
from ..escaping import excerpt
from ..http.headers import Headers
from ..http.messages import Response
from ..limits import DEFAULT_LIMITS, Limits, setting
from ..strangers import spoken_by
from .parser import Parser

# chunk-size in hexadecimal digits and chunk extensions, which no one uses.
_MAX_CHUNK_LINE_LENGTH = 256

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


class ResponseParser(Parser):
    """Parses one response to a GET (RFC 9112, section 4), for HTTP/1.1 only.

    Or to a CONNECT, if ``tunnels``: behind a 2xx, whatever its headers say, comes
    what the server sends (RFC 9112, section 6.3).

    The body is read by Content-Length, in chunks or until the end of the
    stream. It is kept to tell a human why a server refused; a page that says so fits
    in the limit, and a client that reconnects for ever reads no more each time. The
    rest is cut off and never read, which is no error: the status is what counts. If
    the stream ends before the body does, what came of it is the body.
    """

    def __init__(
        self, limits: Limits = DEFAULT_LIMITS, *, tunnels: bool = False
    ) -> None:
        super().__init__("response", limits)
        self._tunnels = tunnels
        self._response = Response(0, "", Headers())  # filled as it comes
        self._body = bytearray()
        self._step = ResponseParser._status_line
        self._remaining = 0  # bytes of the body, or of the chunk, that must come

    def receive(self, data: bytes) -> Response | None:
        """Take bytes; return the response once complete, None before.

        Raises InvalidMessage, InvalidProtocol or a SecurityError; the parser is
        of no use then.
        """
        self._feed(data)
        return self._response if self._complete else None

    @property
    def status_code(self) -> int:
        """That of the response, once it has come."""
        return self._response.status_code

    @property
    def head_complete(self) -> bool:
        """Whether the status and all headers have come."""
        return self._step not in (ResponseParser._status_line, Parser.header_line)

    def receive_eof(self) -> Response:
        """Take the end of the stream; return the response, whose body it ends.

        Raises InvalidMessage, whose cause is an EOFError, if the head is not
        complete.
        """
        if not self.head_complete:
            raise self.eof_error()
        self._finish()
        return self._response

    def _status_line(self) -> bool:
        # By the first byte: it may be all that comes.
        if self._buffer.startswith((b"\x15", b"\x16")):
            speaks = "https://, not http://" if self._tunnels else "wss://, not ws://"
            raise InvalidMessage(
                f"expected HTTP; got {self._buffer[0]:#04x}, the first byte of TLS; "
                f"this port speaks {speaks}"
            )
        if self._buffer.startswith(b"\0"):
            raise InvalidMessage(
                "expected HTTP/1.1; got a NUL, the first byte of HTTP/2 and of others"
            )
        line = self._line(self._limits.header_line, self._line_too_long)
        if line is None:
            return False
        match = _match_status_line(line)
        if match is None:
            spoken = spoken_by(line.encode("iso-8859-1"))
            by = "" if spoken in (None, "HTTP") else f", which is {spoken}"
            raise InvalidMessage(f"expected a status line; got {excerpt(line)}{by}")
        self._response.status_code = int(match["code"])
        # Some servers and intermediaries refuse in the name of HTTP/1.0.
        refused = match["version"] == "HTTP/1.0" and self._response.status_code >= 200
        if match["version"] != "HTTP/1.1" and not refused:
            raise InvalidProtocol(match["version"])
        self._response.reason_phrase = match["reason"] or ""
        self._step = Parser.headers
        return True

    def _line_too_long(self) -> InvalidHandshake:
        return StatusLineTooLong(
            f"expected at most {self._limits.header_line} bytes of status line; "
            f"got more {setting('header_line')}"
        )

    def _head_complete(self, headers: Headers) -> None:
        self._response.headers = headers
        status_code = self._response.status_code
        # Also where its framing turns out to be wrong: the status counts.
        self._step = ResponseParser._body_until_eof
        # RFC 9112, section 6.3, in its order.
        agreed = status_code < (300 if self._tunnels else 200)
        if agreed or status_code in (204, 304):
            self._finish()
        elif "Transfer-Encoding" in headers:
            codings = headers.get_all("Transfer-Encoding")
            if [coding.lower() for coding in codings] != ["chunked"]:
                raise InvalidMessage(
                    f"expected no transfer coding other than chunked; "
                    f"got {excerpt(', '.join(codings))}"
                )
            self._step = ResponseParser._chunk_line
        elif "Content-Length" in headers:
            self._remaining = _content_length(headers)
            self._step = ResponseParser._body_by_length

    def _finish(self) -> None:
        self._response.body = bytes(self._body)
        self._step = Parser.end

    def _take_body(self, size: int) -> int:
        """Move up to ``size`` bytes to the body; return how many they were."""
        taken = self._buffer[self._start : self._start + size]
        self._body += taken
        # From here on the head is of no use, and the buffer stays small.
        del self._buffer[: self._start + len(taken)]
        self._consume(0)
        return len(taken)

    def _body_full(self) -> bool:
        most = self._limits.response_body
        if len(self._body) < most:
            return False
        del self._body[most:]
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
            raise InvalidMessage(f"expected the size of a chunk; got {excerpt(line)}")
        self._remaining = int(match[1], 16)
        self._step = (
            ResponseParser._chunk_data
            if self._remaining
            else ResponseParser._trailer_line
        )
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
        self._step = ResponseParser._chunk_end
        return True

    def _chunk_end(self) -> bool:
        line = self._line(0, self._chunk_end_missing)
        if line is None:
            return False
        self._step = ResponseParser._chunk_line
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
            f"expected one number as Content-Length; got {excerpt(', '.join(values))}"
        )
    return int(values[0])
