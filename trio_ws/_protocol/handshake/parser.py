"""HTTP/1 messages of the opening handshake, and what their parsers share.

Why no HTTP library: h11 0.16 was measured against these parsers, both as a server
would use them, from a browser's GET of 555 bytes in one piece to a Request with
Headers: 24 us here, 43 to 51 us with h11 (with or without checking the headers
again), on CPython 3.11; 32 KB byte by byte: 19 ms here, 44 ms there. h11 also
takes what must be refused here (a bare LF, obs-fold, any number of headers), and
doesn't tell one malformed header from another.

The parsers are strict (RFC 9112; section 11 there tells what leniency has cost)
and look at each byte a fixed number of times, however the input is cut. What is
wrong first in the stream is what is reported, so that cuts don't change the
outcome, and as soon as it has come.
"""

from __future__ import annotations

import abc
import re
from collections.abc import Callable
from typing import Any

from ..errors import HeaderLineTooLong, InvalidHandshake, InvalidMessage, TooManyHeaders
from ..escaping import excerpt
from ..http.headers import FIELD_VALUE, TOKEN, Headers, is_token
from ..limits import Limits, setting

# CTL (RFC 5234, appendix B.1) other than HTAB: what no line of a head may hold.
_find_control = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]").search


# Lines of headers that are right.
_are_headers = re.compile(rf"(?:{TOKEN}:{FIELD_VALUE}\r\n)+").fullmatch


class Parser(abc.ABC):
    """Parses incrementally: lines, headers, and steps.

    ``_step`` is the state: a method that takes what it can from the buffer and
    tells whether it finished its part, having set the next step. Not a bound one,
    which would refer to what refers to it.
    """

    def __init__(self, what: str, limits: Limits) -> None:
        self._what = what
        self._limits = limits  # those of a line leave out its CRLF
        self._buffer = bytearray()
        # The line or the piece of the body under way begins at _start; up to
        # _scanned nothing in it ends it or is wrong.
        self._start = 0
        self._scanned = 0
        self._items: list[tuple[str, str]] = []
        self._headers_size = 0
        self._received = 0
        self._step: Callable[[Any], bool] = Parser.headers

    @property
    def _complete(self) -> bool:
        return self._step is Parser.end

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
        while self._step(self):
            pass

    def end(self) -> bool:
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
        return f"after {excerpt(self._buffer[self._start : pos])}"

    def _take_header_line(self) -> bool | None:
        """Take a header line (RFC 9112, section 5).

        Returns whether it was one, False for the empty line that ends the
        headers; None if it isn't there in full.
        """
        # The limits are one: what is reached first decides.
        limits = self._limits
        room = limits.head - self._headers_size
        if room < limits.header_line:
            line = self._line(max(room, 0), self._headers_too_large)
        else:
            line = self._line(limits.header_line, self._header_too_long)
        if not line:
            return None if line is None else False
        name, colon, value = line.partition(":")
        if not colon or is_token(name) is None:
            raise _header_line_error(line)
        if len(self._items) == limits.headers:
            raise TooManyHeaders(
                f"expected at most {limits.headers} headers; got more "
                f"{setting('headers')}"
            )
        self._headers_size += len(line) + 2
        self._items.append((name, value.strip(" \t")))
        return True

    def headers(self) -> bool:
        """Take all headers at once where they have come and are right.

        By far the most common case, for a third of the time. All else is left to
        header_line(), which knows what is wrong.
        """
        self._step = Parser.header_line
        start = self._start
        end = self._buffer.find(b"\r\n\r\n", start) + 2
        limits = self._limits
        # Within the length of one line, no limit of lengths is passed.
        if 2 <= end <= start + min(limits.header_line, limits.head):
            text = self._buffer[start:end].decode("iso-8859-1")
            lines = text.split("\r\n", limits.headers)
            if not lines.pop() and _are_headers(text) is not None:
                for line in lines:
                    name, _, value = line.partition(":")
                    self._items.append((name, value.strip(" \t")))
                self._consume(end + 2)
                self._head_complete(Headers.from_valid(self._items))
        return True

    def header_line(self) -> bool:
        more = self._take_header_line()
        if more is False:
            self._head_complete(Headers.from_valid(self._items))
        return more is not None

    @abc.abstractmethod
    def _head_complete(self, headers: Headers) -> None:
        """Go on after the empty line that ends the headers."""

    def _header_too_long(self) -> InvalidHandshake:
        return HeaderLineTooLong(
            f"expected at most {self._limits.header_line} bytes a header line; "
            f"got more {setting('header_line')}"
        )

    def _headers_too_large(self) -> InvalidHandshake:
        return TooManyHeaders(
            f"expected at most {self._limits.head} bytes of headers; got more "
            f"{setting('head')}"
        )


def _header_line_error(line: str) -> InvalidMessage:
    shown = excerpt(line)
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
