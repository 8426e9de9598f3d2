"""Fuzz what an HTTP proxy answers to CONNECT.

    python tests/programs/fuzz/fuzz_proxy_reply.py -max_total_time=60

Whatever comes opens the tunnel or is an InvalidHandshake, the same for any split; of
what is behind the head of an answer that opens it, no byte is taken.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["trio_ws._protocol", "trio_ws._client.proxy"]):
    from trio_ws._client.options import ClientOptions
    from trio_ws._client.proxy import _Connect
    from trio_ws._protocol.errors import InvalidHandshake, InvalidStatus
    from trio_ws._protocol.uri import parse_proxy

PROXY = parse_proxy("http://user:pass@proxy.example")
OPTIONS = ClientOptions()
BEHIND = b"\x16\x03\x01 of the server"
# What the fuzzer makes stands alone, behind a right beginning, or in it.
TEMPLATES = [
    (b"", b""),
    (b"HTTP/1.1 200 Connection established\r\n", b"\r\n\r\n"),
    (b"HTTP/1.0 200 OK\r\n", b""),
    (b"HTTP/1.1 ", b"\r\n\r\n"),
    (b"HTTP/1.1 100 Continue\r\n", b"\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"),
    (b"HTTP/1.1 407 Proxy Authentication Required\r\n", b""),
    (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 9\r\n\r\n", b""),
    (b"HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n", b""),
]


def run(stream: bytes, size: int) -> tuple[object, ...]:
    connect = _Connect(PROXY, "example.com", 443, OPTIONS)
    taken = 0
    try:
        while taken < len(stream):
            most = min(connect.most or size, size)
            assert most > 0
            piece = stream[taken : taken + most]
            taken += len(piece)
            response = connect.receive(piece)
            if response is not None:
                assert 200 <= response.status_code < 300
                assert stream[:taken].endswith(b"\r\n\r\n")
                assert connect.leftover == b""
                return response.status_code, str(response.headers), taken
        connect.receive_eof()
    except InvalidStatus as exc:
        response = exc.response
        return response.status_code, str(response.headers), response.body, str(exc)
    except InvalidHandshake as exc:
        return type(exc), str(exc)
    raise AssertionError("receive_eof() returned")


def test_one_input(data: bytes) -> None:
    if len(data) < 2:
        return
    before, behind = TEMPLATES[data[0] % len(TEMPLATES)]
    stream = before + data[2:] + behind + BEHIND
    whole = run(stream, len(stream))
    assert run(stream, data[1] or 1) == whole
    if len(stream) < 1000:
        assert run(stream, 1) == whole


if __name__ == "__main__":
    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()
