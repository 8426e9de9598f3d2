"""The engine: what each step of either side means."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from tests.peers import wire
from tests.peers.wire import BINARY, CLOSE, CONT, KEY, PING, PONG, TEXT
from tests.protocol.violations import VIOLATIONS
from trio_ws._protocol.closing import (
    CLOSE_DONE,
    CLOSE_SENT,
    CLOSED,
    FAILED,
    FINISHING,
    OPEN,
    TABLE,
    Close,
    Phase,
)
from trio_ws._protocol.engine import Engine
from trio_ws._protocol.errors import ProtocolError
from trio_ws._protocol.frames.memory import SPLIT_SIZE
from trio_ws._protocol.frames.outbox import MAX_PONGS
from trio_ws._protocol.frames.text import WideText, memory_size
from trio_ws._protocol.opcodes import MAX_HEADER

ROLES = pytest.mark.parametrize("client", [False, True], ids=["server", "client"])


def engine(*, client: bool = False, max_size: int | None = None) -> Engine:
    return Engine(client=client, max_size=max_size)


def phase(side: Engine) -> Phase:
    # A function, since mypy takes it that an attribute stays what it was.
    return side.phase


def lost_data(side: Engine) -> bool:
    return side.lost_data


def incoming(
    side: Engine, opcode: int, payload: bytes = b"", *, fin: bool = True
) -> bytes:
    """Make a frame as the peer of ``side`` would."""
    key = None if side.client else KEY
    return wire.frame(opcode, payload, fin=fin, key=key)


def incoming_close(side: Engine, code: int, reason: bytes = b"") -> bytes:
    return incoming(side, CLOSE, code.to_bytes(2, "big") + reason)


def take(side: Engine, count: int | None = None) -> bytes:
    """Take ``count`` bytes, or all, from what waits for the socket."""
    taken = b""
    while side.outbox.size and (count is None or len(taken) < count):
        more = b"".join(side.outbox.next_buffers(2**16))
        more = more if count is None else more[: count - len(taken)]
        assert more
        side.outbox.consume(len(more))
        taken += more
    return taken


def frames_of(side: Engine, stream: bytes) -> list[tuple[int, bytes]]:
    """Read what ``side`` sent by another parser."""
    read = wire.parse_stream(stream, masked=side.client)
    return [(int(frame.opcode), bytes(frame.data)) for frame in read]


def sent(side: Engine) -> list[tuple[int, bytes]]:
    return frames_of(side, take(side))


def send(side: Engine, payload: bytes, opcode: int = BINARY, fin: bool = True) -> None:
    side.outbox.push(side.data_frame(opcode, payload, fin))


def finish(side: Engine) -> None:
    """Want to close once the message under way is whole, as the endpoint does."""
    if phase(side) is OPEN:
        side.phase = FINISHING
        side.discard_messages()


def to_phase(wanted: Phase, *, client: bool = False, trace: Any = None) -> Engine:
    """Bring a connection to a phase, its outbox empty."""
    side = Engine(client=client, max_size=None, trace_received=trace)
    if wanted is FINISHING:
        finish(side)
    elif wanted is CLOSE_SENT:
        side.close(1000, "")
    elif wanted in (CLOSE_DONE, CLOSED):
        side.receive(incoming_close(side, 1000))
        if wanted is CLOSED:
            side.receive_eof()
    elif wanted is FAILED:
        side.fail(1011, "", None)
    take(side)
    assert phase(side) is wanted
    return side


REACHABLE = [OPEN, FINISHING, CLOSE_SENT, CLOSE_DONE, FAILED, CLOSED]


# Receiving


@pytest.mark.cpython("how a str is kept")
@pytest.mark.parametrize(
    ("letter", "width"), [("a", 1), ("\xe9", 1), ("\u0100", 2), ("\U0001f600", 4)]
)
@pytest.mark.parametrize("count", [1, 2, 3, 100])
def test_text_is_counted_as_it_lies_in_memory(
    letter: str, width: int, count: int
) -> None:
    side = engine(client=True)
    side.receive(incoming(side, TEXT, (letter * count).encode()))
    assert side.queued == width * count
    side.pop()
    assert side.queued == 0


@ROLES
def test_messages_wait_in_order(client: bool) -> None:
    side = engine(client=client)
    side.receive(incoming(side, TEXT, "é".encode()) + incoming(side, BINARY, b"\xff"))
    side.receive(incoming(side, TEXT, b"a", fin=False) + incoming(side, CONT, b"bc"))
    assert list(side.messages) == ["é", b"\xff", "abc"]
    assert side.queued == memory_size("é") + 1 + 3  # bytes or characters
    assert [side.pop(), side.pop(), side.pop()] == ["é", b"\xff", "abc"]
    assert side.queued == 0
    assert phase(side) is OPEN
    assert side.outbox.size == 0


@ROLES
def test_a_ping_is_answered(client: bool) -> None:
    side = engine(client=client)
    side.receive(incoming(side, PING, b"p" * 125))
    assert sent(side) == [(PONG, b"p" * 125)]
    # A flood of them not one by one.
    side.receive(b"".join(incoming(side, PING, b"%d" % i) for i in range(100)))
    answers = sent(side)
    assert answers == [(PONG, b"%d" % i) for i in range(100 - MAX_PONGS, 100)]


def test_a_pong_is_handed_on() -> None:
    side = engine()
    side.receive(incoming(side, PONG, b"nobody asked"))
    came: list[bytes] = []
    side.on_pong = came.append
    side.receive(incoming(side, PONG, b"a") + incoming(side, PONG, b""))
    assert came == [b"a", b""]
    assert phase(side) is OPEN
    assert side.outbox.size == 0


@ROLES
@pytest.mark.parametrize("waits", [False, True])
def test_pings_are_answered_behind_our_close_frame(client: bool, waits: bool) -> None:
    # Section 5.5.2: until the peer's close frame has come.
    side = engine(client=client)
    side.close(1000, "")
    out = b"" if waits else take(side)
    came: list[bytes] = []
    side.on_pong = came.append
    side.receive(incoming(side, PING, b"p") + incoming(side, PONG, b"q"))
    out += take(side)
    # Ahead of ours where that waits still.
    frames = [(CLOSE, b"\x03\xe8"), (PONG, b"p")]
    assert frames_of(side, out) == (frames[::-1] if waits else frames)
    assert came == [b"q"]


def test_a_ping_before_a_close_frame_is_answered_before_it() -> None:
    side = engine()
    send(side, b"data")
    side.receive(incoming(side, PING, b"p") + incoming_close(side, 1000))
    # A peer that has closed reads no more data.
    assert sent(side) == [(PONG, b"p"), (CLOSE, b"\x03\xe8")]
    assert not side.lost_data


@pytest.mark.parametrize("left", [CLOSE_DONE, FAILED, CLOSED])
def test_whoever_is_deaf_hears_nothing(left: Phase) -> None:
    traced: list[Any] = []
    side = to_phase(left, trace=lambda *frame: traced.append(frame))
    traced.clear()
    side.receive(incoming(side, TEXT, b"a") + incoming(side, PING) + b"\xff" * 100)
    assert phase(side) is left
    assert not side.messages
    assert side.violation is None
    assert side.outbox.size == 0
    assert traced == []


@ROLES
@pytest.mark.parametrize(
    ("payload", "close"),
    [
        (b"", Close(1005)),
        (b"\x03\xe8", Close(1000)),
        (b"\x03\xe9bye", Close(1001, "bye")),
        (b"\x0f\xa0" + "é".encode() * 61, Close(4000, "é" * 61)),
        # What nobody may send as a user may still come from a peer.
        (b"\x03\xe8a\r\nb\0", Close(1000, "a\r\nb\0")),
    ],
)
def test_the_peer_closes(client: bool, payload: bytes, close: Close) -> None:
    side = engine(client=client)
    side.receive(incoming(side, TEXT, b"a") + incoming(side, CLOSE, payload))
    assert phase(side) is CLOSE_DONE
    assert list(side.messages) == ["a"]
    assert (side.rcvd, side.sent, side.rcvd_then_sent) == (close, close, True)
    # The answer says what came.
    assert sent(side) == [(CLOSE, payload)]
    side.receive_eof()
    assert phase(side) is CLOSED
    assert side.cause is None
    assert not side.lost_data


@pytest.mark.parametrize("code", [*range(1000, 1017), 2999, 3000, 4999, 5000, 0, 65535])
def test_close_codes_that_come(code: int) -> None:
    side = engine()
    side.receive(incoming_close(side, code))
    if code in {1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 4999}:
        assert phase(side) is CLOSE_DONE
        assert side.rcvd == Close(code)
    else:
        side.act_on_violation()
        assert phase(side) is FAILED
        assert side.rcvd is None
        assert side.sent == Close(1002, f"CLOSE frame: code {code} must not be sent")


@ROLES
@pytest.mark.parametrize(
    ("payload", "code", "reason"),
    [
        (
            b"\x03",
            1002,
            "CLOSE frame: expected a payload of 0 or at least 2 bytes; got 1",
        ),
        (
            b"\x03\xe8a\xff",
            1007,
            "CLOSE frame: invalid UTF-8 in the reason: invalid start byte",
        ),
        (
            b"\x03\xe8\xe2\x82",
            1007,
            "CLOSE frame: invalid UTF-8 in the reason: unexpected end of data",
        ),
        # The code is looked at first.
        (b"\x03\xee\xff", 1002, "CLOSE frame: code 1006 must not be sent"),
    ],
)
@pytest.mark.parametrize("closing", [False, True])
def test_close_frames_against_the_rules(
    client: bool, payload: bytes, code: int, reason: str, closing: bool
) -> None:
    side = engine(client=client)
    out = b""
    if closing:
        side.close(1001, "")
        out = take(side)
    side.receive(incoming(side, TEXT, b"a") + incoming(side, CLOSE, payload))
    assert list(side.messages) == ([] if closing else ["a"])
    assert phase(side) is (CLOSE_SENT if closing else OPEN)
    side.act_on_violation()
    assert phase(side) is FAILED
    assert side.rcvd is None
    assert side.rcvd_then_sent is None
    assert isinstance(side.cause, ProtocolError)
    assert str(side.cause) == reason
    out += take(side)
    close = Close(1001) if closing else Close(code, reason)
    assert side.sent == close
    expected = close.code.to_bytes(2, "big") + close.reason.encode()
    assert frames_of(side, out) == [(CLOSE, expected)]


@pytest.mark.parametrize(
    ("masked", "max_size", "stream", "known_at", "code", "reason"), VIOLATIONS
)
def test_violations_become_close_frames(
    masked: bool,
    max_size: int | None,
    stream: bytes,
    known_at: int,
    code: int,
    reason: str,
) -> None:
    side = engine(client=not masked, max_size=max_size)
    send(side, b"data")
    side.receive(incoming(side, BINARY) + stream)
    # Until it is acted on, what came before it can be answered.
    assert phase(side) is OPEN
    assert list(side.messages) == [b""]
    send(side, b"answer")
    side.receive(incoming(side, TEXT, b"not looked at"))
    assert list(side.messages) == [b""]
    answered = take(side)
    side.act_on_violation()
    assert phase(side) is FAILED
    assert side.violation is None
    assert side.sent == Close(code, reason)
    assert len(reason.encode()) <= 123
    assert isinstance(side.cause, ProtocolError)
    assert str(side.cause) == reason
    assert side.rcvd is None
    assert list(side.messages) == [b""]
    pong = [(PONG, b"p" * 100)] if "the sum of" in reason or b"pppp" in stream else []
    assert frames_of(side, answered + take(side)) == [
        *pong,
        (BINARY, b"data"),
        (BINARY, b"answer"),
        (CLOSE, code.to_bytes(2, "big") + reason.encode()),
    ]
    side.act_on_violation()
    assert side.outbox.size == 0


def test_a_long_reason_is_cut_between_characters() -> None:
    side = engine()
    side.violation = ProtocolError("é" * 100)
    side.act_on_violation()
    assert side.sent == Close(1002, "é" * 61)
    assert sent(side) == [(CLOSE, b"\x03\xea" + "é".encode() * 61)]


def test_the_end_of_the_stream_does_not_hide_a_violation() -> None:
    side = engine()
    side.receive(b"\xff\xff")
    side.receive_eof()
    assert phase(side) is FAILED
    assert isinstance(side.cause, ProtocolError)
    # A peer that ended its stream may still read what was wrong.
    assert sent(side)[0][1][:2] == b"\x03\xea"


def test_a_reset_does_not_hide_a_violation() -> None:
    side = engine()
    side.receive(b"\xff\xff")
    side.lose(ConnectionResetError())
    assert isinstance(side.cause, ProtocolError)
    assert side.sent is None
    side.act_on_violation()
    assert side.sent is None
    assert side.outbox.size == 0


# The end of the stream


@pytest.mark.parametrize(
    ("partial", "where"),
    [
        (lambda s: b"", "stream ended between two messages"),
        (
            lambda s: incoming(s, TEXT, b"abc", fin=False),
            "stream ended between two fragments of a message",
        ),
        (
            lambda s: incoming(s, TEXT, b"abc")[:-1],
            "stream ended after 2 of the 3 bytes of a frame's payload",
        ),
    ],
)
def test_the_stream_ends_early(partial: Any, where: str) -> None:
    side = engine()
    send(side, b"never sent")
    side.receive(incoming(side, TEXT, b"whole") + partial(side))
    side.receive_eof()
    assert phase(side) is FAILED
    assert isinstance(side.cause, EOFError)
    assert str(side.cause) == where
    assert (side.rcvd, side.sent, side.rcvd_then_sent) == (None, None, None)
    assert list(side.messages) == ["whole"]
    assert side.outbox.size == 0
    assert side.lost_data


def test_the_stream_ends_within_a_frame_of_ours() -> None:
    side = engine()
    send(side, b"first")
    send(side, b"second")
    out = take(side, 3)
    side.receive_eof()
    assert frames_of(side, out + take(side)) == [(BINARY, b"first")]
    assert side.lost_data


def test_the_stream_ends_behind_our_close_frame() -> None:
    side = engine()
    send(side, b"data")
    side.close(1000, "")
    side.receive_eof()
    assert phase(side) is FAILED
    assert isinstance(side.cause, EOFError)
    # It may be read all the same.
    assert sent(side) == [(BINARY, b"data"), (CLOSE, b"\x03\xe8")]
    assert not side.lost_data


def test_what_is_under_way_is_forgotten_with_the_stream() -> None:
    side = engine()
    send(side, bytes(100_000))
    side.outbox.consume(1000)
    side.lose(OSError())
    assert side.outbox.next_buffers(1) == []
    assert side.outbox.size == 0
    assert side.lost_data


@pytest.mark.parametrize("left", [FAILED, CLOSED])
def test_nothing_follows_the_end(left: Phase) -> None:
    side = to_phase(left)
    facts = (side.cause, side.rcvd, side.sent, side.rcvd_then_sent, side.lost_data)
    side.receive_eof()
    side.lose(OSError())
    side.fail(1011, "late", OSError())
    side.abandon(flushed=True)
    assert phase(side) is left
    assert facts == (
        side.cause,
        side.rcvd,
        side.sent,
        side.rcvd_then_sent,
        side.lost_data,
    )
    assert side.outbox.size == 0


# Sending


@ROLES
def test_data_frames(client: bool) -> None:
    side = engine(client=client)
    send(side, b"a", TEXT, fin=False)
    side.send_ping(b"p")
    send(side, b"x" * SPLIT_SIZE, CONT)
    side.send_pong(b"q")
    assert sent(side) == [
        (PING, b"p"),
        (PONG, b"q"),
        (TEXT, b"a"),
        (CONT, b"x" * SPLIT_SIZE),
    ]


def test_waiting_pings_are_known_by_their_frame() -> None:
    side = engine()
    first, second = side.send_ping(b"p"), side.send_ping(b"p")
    assert side.outbox.waits(first)
    take(side, 1)
    assert not side.outbox.waits(first)
    assert side.outbox.waits(second)


@pytest.mark.parametrize("left", [CLOSE_SENT, CLOSE_DONE, FAILED, CLOSED])
def test_what_cannot_be_sent_any_more(left: Phase) -> None:
    side = to_phase(left)
    calls: list[tuple[str, Any]] = [
        ("SEND_DATA", lambda: side.data_frame(TEXT, b"a", True)),
        ("SEND_CONTROL", lambda: side.send_ping(b"")),
        ("SEND_CONTROL", lambda: side.send_pong(b"")),
        ("SEND_CLOSE", lambda: side.close(1000, "")),
    ]
    before = (side.sent, side.rcvd)
    for event, call in calls:
        message = f"^{event}: impossible in state {left.name}$"
        with pytest.raises(ProtocolError, match=message):
            call()
    assert phase(side) is left
    assert (side.sent, side.rcvd) == before
    assert side.outbox.size == 0


@ROLES
def test_a_message_that_is_finished_before_closing(client: bool) -> None:
    side = engine(client=client)
    send(side, b"a", fin=False)
    side.receive(incoming(side, TEXT, b"nobody took it"))
    side.receive(incoming(side, TEXT, b"nor", fin=False))
    finish(side)
    assert phase(side) is FINISHING
    assert not side.messages
    assert side.queued == 0
    assert side.decoder.partial_size == 0
    assert not side.idle
    side.receive(
        incoming(side, CONT, b"the rest")
        + incoming(side, TEXT, b"more")
        + incoming(side, PING, b"p")
    )
    assert not side.messages
    side.outbox.batch_limit = 1000
    assert not side.queue_behind("another message", True)
    for call in (lambda: side.send_ping(b""), lambda: side.send_pong(b"")):
        with pytest.raises(ProtocolError, match="impossible in state FINISHING"):
            call()
    send(side, b"b", CONT)
    side.close(1000, "")
    assert phase(side) is CLOSE_SENT
    assert sent(side) == [
        (PONG, b"p"),
        (BINARY, b"a"),
        (CONT, b"b"),
        (CLOSE, b"\x03\xe8"),
    ]


def test_the_stream_ends_while_a_message_is_finished() -> None:
    side = engine()
    send(side, b"a", fin=False)
    finish(side)
    side.receive_eof()
    assert phase(side) is FAILED
    assert side.outbox.size == 0
    assert side.lost_data


@ROLES
def test_closing(client: bool) -> None:
    side = engine(client=client)
    send(side, b"a")
    side.receive(incoming(side, TEXT, b"nobody took it"))
    side.receive(incoming(side, TEXT, b"nor", fin=False))
    side.close(1001, "bye")
    assert phase(side) is CLOSE_SENT
    assert not side.messages
    assert side.queued == 0
    assert side.decoder.partial_size == 0
    assert sent(side) == [(BINARY, b"a"), (CLOSE, b"\x03\xe9bye")]
    assert (side.rcvd, side.sent, side.rcvd_then_sent) == (
        None,
        Close(1001, "bye"),
        None,
    )
    # The peer may go on for a while; nobody waits for that.
    side.receive(incoming(side, CONT, b"this") + incoming(side, TEXT, b"or that"))
    assert not side.messages
    side.receive(incoming_close(side, 4000, b"me too"))
    assert phase(side) is CLOSE_DONE
    assert (side.rcvd, side.sent) == (Close(4000, "me too"), Close(1001, "bye"))
    assert side.rcvd_then_sent is False
    assert side.outbox.size == 0
    side.receive_eof()
    assert phase(side) is CLOSED
    assert side.cause is None


@pytest.mark.parametrize(
    ("code", "reason", "error"),
    [
        (1006, "", ValueError),
        (1000, "é" * 62, ValueError),
        (1000, "a\nb", ValueError),
        ("1000", "", TypeError),
    ],
)
def test_wrong_arguments_change_nothing(
    code: Any, reason: str, error: type[Exception]
) -> None:
    calls: list[Callable[[Engine], None]] = [
        lambda side: side.close(code, reason),
        lambda side: side.fail(code, reason, None),
    ]
    for call in calls:
        side = engine()
        send(side, b"a")
        side.receive(incoming(side, TEXT, b"b"))
        with pytest.raises(error, match="close"):
            call(side)
        assert phase(side) is OPEN
        assert side.sent is None
        assert list(side.messages) == ["b"]
        assert sent(side) == [(BINARY, b"a")]


# Failing


@ROLES
@pytest.mark.parametrize("under_way", [0, 1, 5])
def test_failing_drops_all_but_the_frame_under_way(
    client: bool, under_way: int
) -> None:
    side = engine(client=client)
    send(side, b"first")
    send(side, b"second")
    out = take(side, under_way)
    side.send_ping(b"p")
    side.receive(incoming(side, TEXT, b"kept") + incoming(side, PING, b"q"))
    cause = TimeoutError("no pong")
    side.fail(1011, "keepalive", cause)
    assert phase(side) is FAILED
    assert side.cause is cause
    assert side.lost_data
    assert list(side.messages) == ["kept"]
    assert (side.rcvd, side.sent) == (None, Close(1011, "keepalive"))
    out += take(side)
    first = [(BINARY, b"first")] if under_way else []
    assert frames_of(side, out) == [*first, (CLOSE, b"\x03\xf3keepalive")]


def test_failing_in_place_of_an_orderly_close() -> None:
    # No byte of the close frame has gone out, so another one can.
    side = engine()
    send(side, b"a")
    side.close(1000, "bye")
    side.fail(1011, "flush", None)
    assert side.sent == Close(1011, "flush")
    assert side.lost_data
    assert sent(side) == [(CLOSE, b"\x03\xf3flush")]


@pytest.mark.parametrize("count", [1, 3, 6])
def test_failing_behind_a_close_frame(count: int) -> None:
    # Two close frames would be one too many.
    side = engine()
    side.close(1000, "bye")
    out = take(side, count)
    side.fail(1011, "late", None)
    assert phase(side) is FAILED
    assert side.sent == Close(1000, "bye")
    assert frames_of(side, out + take(side)) == [(CLOSE, b"\x03\xe8bye")]
    assert not side.lost_data


def test_failing_in_place_of_an_answer() -> None:
    side = engine()
    side.receive(incoming_close(side, 1000))
    side.fail(1011, "flush", None)
    assert (side.rcvd, side.sent) == (Close(1000), Close(1011, "flush"))
    assert side.rcvd_then_sent is True
    assert sent(side) == [(CLOSE, b"\x03\xf3flush")]


def test_losing_the_stream() -> None:
    side = engine()
    send(side, b"a")
    side.receive(incoming(side, TEXT, b"b"))
    cause = ConnectionResetError()
    side.lose(cause)
    assert phase(side) is FAILED
    assert side.cause is cause
    assert (side.rcvd, side.sent) == (None, None)
    assert side.lost_data
    assert side.outbox.size == 0
    assert list(side.messages) == ["b"]


@pytest.mark.parametrize("count", [2, 5, 6, 8])
def test_only_data_that_stays_behind_is_lost(count: int) -> None:
    """Of two bytes of header, a byte of data, then a close frame of seven."""
    side = engine()
    send(side, b"d")
    side.close(1000, "bye")
    take(side, count)
    side.lose(ConnectionResetError())
    assert side.lost_data == (count < 3)
    side.abandon(flushed=True)
    assert side.lost_data == (count < 3)


def test_abandoning() -> None:
    side = engine()
    side.close(1000, "")
    side.abandon(flushed=True)
    assert not lost_data(side)
    assert side.outbox.size == 0
    side.abandon(flushed=False)
    assert lost_data(side)
    side.abandon(flushed=True)
    assert lost_data(side)
    assert phase(side) is CLOSE_SENT

    side = engine()
    send(side, b"a")
    side.abandon(flushed=True)
    assert side.lost_data


def test_discarding_messages() -> None:
    side = engine()
    side.receive(incoming(side, TEXT, b"a") + incoming(side, TEXT, b"b", fin=False))
    side.discard_messages()
    side.receive(incoming(side, CONT, b"c") + incoming(side, TEXT, b"d"))
    assert list(side.messages) == ["d"]
    assert side.queued == 1
    side.discard_messages()
    side.receive(incoming(side, TEXT, b"e", fin=False) + incoming(side, CONT, b"f"))
    assert list(side.messages) == ["ef"]


# Logs


def test_frames_are_traced() -> None:
    received: list[Any] = []
    traced: list[Any] = []
    side = Engine(
        client=True,
        max_size=None,
        trace_received=lambda *frame: received.append(frame),
        trace_sent=lambda *frame: traced.append(frame),
    )
    send(side, b"a", TEXT, fin=False)
    side.send_ping(b"p")
    side.receive(incoming(side, PING, b"q") + incoming_close(side, 1000))
    assert received == [(PING, b"q", 1, True), (CLOSE, b"\x03\xe8", 2, True)]
    # As they are: what masking makes of them tells nobody anything.
    assert traced == [
        (TEXT, b"a", 1, False),
        (PING, b"p", 1, True),
        (PONG, b"q", 1, True),
        (CLOSE, b"\x03\xe8", 2, True),
    ]


# The table


def test_each_step_is_one_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the engine does to its phase, at random, is what the table says."""
    taken: set[tuple[Phase, Phase]] = set()
    rng = random.Random(6455)
    for _ in range(2000):
        side = engine()
        steps: list[Any] = [
            lambda side: send(side, b"a"),
            lambda side: side.send_ping(b""),
            finish,
            lambda side: side.close(1000, ""),
            lambda side: side.fail(1011, "", None),
            lambda side: side.lose(OSError()),
            lambda side: side.receive(incoming(side, TEXT, b"a")),
            lambda side: side.receive(incoming(side, PING)),
            lambda side: side.receive(incoming_close(side, 1000)),
            lambda side: side.receive(b"\xff\xff"),
            lambda side: side.act_on_violation(),
            lambda side: side.receive_eof(),
        ]
        for _ in range(6):
            before = phase(side)
            try:
                rng.choice(steps)(side)
            except ProtocolError:
                assert phase(side) is before
            taken.add((before, phase(side)))
    single = {(here, there) for (here, _), there in TABLE.items()}
    same = {(each, each) for each in REACHABLE}
    # A close frame that comes is answered in the same step.
    assert taken - single - same == {
        (OPEN, FINISHING),
        (OPEN, CLOSE_DONE),
        (FINISHING, CLOSE_DONE),
    }
    assert taken >= {
        (OPEN, FINISHING),
        (FINISHING, CLOSE_SENT),
        (FINISHING, FAILED),
        (OPEN, CLOSE_SENT),
        (OPEN, FAILED),
        (CLOSE_SENT, CLOSE_DONE),
        (CLOSE_SENT, FAILED),
        (CLOSE_DONE, CLOSED),
        (CLOSE_DONE, FAILED),
    }


