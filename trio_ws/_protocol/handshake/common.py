"""What both sides of the opening handshake share (RFC 6455, section 4), without I/O.

A handshake takes the bytes that came and returns the message once it is
complete and right, or raises an InvalidHandshake, after which it is of no use.
What came behind the message stays in ``leftover``, for the frame decoder.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from typing import TypeVar

from ..errors import InvalidHeader, InvalidUpgrade
from ..escaping import escape
from ..http.headers import Headers, HeadersLike
from .fields import parse_connection, parse_upgrade

_T = TypeVar("_T")

# RFC 6455, section 1.3
_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def accept_key(key: str) -> str:
    """Make the Sec-WebSocket-Accept that answers a key (RFC 6455, 4.2.2)."""
    # It proves that the server read the request and is no matter of security;
    # without the flag, SHA-1 is refused where FIPS rules are enforced.
    digest = hashlib.sha1((key + _GUID).encode("ascii"), usedforsecurity=False)
    return base64.b64encode(digest.digest()).decode("ascii")


# Headers that say what the handshake is, or where its message ends.
OWN_HEADERS = frozenset(
    {"connection", "content-length", "transfer-encoding", "upgrade"}
)


def checked_additional(
    additional: HeadersLike | None, own: frozenset[str] | set[str]
) -> Headers:
    """Check the headers that a user adds.

    Raises ValueError for one that the handshake makes itself: twice, or with
    another value, it would break the handshake or mean different things to
    different readers.
    """
    headers = Headers() if additional is None else Headers(additional)
    for name in headers:
        if name in own or name.startswith("sec-websocket-"):
            hint = ""
            if name == "host":
                hint = "; it is that of the URI: host and port say where to connect to"
            raise ValueError(
                f"additional_headers: expected no header that the handshake makes "
                f"itself; got {name}{hint}"
            )
    return headers


def single(headers: Headers, name: str) -> str:
    """Return the value of a header that must come once."""
    values = headers.get_all(name)
    if not values:
        raise InvalidHeader(name)
    if len(values) > 1:
        raise InvalidHeader(name, "multiple values")
    return values[0]


def parse_all(
    headers: Headers, name: str, parse: Callable[[str], list[_T]]
) -> list[_T]:
    """Parse a list header; several are one (RFC 9110, section 5.3)."""
    values = headers.get_all(name)
    return parse(", ".join(values)) if values else []


def check_upgrade(headers: Headers) -> None:
    """Check that Connection and Upgrade ask for a WebSocket.

    RFC 6455, section 4.2.1, items 3 and 4; the client's rule for Upgrade is
    stricter.
    """
    for name, parse, wanted in (
        ("Connection", parse_connection, "upgrade"),
        ("Upgrade", parse_upgrade, "websocket"),
    ):
        values = headers.get_all(name)
        if not values:
            raise InvalidUpgrade(name)
        joined = ", ".join(values)
        if joined.lower() == wanted:
            continue  # as nearly all say
        try:
            items = parse(joined)
        except InvalidHeader as exc:
            raise InvalidUpgrade(name, escape(joined)) from exc
        if wanted not in [item.lower() for item in items]:
            raise InvalidUpgrade(name, escape(joined))
