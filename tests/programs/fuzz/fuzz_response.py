"""Fuzz the client's side of the opening handshake.

    python tests/programs/fuzz/fuzz_response.py -max_total_time=60

Whatever comes opens the WebSocket or is an InvalidHandshake, the same for any
split.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["trio_ws._protocol"]):
    from trio_ws._protocol.errors import InvalidHandshake, InvalidStatus
    from trio_ws._protocol.handshake import client as _handshake_client
    from trio_ws._protocol.handshake.client import ClientHandshake
    from trio_ws._protocol.handshake.common import accept_key
    from trio_ws._protocol.uri import parse_uri

URI = parse_uri("ws://example.com/chat")
KEY = "dGhlIHNhbXBsZSBub25jZQ=="

LINE = b"HTTP/1.1 101 Switching Protocols\r\n"
HEADERS = (
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: " + accept_key(KEY).encode() + b"\r\n"
)
# What the fuzzer makes stands alone, behind a right beginning, or in it.
TEMPLATES = [
    (b"", b""),
    (LINE, b""),
    (LINE + HEADERS, b"\r\n\r\n"),
    (LINE + HEADERS, b""),
    (b"HTTP/1.1 ", b"\r\n" + HEADERS + b"\r\n"),
    (LINE + HEADERS + b"Sec-WebSocket-Protocol: ", b"\r\n\r\n"),
    (b"HTTP/1.1 404 Not Found\r\n", b""),
    (b"HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n", b""),
    (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 10\r\n\r\n", b""),
    (b"HTTP/1.1 100 Continue\r\n\r\n", LINE + HEADERS + b"\r\n"),
]


def run(pieces: list[bytes]) -> tuple[object, ...]:
    client = ClientHandshake(URI, subprotocols=["chat", "superchat"])
    rest = list(pieces)
    response = None
    try:
        while response is None and rest:
            response = client.receive(rest.pop(0))
        if response is None:
            client.receive_eof()
    except InvalidStatus as exc:
        response = exc.response
        assert response.status_code >= 200
        body = response.body
        return response.status_code, str(response.headers), body, str(exc)
    except InvalidHandshake as exc:
        return type(exc), str(exc)
    assert response.status_code == 101
    assert client.subprotocol in (None, "chat", "superchat")
    leftover = client.leftover + b"".join(rest)
    return str(response.headers), client.subprotocol, leftover


def test_one_input(data: bytes) -> None:
    if len(data) < 2:
        return
    before, behind = TEMPLATES[data[0] % len(TEMPLATES)]
    size = data[1] or 1
    stream = before + data[2:] + behind
    whole = run([stream])
    cut = run([stream[i : i + size] for i in range(0, len(stream), size)])
    assert cut == whole, (cut, whole)
    if len(stream) < 1000:
        single = run([stream[i : i + 1] for i in range(len(stream))])
        assert single == whole, (single, whole)


if __name__ == "__main__":
    # So that the right answer is the same each time.
    _handshake_client.generate_key = lambda: KEY
    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()