@ROLES
def test_messages_are_gathered_while_somebody_is_about_to_write(client: bool) -> None:
    side = engine(client=client)
    assert not side.queue_behind("nobody writes", True)
    side.outbox.batch_limit = 1000
    assert side.queue_behind("fürst", True)
    assert side.queue_behind(bytes(900), True)
    waits = side.outbox.size
    assert not side.queue_behind(bytes(1000 - waits - MAX_HEADER), True)
    for other in (bytearray(1), memoryview(b"1"), iter("1"), None):
        assert not side.queue_behind(other, True)
    with pytest.raises(UnicodeEncodeError):
        side.queue_behind("\ud800", True)
    assert side.outbox.size == waits
    assert side.queue_behind(bytes(1000 - waits - MAX_HEADER - 1), True)
    side.close(1000, "")
    side.outbox.batch_limit = 2000
    assert not side.queue_behind("after the close frame", True)
    frames = wire.parse_stream(take(side), masked=client)
    assert [frame.opcode for frame in frames] == [TEXT, BINARY, BINARY, CLOSE]
    assert frames[0].data == "fürst".encode()


def test_no_memory_to_decode_a_text_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> str:
        raise MemoryError

    side = engine(client=True)
    text = "x" * 2000 + "\U0001f600"
    side.receive(incoming(side, TEXT, text.encode(), fin=False))
    side.receive(incoming(side, CONT, b""))
    assert type(side.messages[0]) is WideText
    queued = side.queued
    monkeypatch.setattr(WideText, "decode", fails, raising=False)
    with pytest.raises(MemoryError):
        side.pop()
    monkeypatch.undo()
    assert side.queued == queued
    assert side.pop() == text
    assert side.queued == 0
