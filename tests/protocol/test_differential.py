"""The engine held against websockets' protocol: the same frames, the same outcome.

Where the two differ on purpose, DIFFERENCES says why. Each difference has an
example that shows it, and nothing else may differ.
"""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import pytest
from hypothesis import event, given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Frame
from websockets.protocol import State as PeerState
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from tests.peers import wire
from tests.peers.wire import BINARY, CLOSE, CONT, KEY, PING, PONG, TEXT
from trio_ws._protocol.engine import Engine

MAX_SIZE = 200

DIFFERENCES = {
    "length not minimal": (
        "RFC 6455, section 5.2: 'in all cases, the minimal number of bytes MUST be"
        " used'. websockets doesn't look."
    ),
    "top bit of the length": (
        "Section 5.2: 'the most significant bit MUST be 0'. websockets takes it for"
        " a long message, which is too big where there is a limit."
    ),
    "close frame within a message": (
        "Section 5.4: control frames may come in the middle of a fragmented"
        " message, and a close frame is one. To websockets it is a violation."
    ),
    "UTF-8 within a message": (
        "Invalid UTF-8 fails the connection with the fragment that brings it, so"
        " what comes behind is not looked at. websockets decodes a message once"
        " it is complete."
    ),
    "max_size and control frames": (
        "max_size limits messages. websockets also applies it, less what came of"
        " a fragmented message, to control frames."
    ),
    "two rules at once": (
        "A frame that breaks two rules is refused for one of them; websockets"
        " looks at the size before the reserved bits, the limits of control"
        " frames and the sequence of fragments, and at a close frame's reason"
        " before its code."
    ),
}


@dataclasses.dataclass
class Outcome:
    messages: list[str | bytes]
    sent: int | None  # close codes
    rcvd: int | None
    pongs: list[bytes]
    reason: str = ""


def ours(client: bool, stream: bytes) -> Outcome:
    engine = Engine(client=client, max_size=MAX_SIZE)
    engine.receive(stream)
    engine.act_on_violation()
    pongs = []
    out = b"".join(engine.outbox.next_buffers(2**30))
    for frame in wire.parse_stream(out, masked=client):
        if frame.opcode == PONG:
            pongs.append(bytes(frame.data))
    return Outcome(
        list(engine.messages),
        None if engine.sent is None else engine.sent.code,
        None if engine.rcvd is None else engine.rcvd.code,
        pongs,
        "" if engine.cause is None else str(engine.cause),
    )


QUIET = logging.getLogger("tests.differential")
QUIET.disabled = True


def theirs(client: bool, stream: bytes) -> Outcome:
    protocol: Any
    if client:
        protocol = ClientProtocol(
            parse_uri("ws://localhost/"),
            state=PeerState.OPEN,
            max_size=MAX_SIZE,
            logger=QUIET,
        )
    else:
        protocol = ServerProtocol(state=PeerState.OPEN, max_size=MAX_SIZE, logger=QUIET)
    protocol.receive_data(stream)
    messages: list[str | bytes] = []
    opcode, data = 0, b""
    frames: list[Frame] = protocol.events_received()
    for frame in frames:
        if frame.opcode not in (CONT, TEXT, BINARY):
            continue
        if frame.opcode:
            opcode, data = int(frame.opcode), b""
        data += bytes(frame.data)
        if frame.fin:
            try:
                messages.append(data.decode() if opcode == TEXT else data)
            except UnicodeDecodeError:
                # Its connections decode what its protocol lets pass.
                return Outcome(messages, 1007, None, [], "UTF-8")
    sent, rcvd = protocol.close_sent, protocol.close_rcvd
    writes = b"".join(protocol.data_to_send())
    pongs = [
        bytes(frame.data)
        for frame in wire.parse_stream(writes, masked=client)
        if frame.opcode == PONG
    ]
    exc = protocol.parser_exc
    return Outcome(
        messages,
        None if sent is None else int(sent.code),
        # One that it refused was not a close in good order.
        None if rcvd is None or exc is not None else int(rcvd.code),
        pongs,
        "" if exc is None else str(exc),
    )


