"""What goes out: in which order, in which pieces."""

from __future__ import annotations

import random
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.memory import counts_references
from tests.peers import wire
from trio_ws._protocol.frames.memory import PIECE_SIZE
from trio_ws._protocol.frames.outbox import MAX_PONGS, Outbox, frame_size


def take(outbox: Outbox, count: int, limit: int = 2**16) -> bytes:
    """Take ``count`` bytes, as a socket whose buffer is nearly full would."""
    taken = b"".join(outbox.next_buffers(limit))[:count]
    outbox.consume(len(taken))
    return taken


def take_all(outbox: Outbox) -> bytes:
    taken = b""
    while outbox.size:
        more = take(outbox, outbox.size)
        assert more
        taken += more
    return taken


def test_frame_size() -> None:
    assert frame_size(b"abc") == 3
    assert frame_size((b"abc", b"defg")) == 7
    assert frame_size((b"abc", b"de", b"defg", 1)) == 7


def test_an_empty_outbox() -> None:
    outbox = Outbox()
    assert outbox.next_buffers(100) == []
    assert outbox.size == outbox.bytes_written == 0
    assert not outbox.holds_data(None)
    assert not outbox.waits(b"frame")
    outbox.consume(0)
    outbox.drop()
    assert outbox.size == 0


def test_control_frames_go_before_data() -> None:
    outbox = Outbox()
    outbox.push(b"data1 ")
    outbox.push((b"head2 ", b"body2 "))
    outbox.push_control(b"ping1 ")
    outbox.put_pong(b"pong ")
    outbox.push_control(b"ping2 ")
    assert outbox.size == 35
    assert b"".join(outbox.next_buffers(100)) == b"ping1 ping2 pong data1 head2 body2 "
    assert outbox.size == 35  # nothing is removed until it is taken
    assert take_all(outbox) == b"ping1 ping2 pong data1 head2 body2 "
    assert outbox.bytes_written == 35


@pytest.mark.parametrize("cut", range(1, 12))
def test_nothing_comes_between_the_halves_of_a_frame(cut: int) -> None:
    outbox = Outbox()
    outbox.push((b"head1 ", b"body1 "))
    assert take(outbox, cut) == b"head1 body1 "[:cut]
    outbox.push(b"data2 ")
    outbox.push_control(b"ping ")
    outbox.put_pong(b"pong ")
    assert take_all(outbox) == b"head1 body1 "[cut:] + b"ping pong data2 "


def test_a_control_frame_under_way_is_finished_first() -> None:
    outbox = Outbox()
    outbox.push_control(b"ping1 ")
    assert take(outbox, 2) == b"pi"
    outbox.push_control(b"ping2 ")
    assert take_all(outbox) == b"ng1 ping2 "


def test_only_the_newest_pongs_go_out() -> None:
    outbox = Outbox()
    pongs = [b"pong%02d" % i for i in range(MAX_PONGS + 10)]
    for i, pong in enumerate(pongs, 1):
        outbox.put_pong(pong)
        assert outbox.size == 6 * min(i, MAX_PONGS)
    assert take_all(outbox) == b"".join(pongs[10:])
    outbox.put_pong(b"pong")
    assert take_all(outbox) == b"pong"


def test_a_pong_under_way_is_not_dropped() -> None:
    outbox = Outbox()
    outbox.put_pong(b"first ")
    assert take(outbox, 1) == b"f"
    pongs = [b"pong%02d" % i for i in range(MAX_PONGS + 1)]
    for pong in pongs:
        outbox.put_pong(pong)
    assert outbox.size == 5 + 6 * MAX_PONGS
    assert take_all(outbox) == b"irst " + b"".join(pongs[1:])


def test_gather_stops_at_the_limit() -> None:
    outbox = Outbox()
    for frame in (b"a" * 4, b"b" * 4, b"c" * 4):
        outbox.push(frame)
    assert b"".join(outbox.next_buffers(12)) == b"aaaabbbbcccc"
    assert b"".join(outbox.next_buffers(11)) == b"aaaabbbb"
    assert b"".join(outbox.next_buffers(8)) == b"aaaabbbb"
    assert b"".join(outbox.next_buffers(7)) == b"aaaa"
    # Never nothing where something waits, or nothing would ever go out.
    assert b"".join(outbox.next_buffers(1)) == b"aaaa"
    # What is under way counts too.
    outbox.consume(1)
    assert b"".join(outbox.next_buffers(7)) == b"aaabbbb"
    assert b"".join(outbox.next_buffers(6)) == b"aaa"
    outbox.push_control(b"pp")
    assert b"".join(outbox.next_buffers(8)) == b"aaapp"


