"""What comes of bytes that are parsed, whole and in pieces."""

from __future__ import annotations

import itertools
from typing import Any

from trio_ws._protocol.errors import InvalidHandshake, InvalidMessage
from trio_ws._protocol.handshake.request_parser import RequestParser
from trio_ws._protocol.handshake.response_parser import ResponseParser
from trio_ws._protocol.http.headers import Headers
from trio_ws._protocol.http.messages import Request, Response

Parser = type[RequestParser] | type[ResponseParser]
Outcome = tuple[Any, ...]


def outcome(parser_type: Parser, pieces: list[bytes], eof: bool = False) -> Outcome:
    """Tell what came of the pieces: a message, or an error, with its text."""
    parser = parser_type()
    message: Request | Response | None = None
    for index, piece in enumerate(pieces):
        try:
            message = parser.receive(piece)
        except InvalidHandshake as exc:
            return type(exc), str(exc)
        if message is not None:
            return message, parser.leftover + b"".join(pieces[index + 1 :])
    if eof and isinstance(parser, ResponseParser):
        try:
            return parser.receive_eof(), parser.leftover
        except InvalidMessage as exc:
            return type(exc), str(exc)
    return None, parser.leftover


def every_way(parser_type: Parser, data: bytes, eof: bool = False) -> Outcome:
    """Parse whole and byte by byte; the outcome must be the same."""
    whole = outcome(parser_type, [data], eof)
    by_byte = outcome(parser_type, [data[i : i + 1] for i in range(len(data))], eof)
    assert by_byte == whole
    return whole


def cut(data: bytes, positions: list[int]) -> list[bytes]:
    bounds = [0, *sorted(pos % (len(data) + 1) for pos in positions), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(bounds)]


def request(*lines: str) -> bytes:
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("iso-8859-1")


REQUEST = request(
    "GET /chat?room=1 HTTP/1.1",
    "Host: example.com",
    "Empty:",
    "X: \t a\tb \xe9 \t",
    "X:c",
)
PARSED_REQUEST = Request(
    "/chat?room=1",
    Headers([("Host", "example.com"), ("Empty", ""), ("X", "a\tb \xe9"), ("X", "c")]),
)
