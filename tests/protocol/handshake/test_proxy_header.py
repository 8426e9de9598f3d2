"""The header of the PROXY protocol: what it says, and what isn't one."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from trio_ws import InvalidMessage
from trio_ws._protocol.handshake.proxy_header import Addresses, parse_proxy_header

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def binary(
    body: bytes, family: int = 0x11, command: int = 0x21, size: int | None = None
) -> bytes:
    length = len(body) if size is None else size
    return SIGNATURE + struct.pack("!BBH", command, family, length) + body


def parse(data: bytes) -> tuple[Addresses | None, int]:
    """Return what a header says, and how many bytes of the data it took."""
    parser = parse_proxy_header()
    wanted, taken = next(parser), 0
    while True:
        assert wanted > 0
        part = data[taken : taken + wanted]
        if len(part) < wanted:
            raise EOFError
        taken += wanted
        try:
            wanted = parser.send(part)
        except StopIteration as stop:
            return stop.value, taken


TCP4 = b"\xc0\x00\x02\x01\xc6\x33\x64\x02\xdc\x04\x01\xbb"
TCP6 = bytes.fromhex("20010db8000000000000000000000001") * 2 + b"\xdc\x04\x01\xbb"
PATHS = b"/run/client".ljust(108, b"\0") + b"\0abstract".ljust(108, b"\0")
FOUR = ("192.0.2.1", 56324), ("198.51.100.2", 443)
SIX = ("2001:db8::1", 56324, 0, 0), ("2001:db8::1", 443, 0, 0)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n", FOUR),
        (b"PROXY TCP6 2001:db8::1 2001:DB8:0:0::1 56324 443\r\n", SIX),
        (
            b"PROXY TCP4 255.255.255.255 0.0.0.0 65535 0\r\n",
            (("255.255.255.255", 65535), ("0.0.0.0", 0)),
        ),
        (b"PROXY UNKNOWN\r\n", None),
        (b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n", None),
        (binary(TCP4), FOUR),
        (binary(TCP4 + b"\x04\x00\x01x"), FOUR),
        (binary(TCP6, 0x21), SIX),
        (binary(PATHS, 0x31), ("/run/client", b"\0abstract")),
        (binary(b"", 0x00), None),
        (binary(b"tlv", 0x00), None),
        (binary(b"", 0x11, 0x20), None),
        (binary(TCP4, 0x11, 0x20), None),
        (binary(b"", 0x77, 0x20), None),
        (binary(TCP4, 0x12), None),
        (binary(TCP6, 0x22), None),
        (binary(PATHS, 0x32), None),
        (binary(TCP4.ljust(4080, b"\0")), FOUR),
    ],
)
def test_a_header(header: bytes, expected: Any) -> None:
    # Nothing is taken of what is behind it.
    assert parse(header + b"GET / HTTP/1.1\r\n") == (expected, len(header))
    for size in range(len(header)):
        with pytest.raises(EOFError):
            parse(header[:size])


@pytest.mark.parametrize(
    ("header", "text"),
    [
        (b"GET / HTTP/1.1\r\n", r"b'GET / HTTP/1' \(HTTP\)"),
        (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\0", r"\(TLS\)"),
        (b"????????????", r"got b'\?{12}'"),
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\n" + b"x" * 99, "107 bytes"),
        (b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n", "more than 107 bytes"),
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 56324\r\n", "PROXY TCP4"),
        (b"PROXY TCP4 192.0.2.01 198.51.100.2 5 4\r\n", "(?i)leading zeros"),
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 056 4\r\n", "056"),
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 65536 4\r\n", r"\(port 65536\)"),
        (b"PROXY TCP4 ::1 ::1 5 4\r\n", "::1"),
        (b"PROXY TCP6 192.0.2.1 ::1 5 4\r\n", r"192\.0\.2\.1"),
        (b"PROXY TCP6 fe80::1%1 ::1 5 4\r\n", "%1"),
        (b"PROXY TCP5 192.0.2.1 192.0.2.1 5 4\r\n", "TCP5"),
        (b"PROXY  TCP4 192.0.2.1 192.0.2.1 5 4\r\n", "PROXY  TCP4"),
        (b"PROXY UNKNOWNX\r\n", "UNKNOWNX"),
        (binary(TCP4, command=0x11), "0x11"),
        (binary(TCP4, command=0x22), "0x22"),
        (binary(TCP4, 0x41), "0x41"),
        (binary(TCP4, 0x13), "0x13"),
        (binary(TCP4[:-1]), "11 bytes where addresses take 12"),
        (binary(TCP4, 0x21), "12 bytes where addresses take 36"),
        (binary(TCP4, 0x31), "12 bytes where addresses take 216"),
        (binary(b"", size=4081), "4097 bytes, more than 4096"),
    ],
)
def test_what_is_none(header: bytes, text: str) -> None:
    with pytest.raises(InvalidMessage, match=text):
        parse(header)
