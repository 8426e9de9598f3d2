"""What each target starts from, so that it needn't find the formats by itself.

The first bytes are those that a target takes for its own choices.
"""

from __future__ import annotations

import struct
import zlib

from tests.peers.wire import BINARY, CLOSE, CONT, KEY, PING, PONG, TEXT, frame

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def _deflated(message: bytes, bits: int = 15) -> bytes:
    deflater = zlib.compressobj(wbits=-bits)
    return (deflater.compress(message) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]


def _streams(key: bytes | None) -> list[bytes]:
    """Make frames of a side, whose key it is that masks them."""

    def one(opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
        return frame(opcode, payload, fin=fin, key=key)

    euro = "\u20ac".encode()
    return [
        one(TEXT, b"hello") + one(BINARY, bytes(126)) + one(CLOSE, b"\x03\xe8bye"),
        one(TEXT, euro[:1], fin=False) + one(PING, b"p") + one(CONT, euro[1:]),
        one(PONG, b"q" * 125) + one(CLOSE),
        one(BINARY, bytes(290), fin=False) + one(CONT, bytes(20)),
        frame(TEXT, _deflated(b"hello " * 30), rsv=4, key=key),
    ]


def _both(flags: list[int], between: bytes) -> list[bytes]:
    """Return frames behind the bytes that say who takes them, and how."""
    return [
        bytes([flag, size]) + between + stream
        for flag in flags
        for size in (0, 3)
        # Odd flags are those of a client, which takes what isn't masked.
        for stream in _streams(None if flag & 1 else KEY)
    ]


def _choosing(*texts: bytes, size: bytes = b"") -> list[bytes]:
    """Return texts, each behind the number of its template."""
    return [bytes([number]) + size + text for number, text in enumerate(texts)]


_OFFERS = [
    b"permessage-deflate",
    b"permessage-deflate; client_max_window_bits",
    b'permessage-deflate; client_max_window_bits="10"; server_max_window_bits=9',
    b"permessage-deflate; server_no_context_takeover; client_no_context_takeover",
    b"x-other; a=b, permessage-deflate;client_max_window_bits, , permessage-deflate",
]

_ADDRESSES = bytes([192, 0, 2, 1, 192, 0, 2, 2]) + struct.pack("!HH", 50000, 443)

SEEDS: dict[str, list[bytes]] = {
    "fuzz_both": _both([0, 1, 4, 5, 8, 13], b"\x03"),
    "fuzz_deflate": [
        bytes([flags, size]) + b"\xfe".join(parts)
        for flags in (0, 1, 16, 28, 29)
        for size in (0, 7)
        for parts in (
            [_deflated(b"once and again " * 9, 9), _deflated(b"twice", 9), b"", b"\0"],
            [zlib.compress(bytes(6000))[2:-4], b"plain text", b"\x03\x00\x03\x00"],
        )
    ],
    "fuzz_extensions": [bytes([flags]) + text for text in _OFFERS for flags in (0, 3)]
    + [b"\0keep-alive, Upgrade", b"\0websocket/13", b"\0chat, super.chat"],
    "fuzz_frames": _both([0, 1, 2, 3], b""),
    "fuzz_pair": [
        bytes([flags])
        + bytes.fromhex("0003 0602 1000 2100 1500 0604 0a00 0b00 1000 2100 1400 0c01")
        for flags in (0, 1, 3, 0x5D)
    ],
    "fuzz_proxy_header": _choosing(
        b"PROXY TCP4 192.0.2.1 192.0.2.2 50000 443\r\nGET",
        b"UNKNOWN ffff::1 ::1 1 2\r\n",
        b"50000 443\r\n",
        b"2001:db8::1 ::ffff:192.0.2.2 50000 443\r\n",
        b"\x20\x00\x00\x00",
        _ADDRESSES,
        bytes(15) + b"\x01" + bytes(16) + struct.pack("!HH", 1, 2),
        b"/run/a.sock".ljust(108, b"\0") + b"\0abstract".ljust(108, b"\0"),
    ),
    "fuzz_proxy_reply": _choosing(
        b"HTTP/1.1 200 OK\r\nVia: 1.1 proxy\r\n\r\n",
        b"Proxy-Agent: some",
        b"\r\n",
        b"299 Some words",
        b"Server: some",
        b'Proxy-Authenticate: Basic realm="x"\r\nContent-Length: 2\r\n\r\nno',
        b"123456789",
        b"5\r\nhello\r\n0\r\n\r\n",
        size=b"\x04",
    ),
    "fuzz_request": [
        *_choosing(
            b"GET / HTTP/1.0\r\n\r\n",
            b"Host: [::1]:80\r\n\r\n",
            b"Origin: https://example.com\r\nCookie: a=b",
            b"X-Header: \xe9",
            b"/path?query",
            b"chat, superchat",
            _OFFERS[1],
            b"5\r\n\r\nhello",
            size=b"\x04",
        ),
        # Above 127 a hook takes plain HTTP.
        b"\x87\x005\r\n\r\nhello",
        b"\x80\x03POST / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x80\x00OPTIONS * HTTP/1.0\r\n\r\n",
    ],
    "fuzz_response": _choosing(
        b"HTTP/1.1 500 Error\r\n\r\nbody",
        b"Upgrade: websocket\r\n\r\n",
        b"Server: some",
        b"\r\n\x81\x05hello",
        b"101 Yes",
        b"chat",
        b"Content-Length: 2\r\n\r\nno",
        b"5\r\nhello\r\n0\r\n\r\n",
        b"0123456789",
        b"",
        size=b"\x04",
    ),
    "fuzz_uri": _choosing(
        b"wss://user:secret@example.com:8443/chat?room=1#here",
        b"[2001:db8::1]:80/\xc3\xa9",
        b"b\xc3\xbccher.example",
        b"example.com:",
        b"../up?x=%20y",
        b"//other.example/",
    ),
}
