"""The header that a proxy sends before a connection: the PROXY protocol, 1 and 2.

The specification is HAProxy's, "The PROXY protocol, versions 1 & 2".
"""

from __future__ import annotations

import re
import struct
from collections.abc import Generator
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Any, NoReturn

from ..errors import InvalidMessage
from ..strangers import PROXY_SIGNATURE, spoken_by

# "If the CRLF sequence is not found in the first 107 characters, the receiver should
# declare the line invalid" (section 2.1).
_LINE_LIMIT = 107

# Of version 2: "This block is always smaller than an MSS" (section 2.2), mostly of
# 1,460 bytes. Behind the addresses the proxy may tell of TLS, and of its network.
_BINARY_LIMIT = 4096

# No line of version 1 is shorter than "PROXY UNKNOWN\r\n".
_FIRST = len(PROXY_SIGNATURE)

_parse_line = re.compile(
    rb"PROXY TCP([46]) ([0-9A-Fa-f.:]+) ([0-9A-Fa-f.:]+) "
    rb"(0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4})\r\n"
).fullmatch
_is_unknown = re.compile(rb"PROXY UNKNOWN(?: [^\r\n]*)?\r\n").fullmatch

_LOCAL, _PROXY = 0x20, 0x21  # the version and a command (section 2.2)

# Family and transport protocol, and the size of an address.
_TCP4, _TCP6, _UNIX = 0x11, 0x21, 0x31
_SIZES = {_TCP4: 4, _TCP6: 16, _UNIX: 108}

# The client's address and the one it has connected to, in the form of
# socket.getpeername().
Addresses = tuple[Any, Any]


def parse_proxy_header() -> Generator[int, bytes, Addresses | None]:
    """Parse a header; yield how many bytes come next, to be sent to the generator.

    So that nothing of what is behind the header is taken. Returns the addresses; None
    where the proxy has none, or speaks for itself, as in a health check.

    Raises InvalidMessage for anything else: the receiver "MUST not try to guess
    whether the protocol header is present or not" (section 2).
    """
    first = yield _FIRST
    if first == PROXY_SIGNATURE:
        return (yield from _parse_binary())
    if first.startswith(b"PROXY "):
        return (yield from _parse_text(first))
    what = spoken_by(first)
    _refuse(f"{first!r}{f' ({what})' if what else ''}")


def _parse_text(line: bytes) -> Generator[int, bytes, Addresses | None]:
    while not line.endswith(b"\r\n"):
        if len(line) == _LINE_LIMIT:
            _refuse(f"a line of more than {_LINE_LIMIT} bytes: {line!r}")
        line += yield 1
    if _is_unknown(line):
        return None  # "ignore anything presented before the CRLF is found"
    match = _parse_line(line)
    if match is None:
        _refuse(repr(line))
    version, source, target, source_port, target_port = (
        group.decode() for group in match.groups()
    )
    try:
        make = IPv4Address if version == "4" else IPv6Address
        return (
            _name(make(source), int(source_port)),
            _name(make(target), int(target_port)),
        )
    except ValueError as exc:
        _refuse(f"{line!r} ({exc})")


def _parse_binary() -> Generator[int, bytes, Addresses | None]:
    command, family, size = struct.unpack("!BBH", (yield 4))
    if command not in (_LOCAL, _PROXY):
        _refuse(f"version and command {command:#04x}")
    if _FIRST + 4 + size > _BINARY_LIMIT:
        _refuse(f"one of {_FIRST + 4 + size} bytes, more than {_BINARY_LIMIT}")
    body = (yield size) if size else b""
    if command == _LOCAL:
        return None  # "must use the real connection endpoints"
    if family >> 4 > 3 or family & 15 > 2:
        _refuse(f"family and protocol {family:#04x}")
    length = _SIZES.get(family)
    if length is None:
        return None  # unspecified, or datagrams
    ports = 0 if family == _UNIX else 4
    if size < 2 * length + ports:
        _refuse(f"{size} bytes where addresses take {2 * length + ports}")
    source, target = body[:length], body[length : 2 * length]
    if family == _UNIX:
        return _path(source), _path(target)
    make = IPv4Address if family == _TCP4 else IPv6Address
    source_port, target_port = struct.unpack_from("!HH", body, 2 * length)
    return _name(make(source), source_port), _name(make(target), target_port)


def _name(address: IPv4Address | IPv6Address, port: int) -> Any:
    """Return a socket's name; raise ValueError for what can't be one."""
    if port > 0xFFFF:
        raise AddressValueError(f"port {port}")
    if isinstance(address, IPv4Address):
        return (str(address), port)
    return (str(address), port, 0, 0)


def _path(name: bytes) -> str | bytes:
    """Return the name of a Unix socket, as Python has it (unix(7))."""
    if name.startswith(b"\0"):
        return name.rstrip(b"\0")  # abstract, or none
    return name.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _refuse(got: str) -> NoReturn:
    raise InvalidMessage(f"expected a header of the PROXY protocol; got {got}")