def test_a_large_frame_is_not_copied() -> None:
    payload = b"x" * 2**16
    outbox = Outbox()
    outbox.push((b"head", payload))
    assert outbox.next_buffers(1)[1] is payload
    outbox.consume(4 + 10)
    (rest,) = outbox.next_buffers(1)
    assert isinstance(rest, memoryview)
    assert rest.obj is payload
    assert rest.nbytes == 2**16 - 10


@counts_references
@pytest.mark.parametrize("masked", [False, True])
def test_what_went_out_is_not_kept_alive(masked: bool) -> None:
    payload = b"x" * (2**16 + 1)
    count = sys.getrefcount(payload)
    outbox = Outbox()
    outbox.push(masked_frame(payload) if masked else (b"head", payload))
    assert sys.getrefcount(payload) > count
    assert len(take_all(outbox)) == 4 + 2**16 + 1
    assert sys.getrefcount(payload) == count


KEY = int.from_bytes(wire.KEY, "little")


def masked_frame(payload: bytes) -> tuple[bytes, bytes, bytes, int]:
    return b"head", wire.xor(payload[:PIECE_SIZE], wire.KEY), payload, KEY


@pytest.mark.parametrize("size", [PIECE_SIZE + 1, 2 * PIECE_SIZE, 3 * PIECE_SIZE - 1])
@pytest.mark.parametrize("step", [70_001, 2**20])
def test_a_very_large_frame_is_masked_as_it_goes_out(size: int, step: int) -> None:
    payload = random.Random(size).randbytes(size)
    outbox = Outbox()
    outbox.push(b"before")
    outbox.push(masked_frame(payload))
    outbox.push(b"after")
    total = outbox.size
    assert total == 6 + 4 + size + 5
    stream = take(outbox, 6)
    while outbox.size:
        if len(stream) == 6 + 4 + 10:
            outbox.push_control(b"ping")
        # At first within the header, then within the first piece.
        stream += take(outbox, {6: 2, 8: 12}.get(len(stream), step))
        assert outbox.size + outbox.bytes_written == total + 4 * (len(stream) > 20)
        assert sum(map(len, outbox.next_buffers(2**30))) <= 4 + PIECE_SIZE + 9
    assert stream == b"beforehead" + wire.xor(payload, wire.KEY) + b"pingafter"


def test_a_very_large_frame_that_is_dropped() -> None:
    payload = bytes(2 * PIECE_SIZE)
    expected = b"head" + wire.xor(payload, wire.KEY)
    for taken in (0, 1, 4, 5, PIECE_SIZE, PIECE_SIZE + 4, len(expected) - 1):
        outbox = Outbox()
        outbox.push(masked_frame(payload))
        outbox.push(b"after")
        stream = b""
        while len(stream) < taken:
            stream += take(outbox, taken - len(stream))
        assert outbox.holds_data(None)
        outbox.drop()
        left = len(expected) - taken if taken else 0
        assert outbox.size == left
        assert outbox.holds_data(None) == bool(left)
        outbox.push(b"close")
        assert stream + take_all(outbox) == (expected if taken else b"") + b"close"
        assert not outbox.holds_data(None)


@pytest.mark.parametrize("large", [False, True])
def test_discard_keeps_nothing(large: bool) -> None:
    outbox = Outbox()
    outbox.push(masked_frame(bytes(2 * PIECE_SIZE)) if large else (b"head", b"body"))
    outbox.push(b"data")
    take(outbox, 2)
    outbox.push_control(b"ping")
    outbox.put_pong(b"pong")
    outbox.discard()
    assert outbox.size == 0
    assert not outbox.holds_data(None)
    assert outbox.next_buffers(1) == []
    assert outbox.bytes_written == 2


