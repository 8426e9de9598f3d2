"""Closing: codes, payloads, the table, and a search over what it allows."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import pytest
import websockets.frames
from hypothesis import given
from hypothesis import strategies as st

from trio_ws._protocol.closing import (
    DEAF,
    FINAL,
    OK_CODES,
    TABLE,
    UNCLOSED,
    Close,
    CloseCode,
    Event,
    Phase,
    State,
    close_or_none,
    close_payload,
    is_sendable,
)
from trio_ws._protocol.opcodes import MAX_CONTROL_PAYLOAD

OPEN = Phase.OPEN
FINISHING = Phase.FINISHING
CLOSE_SENT = Phase.CLOSE_SENT
CLOSE_RECEIVED = Phase.CLOSE_RECEIVED
CLOSE_DONE = Phase.CLOSE_DONE
FAILED = Phase.FAILED
CLOSED = Phase.CLOSED


def test_names_of_the_rfc() -> None:
    assert [state.name for state in sorted(State)] == [
        "CONNECTING",
        "OPEN",
        "CLOSING",
        "CLOSED",
    ]
    assert list(State) == [0, 1, 2, 3]


# Each row: the events of one phase that are allowed, and where they lead.
ALLOWED = {
    # Set by whoever does the opening handshake, not by an event.
    Phase.CONNECTING: {},
    OPEN: {
        "SEND_DATA": OPEN,
        "SEND_CONTROL": OPEN,
        "RECV_DATA": OPEN,
        "RECV_CONTROL": OPEN,
        "SEND_CLOSE": CLOSE_SENT,
        "RECV_CLOSE": CLOSE_RECEIVED,
        "EOF": FAILED,
        "FAIL": FAILED,
    },
    # The fragments of a message that has begun, and nothing else of the user's. Set by
    # who wants to close.
    FINISHING: {
        "SEND_DATA": FINISHING,
        "RECV_DATA": FINISHING,
        "RECV_CONTROL": FINISHING,
        "SEND_CLOSE": CLOSE_SENT,
        "RECV_CLOSE": CLOSE_RECEIVED,
        "EOF": FAILED,
        "FAIL": FAILED,
    },
    # RFC 6455, section 5.5.1: "The application MUST NOT send any more data
    # frames after sending a Close frame", and no pong either.
    CLOSE_SENT: {
        "RECV_DATA": CLOSE_SENT,
        "RECV_CONTROL": CLOSE_SENT,
        "RECV_CLOSE": CLOSE_DONE,
        "EOF": FAILED,
        "FAIL": FAILED,
    },
    CLOSE_RECEIVED: {"SEND_CLOSE": CLOSE_DONE, "EOF": FAILED, "FAIL": FAILED},
    CLOSE_DONE: {"EOF": CLOSED, "FAIL": FAILED},
    FAILED: {},
    CLOSED: {},
}


@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize("event", list(Event))
def test_each_entry(phase: Phase, event: Event) -> None:
    assert TABLE.get((phase, event)) is ALLOWED[phase].get(event.name)


def test_sets_of_phases() -> None:
    assert {phase for phase in Phase if not ALLOWED[phase]} == {
        Phase.CONNECTING,
        *FINAL,
    }
    receiving = {Event.RECV_DATA, Event.RECV_CONTROL, Event.RECV_CLOSE}
    hearing = {phase for phase, event in TABLE if event in receiving}
    assert set(Phase) - hearing == {Phase.CONNECTING, *DEAF}


IN_FLIGHT = 3

DATA, CONTROL, CLOSE, EOF = "data", "control", "close", "eof"
RECEIVED = {
    DATA: Event.RECV_DATA,
    CONTROL: Event.RECV_CONTROL,
    CLOSE: Event.RECV_CLOSE,
    EOF: Event.EOF,
}


class Side(NamedTuple):
    phase: Phase = OPEN
    sent_close: bool = False
    rcvd_close: bool = False
    ended: bool = False  # its own stream
    saw_end: bool = False  # of the peer's
    failed: bool = False  # gave up of its own accord


class Joint(NamedTuple):
    """Two sides and what is under way from each."""

    sides: tuple[Side, Side] = (Side(), Side())
    wires: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())

    def changed(
        self, who: int, side: Side, sent: tuple[str, ...], taken: int = 0
    ) -> Joint:
        sides = list(self.sides)
        wires = list(self.wires)
        sides[who] = side
        wires[who] += sent
        wires[1 - who] = wires[1 - who][taken:]
        return Joint((sides[0], sides[1]), (wires[0], wires[1]))


class Illegal(Exception):
    """A side received what the table has no entry for."""


def choices(joint: Joint, who: int, *, failures: bool) -> Iterator[Joint]:
    """Yield what a side may do and need not."""
    side = joint.sides[who]
    room = len(joint.wires[who]) < IN_FLIGHT
    if side.ended or not room:
        return
    for event, what in (
        (Event.SEND_DATA, DATA),
        (Event.SEND_CONTROL, CONTROL),
        (Event.SEND_CLOSE, CLOSE),
    ):
        phase = TABLE.get((side.phase, event))
        if phase is not None and not (what == CLOSE and side.rcvd_close):
            after = side._replace(
                phase=phase, sent_close=side.sent_close or what == CLOSE
            )
            yield joint.changed(who, after, (what,))
    if side.phase is OPEN:
        yield joint.changed(who, side._replace(phase=FINISHING), ())
    fail = TABLE.get((side.phase, Event.FAIL))
    if failures and fail is not None:
        # With a close frame, where none was sent, and without, as when the
        # connection is lost.
        after = side._replace(phase=fail, failed=True)
        yield joint.changed(who, after._replace(ended=True), (EOF,))
        if not side.sent_close:
            yield joint.changed(who, after._replace(sent_close=True), (CLOSE,))


def duties(joint: Joint, who: int, *, server: bool) -> Iterator[Joint]:
    """Yield what a side does as soon as it can."""
    side = joint.sides[who]
    room = len(joint.wires[who]) < IN_FLIGHT
    incoming = joint.wires[1 - who]
    if incoming:
        what = incoming[0]
        if what != EOF and side.phase in DEAF:
            yield joint.changed(who, side, (), taken=1)
        else:
            phase = TABLE.get((side.phase, RECEIVED[what]))
            if phase is None and side.phase not in FINAL:
                raise Illegal(f"{what} in {side}")
            after = side._replace(
                phase=side.phase if phase is None else phase,
                rcvd_close=side.rcvd_close or what == CLOSE,
                saw_end=side.saw_end or what == EOF,
            )
            yield joint.changed(who, after, (), taken=1)
    if side.phase in (FINISHING, CLOSE_RECEIVED) and room:
        phase = TABLE[side.phase, Event.SEND_CLOSE]
        yield joint.changed(who, side._replace(phase=phase, sent_close=True), (CLOSE,))
    # RFC 6455, section 7.1.1: the server ends its stream first.
    may_end = side.phase in FINAL or (side.phase is CLOSE_DONE and server)
    if may_end and not side.ended and room:
        yield joint.changed(who, side._replace(ended=True), (EOF,))


def explore(*, failures: bool) -> dict[Joint, tuple[list[Joint], list[Joint]]]:
    """Find all joint states, each with where choices and duties lead."""
    start = Joint()
    found: dict[Joint, tuple[list[Joint], list[Joint]]] = {}
    waiting = deque([start])
    while waiting:
        joint = waiting.popleft()
        if joint in found:
            continue
        free = [s for who in (0, 1) for s in choices(joint, who, failures=failures)]
        due = [s for who in (0, 1) for s in duties(joint, who, server=who == 1)]
        found[joint] = (free, due)
        waiting.extend(free + due)
    return found


# A search over two sides that obey the table. A side is its phase, the close
# frames it has sent and received, whether its own stream has ended; between
# them are frames under way, at most IN_FLIGHT in each direction.


@pytest.mark.parametrize("failures", [False, True])
def test_no_joint_state_is_illegal(failures: bool) -> None:
    found = explore(failures=failures)  # raises Illegal
    assert len(found) > (2000 if failures else 300)
    phases = {(a.phase, b.phase) for (a, b), _ in found}
    assert (CLOSED, CLOSED) in phases
    for joint in found:
        for side, other in (joint.sides, joint.sides[::-1]):
            # Closed in good order: both close frames came where they should.
            if side.phase in (CLOSE_DONE, CLOSED):
                assert side.sent_close
                assert side.rcvd_close
                assert other.sent_close
            if side.phase is CLOSED:
                assert other.ended
            if not failures:
                assert side.phase is not FAILED
        for wire in joint.wires:
            # Nothing follows a close frame but the end.
            if CLOSE in wire:
                assert set(wire[wire.index(CLOSE) + 1 :]) <= {EOF}
            if EOF in wire:
                assert wire.index(EOF) == len(wire) - 1


@pytest.mark.parametrize("failures", [False, True])
def test_no_joint_state_is_stuck(failures: bool) -> None:
    """Where nothing has to be done, all is done or nothing has ended yet."""
    found = explore(failures=failures)
    for joint, (_, due) in found.items():
        if due:
            continue
        assert joint.wires == ((), ())
        phases = {side.phase for side in joint.sides}
        if phases != {OPEN}:
            assert phases <= FINAL
            assert all(side.ended for side in joint.sides)
            assert all(side.saw_end for side in joint.sides)


def test_once_closing_begins_duty_alone_leads_to_the_end() -> None:
    found = explore(failures=True)
    # Each duty takes a frame off a wire or brings a side nearer to its end, so
    # following duties alone ends; how far it can be is bounded.
    distance: dict[Joint, int] = {}

    def steps(joint: Joint) -> int:
        if joint not in distance:
            _, due = found[joint]
            distance[joint] = 1 + max(map(steps, due), default=-1)
        return distance[joint]

    assert max(map(steps, found)) <= 2 * IN_FLIGHT + 2 * 5


def test_without_failures_both_sides_end_closed() -> None:
    found = explore(failures=False)
    ends = {joint.sides for joint, (free, due) in found.items() if not due and not free}
    assert {side.phase for sides in ends for side in sides} == {CLOSED}


def test_the_search_finds_a_hole(monkeypatch: pytest.MonkeyPatch) -> None:
    # Data may come after our close frame; a table without that is wrong.
    monkeypatch.delitem(TABLE, (CLOSE_SENT, Event.RECV_DATA))
    with pytest.raises(Illegal, match="data in"):
        explore(failures=False)


def test_close_codes() -> None:
    assert {code.name: code.value for code in CloseCode} == {
        code.name: code.value for code in websockets.frames.CloseCode
    }
    assert {1000, 1001, 1005} == OK_CODES


def test_a_close_frame_of_ours_may_be_first_where_none_has_come() -> None:
    may_send = {phase for phase, event in TABLE if event is Event.SEND_CLOSE}
    assert may_send - {CLOSE_RECEIVED} == UNCLOSED


def test_which_codes_are_sendable() -> None:
    # RFC 6455, section 7.4, and the registry of IANA
    sendable = {*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}
    assert {code for code in range(-1, 2**16 + 1) if is_sendable(code)} == sendable


@pytest.mark.parametrize(
    ("close", "text"),
    [
        (Close(1000), "1000 (OK)"),
        (Close(1001, "bye"), "1001 (going away) bye"),
        (Close(1005), "1005 (no status received [internal])"),
        (Close(1011, "oops"), "1011 (internal error) oops"),
        (Close(1016), "1016 (unknown)"),
        (Close(2999), "2999 (unknown)"),
        (Close(3000, "a"), "3000 (registered) a"),
        (Close(3999), "3999 (registered)"),
        (Close(4000), "4000 (private use)"),
        (Close(4999), "4999 (private use)"),
        (Close(5000), "5000 (unknown)"),
        (Close(1000, "a\r\nb\x1b[0m"), r"1000 (OK) a\r\nb\x1b[0m"),
    ],
)
def test_close_as_text(close: Close, text: str) -> None:
    assert str(close) == text


@given(st.integers(0, 2**16 - 1), st.text(max_size=40).filter(str.isprintable))
def test_close_as_text_is_that_of_websockets(code: int, reason: str) -> None:
    assert str(Close(code, reason)) == str(websockets.frames.Close(code, reason))


@pytest.mark.parametrize(
    ("code", "reason", "payload"),
    [
        (1000, "", b"\x03\xe8"),
        (CloseCode.GOING_AWAY, "", b"\x03\xe9"),
        (4999, "é", b"\x13\x87\xc3\xa9"),
        (1000, "é" * 61 + "a", b"\x03\xe8" + b"\xc3\xa9" * 61 + b"a"),
    ],
)
def test_close_payload(code: int, reason: str, payload: bytes) -> None:
    assert close_payload(code, reason) == payload
    assert len(payload) <= MAX_CONTROL_PAYLOAD


@pytest.mark.parametrize(
    ("code", "reason", "message"),
    [
        (1005, "", r"close code: expected 1000 to 1003, .*; got 1005"),
        (1004, "", r"got 1004"),
        (-1, "", r"got -1"),
        (70000, "", r"got 70000"),
        (1000, "a\rb", r"close reason: expected no CR, LF or NUL; got 'a\\rb'"),
        (1000, "a\nb", r"no CR, LF or NUL"),
        (1000, "a\0b", r"no CR, LF or NUL"),
        (1000, "é" * 62, r"close reason: expected at most 123 bytes.*; got 124"),
        (1000, "\ud800", r"surrogates not allowed"),
    ],
)
def test_close_payload_of_wrong_values(code: int, reason: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        close_payload(code, reason)


@pytest.mark.parametrize(
    ("code", "reason", "message"),
    [
        ("1000", "", "close code: expected int; got str"),
        (1000, b"bye", "close reason: expected str; got bytes"),
        (1000, None, "close reason: expected str; got NoneType"),
    ],
)
def test_close_payload_of_wrong_types(code: int, reason: str, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        close_payload(code, reason)


def test_a_payload_that_no_close_frame_may_carry() -> None:
    assert close_or_none(b"\x03\xf0why") == Close(1008, "why")
    assert close_or_none(b"\x03") is None
