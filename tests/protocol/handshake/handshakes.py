"""Requests and responses, and both sides that take them."""

from __future__ import annotations

import dataclasses
from typing import Any

from trio_ws._protocol.errors import InvalidHandshake
from trio_ws._protocol.handshake.client import ClientHandshake
from trio_ws._protocol.handshake.server import ServerHandshake
from trio_ws._protocol.http.headers import Headers
from trio_ws._protocol.http.messages import Response
from trio_ws._protocol.uri import parse_uri

# The example of RFC 6455, section 1.3
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

URI = parse_uri("ws://example.com/chat?room=1")


def request_bytes(
    *changes: str,
    line: str = "GET /chat?room=1 HTTP/1.1",
    without: str = "",
) -> bytes:
    """Make a valid request, less a header, plus some."""
    headers = [
        "Host: example.com",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {KEY}",
        "Sec-WebSocket-Version: 13",
    ]
    kept = [header for header in headers if header.partition(":")[0] != without]
    text = "".join(f"{each}\r\n" for each in [line, *kept, *changes, ""])
    return text.encode("iso-8859-1")


def serve(
    server: ServerHandshake, pieces: list[bytes]
) -> tuple[Response, InvalidHandshake | None]:
    """Answer a request in pieces as a server would."""
    request = None
    try:
        for piece in pieces:
            request = server.receive(piece)
            if request is not None:
                return server.accept(request), None
    except InvalidHandshake as exc:
        return server.rejection(exc), exc
    return Response(0, "more needed", Headers()), None


def by_byte(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def without_date(response: Response) -> Response:
    """Leave out what the clock may have changed since."""
    kept = [item for item in response.headers.raw_items() if item[0] != "Date"]
    return dataclasses.replace(response, headers=Headers(kept))


def answer_to(data: bytes, **options: Any) -> tuple[Response, InvalidHandshake | None]:
    whole, exc = serve(ServerHandshake(**options), [data])
    in_bytes, other_exc = serve(ServerHandshake(**options), by_byte(data))
    assert without_date(in_bytes) == without_date(whole)
    assert (type(other_exc), str(other_exc)) == (type(exc), str(exc))
    return whole, exc


def response_bytes(
    *changes: str, line: str = "HTTP/1.1 101 Switching Protocols", without: str = ""
) -> bytes:
    headers = [
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {ACCEPT}",
    ]
    kept = [header for header in headers if header.partition(":")[0] != without]
    text = "".join(f"{each}\r\n" for each in [line, *kept, *changes, ""])
    return text.encode("iso-8859-1")


def receive_all(
    pieces: list[bytes], **options: Any
) -> tuple[Response | InvalidHandshake | None, str | None, bytes]:
    """Take a response in pieces as a client would; what came, and how it ended."""
    client = ClientHandshake(URI, **options)
    for index, piece in enumerate(pieces):
        try:
            response = client.receive(piece)
        except InvalidHandshake as exc:
            return exc, client.subprotocol, b""
        if response is not None:
            leftover = client.leftover + b"".join(pieces[index + 1 :])
            return response, client.subprotocol, leftover
    return None, None, client.leftover