def test_drop_keeps_the_frame_under_way() -> None:
    outbox = Outbox()
    outbox.push((b"head1 ", b"body1 "))
    outbox.push(b"data2 ")
    take(outbox, 8)
    outbox.push_control(b"ping ")
    outbox.put_pong(b"pong ")
    outbox.drop()
    assert outbox.size == 4
    outbox.push(b"close ")
    assert outbox.size == 10
    assert take_all(outbox) == b"dy1 close "


def test_drop_forgets_all_that_has_not_begun() -> None:
    outbox = Outbox()
    outbox.push(b"data")
    outbox.push_control(b"ping")
    outbox.put_pong(b"pong")
    outbox.drop()
    assert outbox.size == 0
    assert outbox.next_buffers(100) == []


def test_waits() -> None:
    ping, close = b"".join([b"pi", b"ng"]), b"".join([b"clo", b"se"])
    outbox = Outbox()
    outbox.push(b"data")
    outbox.push_control(b"".join([b"pi", b"ng"]))
    outbox.push_control(ping)
    assert outbox.waits(ping)
    # Another frame of the same bytes is another frame.
    assert not outbox.waits(b"".join([b"pi", b"ng"]))
    assert not outbox.waits(close)
    outbox.push(close)
    assert outbox.waits(close)
    take(outbox, 5)  # of the second ping one byte
    assert not outbox.waits(ping)
    assert outbox.waits(close)
    take(outbox, 3 + 4)
    assert outbox.waits(close)
    take(outbox, 1)
    assert not outbox.waits(close)


def test_holds_data() -> None:
    close = b"".join([b"clo", b"se"])
    outbox = Outbox()
    outbox.push_control(b"ping")
    outbox.put_pong(b"pong")
    assert not outbox.holds_data(None)
    assert take(outbox, 6) == b"pingpo"
    assert not outbox.holds_data(None)
    take_all(outbox)

    outbox.push(b"data")
    assert outbox.holds_data(None)
    outbox.push(close)
    assert outbox.holds_data(close)
    take(outbox, 3)
    assert outbox.holds_data(close)
    take(outbox, 1)
    assert not outbox.holds_data(close)


def test_a_close_frame_under_way_is_no_data() -> None:
    # Or a connection would be said to have lost messages that all went out.
    close = b"".join([b"clo", b"se"])
    outbox = Outbox()
    outbox.push(b"data")
    outbox.push(close)
    take(outbox, 4 + 2)
    assert not outbox.holds_data(close)
    outbox.drop()
    assert take_all(outbox) == b"ose"


def test_a_flood_of_pings_is_answered_in_constant_memory() -> None:
    outbox = Outbox()
    outbox.push(b"data")
    for _ in range(10_000):
        outbox.put_pong(b"p" * 127)
    assert outbox.size == 4 + 127 * MAX_PONGS
    assert len(outbox.next_buffers(2**16)) == 1 + MAX_PONGS


@given(
    st.lists(st.sampled_from(["data", "large", "ping", "pong", "take"]), max_size=40),
    st.randoms(use_true_random=False),
)
def test_frames_stay_whole_and_in_order(actions: list[str], rng: random.Random) -> None:
    outbox = Outbox()
    data: list[bytes] = []
    pings: list[bytes] = []
    pongs: list[bytes] = []
    stream = b""
    for number, action in enumerate(actions):
        # Each frame says where it begins and ends.
        frame = b"<%s %d>" % (action.encode(), number)
        if action == "take":
            count = rng.randrange(outbox.size + 1)
            stream += take(outbox, count, limit=rng.randrange(40))
        elif action == "ping":
            pings.append(frame)
            outbox.push_control(frame)
        elif action == "pong":
            pongs.append(frame)
            outbox.put_pong(frame)
        else:
            data.append(frame)
            outbox.push(frame if action == "data" else (frame[:3], frame[3:]))
        assert outbox.size == sum(len(each) for each in outbox.next_buffers(10**6))
    stream += take_all(outbox)
    assert outbox.bytes_written == len(stream)
    frames = [part + b">" for part in stream.split(b">")[:-1]]
    assert [each for each in frames if b"pong" not in each and b"ping" not in each] == (
        data
    )
    assert [each for each in frames if b"ping" in each] == pings
    answered = [each for each in frames if b"pong" in each]
    assert answered == [each for each in pongs if each in answered]
    assert answered[-MAX_PONGS:] == pongs[-MAX_PONGS:]
