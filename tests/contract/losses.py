"""What a peer was about to send, and each place at which it may vanish."""

from __future__ import annotations

import dataclasses
from typing import Literal

import pytest

from tests.peers.stream_peer import REQUEST, response_to
from tests.peers.wire import BINARY, CLOSE, CONT, KEY, PING, TEXT, frame, header
from trio_ws.exceptions import ConnectionClosedError, InvalidMessage, OpenTimeoutError

Role = Literal["client", "server"]
ROLES: tuple[Role, ...] = ("client", "server")

by_role = pytest.mark.parametrize("role", ROLES)

SILENCE = "sent 1011 (internal error) keepalive ping timeout; no close frame received"
NO_CLOSE_FRAME = "no close frame received or sent"


def key_of(role: Role) -> bytes | None:
    """Return what the peer masks its frames with, if it is a client."""
    return KEY if role == "server" else None


@dataclasses.dataclass
class Step:
    """A frame of the peer's, and the message that it completes."""

    opcode: int
    payload: bytes
    fin: bool = True
    completes: str | bytes | None = None
    rsv: int = 0


SCRIPTS = {
    "text": [Step(TEXT, b"hello", completes="hello")],
    "empty": [Step(BINARY, b"", completes=b"")],
    "16-bit": [Step(BINARY, b"x" * 200, completes=b"x" * 200)],
    "64-bit": [Step(BINARY, b"y" * 70_000, completes=b"y" * 70_000)],
    "fragments": [
        Step(TEXT, b"one \xe2\x82", fin=False),
        Step(CONT, b"\xac", fin=False),
        Step(PING, b"alive?"),
        Step(CONT, b"", fin=False),
        Step(CONT, b" two", completes="one \u20ac two"),
    ],
    "ping": [Step(PING, b"are you there?")],
    "close": [Step(CLOSE, b"\x03\xe8bye")],
    # RFC 7692, section 7.2.3: "Hello", and once more from the context.
    "compressed": [
        Step(TEXT, bytes.fromhex("f248cdc9c90700"), completes="Hello", rsv=4),
        Step(TEXT, bytes.fromhex("f200110000"), completes="Hello", rsv=4),
    ],
    "compressed fragments": [
        Step(TEXT, bytes.fromhex("f248cd"), fin=False, rsv=4),
        Step(PING, b"alive?"),
        Step(CONT, bytes.fromhex("c9c90700"), completes="Hello"),
    ],
}


BEFORE = [
    Step(TEXT, b"first", completes="first"),
    Step(BINARY, b"second", completes=b"second"),
]

NAMES = {PING: "PING", CLOSE: "CLOSE"}


@dataclasses.dataclass
class Cut:
    """The bytes that come before the peer vanishes, and what is to be expected."""

    data: bytes
    messages: list[str | bytes]
    eof: str  # what the EOFError says


def where(step: Step, key: bytes | None, offset: int, in_message: bool) -> str:
    head = len(header(step.opcode, len(step.payload), key=key))
    size = len(step.payload)
    if offset == 0:
        where = "two fragments of a message" if in_message else "two messages"
        return f"stream ended between {where}"
    if offset == 1:
        return "stream ended after 1 of the 2 bytes, at least, of a frame's header"
    if step.opcode in NAMES:
        whole = f"{head + size} bytes of a {NAMES[step.opcode]} frame"
        return f"stream ended after {offset} of the {whole}"
    if offset < head:
        return f"stream ended after {offset} of the {head} bytes of a frame's header"
    return (
        f"stream ended after {offset - head} of the {size} bytes of a frame's payload"
    )


def offsets(size: int) -> list[int]:
    """Each byte of a frame; of a large one those at both ends, and a few between."""
    if size < 1000:
        return list(range(size))
    return [*range(20), 125, 4096, 65_535, 65_536, size - 2, size - 1]


def cuts(role: Role, name: str) -> list[Cut]:
    key = key_of(role)
    data = b""
    messages: list[str | bytes] = []
    in_message = False
    found = []
    steps = BEFORE + SCRIPTS[name]
    for step in steps:
        encoded = frame(step.opcode, step.payload, fin=step.fin, rsv=step.rsv, key=key)
        for offset in offsets(len(encoded)):
            eof = where(step, key, offset, in_message)
            found.append(Cut(data + encoded[:offset], messages.copy(), eof))
        data += encoded
        if step.completes is not None:
            messages.append(step.completes)
        if step.opcode < CLOSE:
            in_message = not step.fin
    if steps[-1].opcode != CLOSE:
        found.append(Cut(data, messages, "stream ended between two messages"))
    return found


def check_loss(error: BaseException | None, way: str, eof: str) -> None:
    """Check what a loss says, and why."""
    assert type(error) is ConnectionClosedError
    if way == "silence":
        assert str(error) == SILENCE
        assert type(error.__cause__) is TimeoutError
        assert "20 s" in str(error.__cause__)
        return
    assert str(error) == NO_CLOSE_FRAME
    assert (error.rcvd, error.sent) == (None, None)
    if way == "end":
        assert type(error.__cause__) is EOFError
        assert str(error.__cause__) == eof
    else:
        assert type(error.__cause__) is ConnectionResetError


def check_opening(error: BaseException, way: str) -> None:
    if way == "end":
        assert type(error) is InvalidMessage
        assert type(error.__cause__) is EOFError
    elif way == "reset":
        assert type(error) is ConnectionResetError
    else:
        assert type(error) is OpenTimeoutError


ANSWER_SIZE = len(response_to(REQUEST))
