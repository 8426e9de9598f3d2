"""Fuzz the server's side of the opening handshake.

    python tests/programs/fuzz/fuzz_request.py -max_total_time=60

Whatever comes is a request or an InvalidHandshake, the same for any split, and
each can be answered.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["trio_ws._protocol"]):
    from trio_ws._protocol.errors import InvalidHandshake
    from trio_ws._protocol.handshake.response_parser import ResponseParser
    from trio_ws._protocol.handshake.server import ServerHandshake

LINE = b"GET /chat HTTP/1.1\r\n"
HEADERS = (
    b"Host: example.com\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
)
# What the fuzzer makes stands alone, behind a right beginning, or in it.
TEMPLATES = [
    (b"", b""),
    (LINE, b""),
    (LINE + HEADERS, b"\r\n\r\n"),
    (LINE + b"Host: a\r\n", b"\r\n" + HEADERS[19:] + b"\r\n"),
    (b"GET ", b" HTTP/1.1\r\n" + HEADERS + b"\r\n"),
    (LINE + HEADERS + b"Sec-WebSocket-Protocol: ", b"\r\n\r\n"),
    (LINE + HEADERS + b"Sec-WebSocket-Extensions: ", b"\r\n\r\n"),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: ", b"\r\n\r\n" + HEADERS),
]


def check_rejection(server: ServerHandshake, exc: InvalidHandshake) -> bytes:
    rejection = server.rejection(exc)
    del rejection.headers["Date"]  # a second may pass
    assert 400 <= rejection.status_code < 600
    wire = rejection.serialize()
    parsed = ResponseParser().receive(wire)
    assert parsed is not None
    assert parsed.status_code == rejection.status_code
    return wire


def run(pieces: list[bytes], plain: bool) -> tuple[object, ...]:
    server = ServerHandshake(subprotocols=["chat", "superchat"], plain=plain)
    rest = list(pieces)
    request = None
    try:
        while request is None and rest:
            request = server.receive(rest.pop(0))
        if request is None:
            server.receive_eof()
    except InvalidHandshake as exc:
        return type(exc), str(exc), check_rejection(server, exc)
    leftover = server.leftover + b"".join(rest)
    seen = request.serialize(), leftover
    try:
        response = server.accept(request)
    except InvalidHandshake as exc:
        answer = check_rejection(server, exc)
        return *seen, type(exc), answer
    assert response.status_code == 101
    del response.headers["Date"]
    assert server.subprotocol in (None, "chat", "superchat")
    assert request.body == b""
    return *seen, response.serialize()


def test_one_input(data: bytes) -> None:
    if len(data) < 2:
        return
    before, behind = TEMPLATES[data[0] % len(TEMPLATES)]
    plain = data[0] >= 128
    size = data[1] or 1
    stream = before + data[2:] + behind
    whole = run([stream], plain)
    cut = run([stream[i : i + size] for i in range(0, len(stream), size)], plain)
    assert cut == whole, (cut, whole)
    if len(stream) < 1000:
        single = run([stream[i : i + 1] for i in range(len(stream))], plain)
        assert single == whole, (single, whole)


if __name__ == "__main__":
    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()