def same(a: Outcome, b: Outcome) -> bool:
    if (a.messages, a.sent, a.rcvd) != (b.messages, b.sent, b.rcvd):
        return False
    # A connection that failed answers nothing any more.
    return bool(a.reason) or a.pongs == b.pongs


# One frame each, and who sends it breaks at most a rule or two.


@dataclasses.dataclass
class Sent:
    opcode: int
    payload: bytes
    fin: bool = True
    rsv: int = 0
    masked: bool | None = None  # None: as it should be
    extended: int | None = None


def explain(we: Outcome, they: Outcome, frames: list[Sent]) -> str | None:
    """Name the difference, if it is one of those that are meant."""
    if "expected the shortest encoding" in we.reason:
        return "length not minimal"
    if "expected a payload of at most 125 bytes" in we.reason and any(
        # Known before the length itself has come.
        each.opcode >= 8 and each.extended and len(each.payload) < 126
        for each in frames
    ):
        return "length not minimal"
    if "the top bit is set" in we.reason:
        return "top bit of the length"
    if they.reason == "incomplete fragmented message" and we.rcvd is not None:
        return "close frame within a message"
    if we.reason.startswith("invalid UTF-8 in text") and we.messages == they.messages:
        return "UTF-8 within a message"
    if they.sent == 1009 and we.sent == 1002 and we.messages == they.messages:
        return "two rules at once"
    if they.sent == 1007 and "must not be sent" in we.reason:
        return "two rules at once"
    if they.sent == 1009 and not we.reason.startswith("message of"):
        return "max_size and control frames"
    return None


def serialize(client: bool, frames: list[Sent]) -> bytes:
    stream = b""
    for each in frames:
        masked = not client if each.masked is None else each.masked
        stream += wire.frame(
            each.opcode,
            each.payload,
            fin=each.fin,
            rsv=each.rsv,
            key=KEY if masked else None,
            extended=each.extended,
        )
    return stream


PAYLOADS = st.one_of(
    st.text("a\u00e9\u20ac", max_size=12).map(str.encode),
    st.sampled_from([b"\xff", b"a\xe2\x82", b"\xac", b"\xed\xa0\x80", b"\xf4"]),
    st.integers(0, MAX_SIZE + 5).map(lambda size: b"x" * size),
)
CLOSES = st.one_of(
    st.just(b""),
    st.just(b"\x03"),
    st.tuples(
        st.sampled_from([999, *range(1000, 1017), 2999, 3000, 4999, 5000, 65535]).map(
            lambda code: code.to_bytes(2, "big")
        ),
        st.sampled_from([b"", b"bye", "\u00e9".encode(), b"\xff", b"\xe2\x82"]),
    ).map(b"".join),
)


@st.composite
def sent_frames(draw: st.DrawFn) -> list[Sent]:
    """Make frames most of which obey the rules, so that the others get a chance."""
    frames = []
    in_message = False
    for _ in range(draw(st.integers(0, 10))):
        fits = draw(st.integers(0, 9)) != 9
        data = [CONT] if in_message == fits else [TEXT, TEXT, BINARY]
        opcode = draw(st.sampled_from([*data * 2, PING, PONG, CLOSE]))
        made = draw(sent_frame(opcode))
        if made.opcode < 3:
            in_message = not made.fin
        frames.append(made)
    return frames


@st.composite
def sent_frame(draw: st.DrawFn, opcode: int) -> Sent:
    payload = draw(CLOSES if opcode == CLOSE else PAYLOADS)
    control = opcode >= 8
    made = Sent(
        opcode,
        payload[:125] if control else payload,
        fin=control or draw(st.booleans()),
    )
    match draw(st.integers(0, 30)):
        case 11:
            made.rsv = draw(st.integers(1, 7))
        case 12:
            made.opcode = draw(st.sampled_from([3, 4, 5, 6, 7, 11, 12, 13, 14, 15]))
        case 13:
            made.masked = draw(st.booleans())
        case 14 if control:
            made.fin = False
        case 15 if control:
            made.payload = b"x" * 126
        case 16:
            made.extended = 8
    return made


