"""HTTP as a client writes and reads it that knows nothing of trio_ws."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import trio

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455, section 1.3

HANDSHAKE_HEADERS: Sequence[bytes] = (
    b"Host: localhost",
    b"Upgrade: websocket",
    b"Connection: Upgrade",
    b"Sec-WebSocket-Key: " + KEY,
    b"Sec-WebSocket-Version: 13",
)


def request(
    *extra: bytes,
    line: bytes = b"GET /chat HTTP/1.1",
    without: bytes = b"",
    headers: Sequence[bytes] = HANDSHAKE_HEADERS,
) -> bytes:
    """Make a request: the handshake's, ``without`` one header, and ``extra`` ones."""
    kept = [one for one in headers if not without or not one.startswith(without)]
    return b"".join(item + b"\r\n" for item in (line, *kept, *extra)) + b"\r\n"


class Answer(NamedTuple):
    """A response, read by the letter."""

    status: int
    phrase: str
    headers: list[tuple[str, str]]
    rest: bytes  # the body, or what came behind a 101

    def header(self, name: str) -> str | None:
        """Return the value of a header that may come once."""
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(values) <= 1, values
        return values[0] if values else None


def parse(data: bytes) -> Answer:
    """Parse a response; nothing in it may be out of its place."""
    head, empty_line, rest = data.partition(b"\r\n\r\n")
    assert empty_line, data
    status_line, *lines = head.decode("iso-8859-1").split("\r\n")
    match = re.fullmatch(r"HTTP/1\.1 ([1-9][0-9]{2}) ([\t -~\x80-\xff]*)", status_line)
    assert match is not None, status_line
    headers = []
    for line in lines:
        header = re.fullmatch(r"([!-9;-~]+): ([\t -~\x80-\xff]*)", line)
        assert header is not None, line
        headers.append((header[1], header[2]))
    return Answer(int(match[1]), match[2], headers, rest)


async def read_to_end(stream: trio.abc.ReceiveStream) -> bytes:
    """Read until the end of the stream, which has to be one and no reset."""
    received = bytearray()
    async for data in stream:
        received += data
    return bytes(received)


async def read_answer(stream: trio.abc.ReceiveStream, *, head: bool = False) -> Answer:
    """Read a response that ends the connection: one, and nothing behind it.

    ``head`` says that it answers a HEAD request, and so has no body.
    """
    answer = parse(await read_to_end(stream))
    assert answer.status != 101
    length = answer.header("Content-Length")
    if head:
        assert answer.rest == b""
    else:
        assert length is None or int(length) == len(answer.rest)
    return answer


async def read_switch(stream: trio.abc.ReceiveStream) -> Answer:
    """Read a response that opens a WebSocket; the stream goes on."""
    received = bytearray()
    while b"\r\n\r\n" not in received:
        data = await stream.receive_some()
        assert data, received
        received += data
    answer = parse(bytes(received))
    assert answer.status == 101
    return answer
