"""Fuzz the header of the PROXY protocol, versions 1 and 2.

    python tests/programs/fuzz/fuzz_proxy_header.py -max_total_time=60

Whatever comes is a header or an InvalidMessage; no byte behind the header is taken;
and what it tells is what it says, by another reading of the same bytes.
"""

from __future__ import annotations

import socket
import struct
import sys

import atheris

with atheris.instrument_imports(include=["trio_ws._protocol.handshake"]):
    from trio_ws._protocol.errors import InvalidMessage
    from trio_ws._protocol.handshake.proxy_header import parse_proxy_header

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
TEMPLATES = [
    b"",
    b"PROXY ",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 ",
    b"PROXY TCP6 ",
    SIGNATURE,
    SIGNATURE + b"\x21\x11\x00\x0c",
    SIGNATURE + b"\x21\x21\x00\x24",
    SIGNATURE + b"\x21\x31\x00\xd8",
]


def parse(stream: bytes) -> tuple[object, int] | None:
    """Return the addresses and how much was taken; None if more would have to come."""
    parser = parse_proxy_header()
    taken, wanted = 0, next(parser)
    while True:
        assert 0 < wanted <= 4096
        data = stream[taken : taken + wanted]
        if len(data) < wanted:
            return None
        taken += wanted
        try:
            wanted = parser.send(data)
        except StopIteration as stop:
            return stop.value, taken


def check_text(header: bytes, addresses: object) -> None:
    assert header.endswith(b"\r\n")
    assert header.count(b"\n") == 1
    kind, *fields = header[:-2].decode("iso-8859-1").split(" ")[1:]
    if kind == "UNKNOWN":
        assert addresses is None
        return
    family = {"TCP4": socket.AF_INET, "TCP6": socket.AF_INET6}[kind]
    assert isinstance(addresses, tuple)
    for address, host, port in zip(addresses, fields[:2], fields[2:], strict=True):
        # The same address, however it is written.
        assert socket.inet_pton(family, address[0]) == socket.inet_pton(family, host)
        assert address[1] == int(port) <= 65535
        assert len(address) == (2 if family == socket.AF_INET else 4)


def check_binary(header: bytes, addresses: object) -> None:
    command, family, size = struct.unpack_from("!BBH", header, 12)
    assert len(header) == 16 + size
    if command == 0x20 or family not in (0x11, 0x21, 0x31):
        assert addresses is None
        return
    assert command == 0x21
    assert isinstance(addresses, tuple)
    if family == 0x31:
        for name, start in zip(addresses, (16, 124), strict=True):
            raw = header[start : start + 108]
            if isinstance(name, str):
                name = name.encode("utf-8", "surrogateescape")
                assert b"\0" not in name
            assert raw.startswith(name)
        return
    length, kind = (4, socket.AF_INET) if family == 0x11 else (16, socket.AF_INET6)
    ports = struct.unpack_from("!HH", header, 16 + 2 * length)
    for index, address in enumerate(addresses):
        raw = header[16 + index * length :][:length]
        assert socket.inet_pton(kind, address[0]) == raw
        assert address[1] == ports[index]


def test_one_input(data: bytes) -> None:
    if not data:
        return
    stream = TEMPLATES[data[0] % len(TEMPLATES)] + data[1:]
    try:
        outcome = parse(stream)
    except InvalidMessage as exc:
        assert str(exc).isprintable()
        return
    if outcome is None:
        return
    addresses, taken = outcome
    check = check_binary if stream.startswith(SIGNATURE) else check_text
    check(stream[:taken], addresses)
    assert parse(stream[:taken] + b"GET / HTTP/1.1\r\n") == outcome


if __name__ == "__main__":
    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()
