"""Requests and responses of the opening handshake (RFC 9112)."""

from __future__ import annotations

import dataclasses
import functools
import http
import re
import time

from .headers import Headers, HeadersLike, is_field_value, is_token

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = [
    "Jan",
    "Feb",
    "Mar",
    "Apr",
    "May",
    "Jun",
    "Jul",
    "Aug",
    "Sep",
    "Oct",
    "Nov",
    "Dec",
]


_is_path = re.compile(r"[\x21-\x7e]+").fullmatch
_is_protocol = re.compile(r"HTTP/[0-9]\.[0-9]").fullmatch

_PHRASES = {status.value: status.phrase for status in http.HTTPStatus}


@functools.lru_cache(maxsize=1)
def http_date(seconds: float) -> str:
    """Make an IMF-fixdate (RFC 9110, section 5.6.7) of seconds since the epoch."""
    # Not by email.utils, which needs sockets, nor strftime(), which speaks the locale's
    # language.
    at = time.gmtime(seconds)
    return (
        f"{_DAYS[at.tm_wday]}, {at.tm_mday:02d} {_MONTHS[at.tm_mon - 1]} {at.tm_year} "
        f"{at.tm_hour:02d}:{at.tm_min:02d}:{at.tm_sec:02d} GMT"
    )


def plain_response(
    status: int,
    body: str | bytes,
    content_type: str | None = None,
    headers: HeadersLike | None = None,
) -> Response:
    """Make an HTTP response, after which the connection closes.

    Text is sent in UTF-8, and a Content-Type of text says so. Raises ValueError for a
    status that ends no request, and for headers that can't be sent; TypeError.
    """
    if isinstance(status, bool) or not isinstance(status, int):
        raise TypeError(f"status: expected an int; got {status!r}")
    if not 200 <= status <= 999:
        raise ValueError(f"status: expected 200 to 999; got {status}")
    if not isinstance(content_type, str | None):
        raise TypeError(f"content_type: expected a str; got {content_type!r}")
    if isinstance(body, str):
        content_type = content_type or "text/plain"
        if content_type.startswith("text/") and ";" not in content_type:
            content_type += "; charset=utf-8"
        body = body.encode()
    elif not isinstance(body, bytes):
        raise TypeError(f"body: expected str or bytes; got {body!r}")
    made = Headers(
        {
            "Connection": "close",
            "Content-Type": content_type or "application/octet-stream",
            "Content-Length": str(len(body)),
        }
    )
    if headers is not None:
        try:
            made.update(headers)
        except AttributeError:
            raise TypeError(
                f"headers: expected a mapping or pairs of str; got {headers!r}"
            ) from None
    return Response(int(status), _PHRASES.get(status, ""), made, body)


@dataclasses.dataclass
class Request:
    """An HTTP request. ``path`` is its request-target, query included.

    ``method`` and ``protocol`` are spelt as on the wire, as in "GET" and "HTTP/1.1";
    ``headers`` are Headers. One that opens a WebSocket has no ``body``.
    """

    path: str
    headers: Headers
    method: str = "GET"
    protocol: str = "HTTP/1.1"
    body: bytes = b""

    def serialize(self) -> bytes:
        """Return the request as on the wire (RFC 9112, section 3).

        Raises ValueError if the request line isn't one.
        """
        if is_token(self.method) is None:
            raise ValueError(f"method: expected a token; got {self.method!r}")
        if _is_path(self.path) is None:
            raise ValueError(
                f"path: expected ASCII without spaces or control characters; "
                f"got {self.path!r}"
            )
        if _is_protocol(self.protocol) is None:
            raise ValueError(f"protocol: expected HTTP/1.1; got {self.protocol!r}")
        line = f"{self.method} {self.path} {self.protocol}\r\n"
        return line.encode("ascii") + self.headers.serialize() + self.body


@dataclasses.dataclass
class Response:
    """An HTTP response.

    Of its status line, ``status_code`` is an int and ``reason_phrase`` a str.
    ``headers`` are Headers, ``body`` is bytes.
    """

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