@given(st.booleans(), sent_frames())
def test_the_same_frames_have_the_same_outcome(
    client: bool, frames: list[Sent]
) -> None:
    stream = serialize(client, frames)
    we, they = ours(client, stream), theirs(client, stream)
    if same(we, they):
        event(f"same: sent {we.sent}")
    else:
        difference = explain(we, they, frames)
        event(f"differs: {difference}")
        assert difference in DIFFERENCES, (we, they)


@given(st.booleans(), sent_frames(), st.integers(0, 300))
def test_frames_that_are_cut_off(client: bool, frames: list[Sent], cut: int) -> None:
    """Of a frame that is incomplete, websockets checks less than the engine does."""
    stream = serialize(client, frames)[:cut]
    we, they = ours(client, stream), theirs(client, stream)
    if not same(we, they) and explain(we, they, frames) is None:
        # What came before is the same, and the frame is refused once it is there.
        assert we.reason
        assert they.sent is None
        assert we.messages == they.messages
        rest = theirs(client, serialize(client, frames))
        assert rest.sent is not None
        assert rest.messages[: len(we.messages)] == we.messages


EXAMPLES: list[Any] = [
    pytest.param(
        [Sent(TEXT, b"a", extended=2)],
        "length not minimal",
        (1002, None),
        id="length not minimal",
    ),
    pytest.param(
        [Sent(PING, b"", extended=8)],
        "length not minimal",
        (1002, None),
        id="length not minimal: ping",
    ),
    pytest.param(
        [Sent(TEXT, b"a", fin=False), Sent(CLOSE, b"\x03\xe8")],
        "close frame within a message",
        (1000, 1002),
        id="close frame within a message",
    ),
    pytest.param(
        [Sent(TEXT, b"\xff", fin=False), Sent(CLOSE, b"\x03")],
        "UTF-8 within a message",
        (1007, 1002),
        id="UTF-8 within a message",
    ),
    pytest.param(
        [Sent(BINARY, b"x" * 150, fin=False), Sent(PING, b"p" * 51)],
        "max_size and control frames",
        (None, 1009),
        id="max_size and control frames",
    ),
    pytest.param(
        [Sent(BINARY, b"x" * 201, rsv=4)],
        "two rules at once",
        (1002, 1009),
        id="two rules at once: reserved bits",
    ),
    pytest.param(
        [Sent(CONT, b"x" * 201)],
        "two rules at once",
        (1002, 1009),
        id="two rules at once: continuation",
    ),
    pytest.param(
        [Sent(PING, b"x" * 201)],
        "two rules at once",
        (1002, 1009),
        id="two rules at once: ping",
    ),
    pytest.param(
        [Sent(CLOSE, b"\x03\xed\xff")],
        "two rules at once",
        (1002, 1007),
        id="two rules at once: close frame",
    ),
]


@pytest.mark.parametrize("client", [False, True])
@pytest.mark.parametrize(("frames", "difference", "codes"), EXAMPLES)
def test_each_difference(
    client: bool,
    frames: list[Sent],
    difference: str,
    codes: tuple[int | None, int | None],
) -> None:
    stream = serialize(client, frames)
    we, they = ours(client, stream), theirs(client, stream)
    assert not same(we, they)
    assert explain(we, they, frames) == difference
    assert (we.sent, they.sent) == codes


def test_the_top_bit_of_a_length() -> None:
    stream = wire.header(BINARY, 2**63, extended=8)
    we, they = ours(True, stream), theirs(True, stream)
    assert (we.sent, they.sent) == (1002, 1009)
    assert explain(we, they, []) == "top bit of the length"


def test_each_difference_has_an_example() -> None:
    shown = {example.values[1] for example in EXAMPLES} | {"top bit of the length"}
    assert shown == set(DIFFERENCES)
