"""The message under construction, and large payloads, which stay in place."""

from __future__ import annotations

import gc
import os
from typing import Any

import pytest

from tests.peers import wire
from tests.peers.wire import BINARY, CONT, PING, TEXT
from tests.protocol import pure
from tests.protocol.both import in_use
from tests.protocol.frames.decoding import BAD_TEXT, BOTH, decoder, frame
from trio_ws._protocol.errors import PayloadTooBig
from trio_ws._protocol.frames import partial
from trio_ws._protocol.frames.decoder import Decoder, Item


def in_message(target: Decoder) -> bool:
    # A function, since mypy takes it that a property stays what it was.
    return target.in_message


# The message under construction


@BOTH
def test_pieces_of_a_text(masked: bool) -> None:
    text = "aé€😀" * 3
    stream = frame(TEXT, text.encode()[:11], fin=False, masked=masked)
    stream += frame(PING, b"p", masked=masked)
    stream += frame(CONT, text.encode()[11:], masked=masked)
    for size in range(1, len(stream)):
        target = decoder(masked=masked)
        pieces: list[str | bytes] = []
        items: list[Item] = []
        for i in range(0, len(stream), size):
            items += target.feed(stream[i : i + size])
            if in_message(target):
                waiting = target.partial_size
                pieces.append(target.take_partial())
                assert isinstance(pieces[-1], str)
                # What stays is less than a character.
                assert target.partial_size < 4
                assert len(pieces[-1].encode()) + target.partial_size == waiting
                assert target.take_partial() == ""
        assert items[0] == (PING, b"p")
        (last,) = items[1:]
        assert isinstance(last, str)
        assert "".join(map(str, pieces)) + last == text
        assert not in_message(target)
        assert target.partial_size == 0


def test_pieces_of_a_binary_message() -> None:
    target = decoder()
    assert not in_message(target)
    assert target.feed(frame(BINARY, b"\xff\xfe", fin=False)) == []
    assert in_message(target)
    assert target.partial_size == 2
    assert target.take_partial() == b"\xff\xfe"
    assert target.partial_size == 0
    assert target.take_partial() == b""
    assert target.feed(frame(CONT, b"abc")[:4]) == []
    assert target.take_partial() == b"ab"
    assert target.feed(b"c") == [b"c"]
    assert not in_message(target)
    assert target.feed(frame(BINARY, b"next")) == [b"next"]


def test_what_was_taken_still_counts() -> None:
    # Position of what is invalid, and size, are those of the whole message.
    target = decoder(max_size=10)
    target.feed(frame(TEXT, b"abc\xe2\x82", fin=False))
    assert target.take_partial() == "abc"
    assert target.partial_size == 2
    (exc,) = target.feed(frame(CONT, b"("))
    assert str(exc) == BAD_TEXT.format("invalid continuation byte", 3)

    target = decoder(max_size=10)
    target.feed(frame(TEXT, b"x" * 8, fin=False))
    target.take_partial()
    (exc,) = target.feed(frame(CONT, b"abc"))
    assert isinstance(exc, PayloadTooBig)
    assert in_message(target)


@pytest.mark.parametrize("cut", range(2, 16))
def test_the_rest_of_a_message_is_discarded(cut: int) -> None:
    stream = frame(TEXT, "né".encode(), fin=False)
    stream += frame(PING, b"p") + frame(CONT, "né".encode() * 2)
    target = decoder()
    items = target.feed(stream[:cut])
    assert in_message(target)
    target.discard_partial()
    assert target.partial_size == 0
    assert target.take_partial() == ""
    items += target.feed(stream[cut:])
    assert items == [(PING, b"p")]
    assert not in_message(target)
    # The next ones come, whole or in fragments.
    assert target.feed(frame(TEXT, b"a")) == ["a"]
    assert target.feed(frame(TEXT, b"b", fin=False) + frame(CONT, b"c")) == ["bc"]


def test_a_message_that_is_discarded_still_has_to_obey_the_rules() -> None:
    target = decoder(max_size=10)
    target.feed(frame(TEXT, b"abc", fin=False))
    target.discard_partial()
    assert target.feed(frame(CONT, b"", fin=False)) == []
    (exc,) = target.feed(frame(CONT, b"\xff"))
    assert str(exc) == BAD_TEXT.format("invalid start byte", 3)

    target = decoder(max_size=10)
    target.feed(frame(BINARY, b"abc", fin=False))
    target.discard_partial()
    (exc,) = target.feed(frame(CONT, b"x" * 8))
    assert isinstance(exc, PayloadTooBig)


def test_discarding_keeps_nothing() -> None:
    target = decoder()
    target.feed(wire.header(BINARY, 10_000) + b"x" * 10)
    target.discard_partial()
    for _ in range(9):
        assert target.feed(b"x" * 1000) == []
        assert target.partial_size == 0
    assert target.feed(b"x" * 990) == []
    assert not in_message(target)


LARGE = 32 * 1024


# Large payloads, received where they stay


@pytest.fixture
def in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Receive them so, also where that's slower than to copy."""
    monkeypatch.setattr(partial, "IN_PLACE", True)


@pytest.mark.usefixtures("in_place")
@BOTH
@pytest.mark.parametrize("size", [LARGE, LARGE + 3, 300_001])
@pytest.mark.parametrize("begun", [0, 1, 2, 3, 1000])
@pytest.mark.parametrize("step", [1001, 2**20])
def test_a_large_payload(masked: bool, size: int, begun: int, step: int) -> None:
    payload = os.urandom(size)
    stream = frame(BINARY, payload, masked=masked)
    seen: list[Any] = []
    target = decoder(masked=masked, trace=lambda *args: seen.append(args))
    head = len(stream) - size + begun
    assert target.feed(stream[:head]) == []
    assert target.space() is not None
    assert target.where() == f"after {begun} of the {size} bytes of a frame's payload"
    items: list[Item] = []
    for at in range(head, len(stream), step):
        assert target.partial_size == at - head + begun
        items += wire.put(target, target.feed, stream[at : at + step])
    assert items == [payload]
    assert seen == [(BINARY, payload[:100], size, True)]
    assert target.space() is None
    assert target.feed(frame(TEXT, b"next", masked=masked)) == ["next"]


@pytest.mark.usefixtures("in_place")
@BOTH
def test_large_fragments(masked: bool) -> None:
    first, second, last = os.urandom(40_001), os.urandom(10), os.urandom(200_003)
    stream = frame(BINARY, first, fin=False, masked=masked)
    stream += frame(CONT, second, fin=False, masked=masked)
    stream += frame(PING, b"p", masked=masked)
    stream += frame(CONT, last, masked=masked)
    for size in (997, 60_000, len(stream)):
        target = decoder(masked=masked)
        items: list[Item] = []
        for at in range(0, len(stream), size):
            items += wire.put(target, target.feed, stream[at : at + size])
        assert items == [(PING, b"p"), first + second + last]


@pytest.mark.usefixtures("in_place")
def test_space_and_feeding_take_turns() -> None:
    payload = os.urandom(100_000)
    stream = frame(BINARY, payload, masked=True)
    target = decoder(masked=True)
    items: list[Item] = []
    for number, at in enumerate(range(0, len(stream), 777)):
        piece = stream[at : at + 777]
        items += (
            target.feed(piece) if number % 2 else wire.put(target, target.feed, piece)
        )
    assert items == [payload]


@pytest.mark.usefixtures("in_place")
def test_a_payload_larger_than_one_part() -> None:
    # So that the peer's word alone takes no more memory.
    payload = os.urandom(1000) * (2**24 // 1000 + 100)
    stream = frame(BINARY, payload)
    assert decoder().feed(stream) == [payload]
    target = decoder()
    assert target.feed(stream[:10]) == []
    assert wire.put(target, target.feed, stream[10:]) == [payload]


@pytest.mark.usefixtures("in_place")
@pytest.mark.parametrize(
    ("opcode", "size", "space"),
    [(BINARY, LARGE, True), (BINARY, LARGE - 1, False), (TEXT, LARGE, False)],
)
def test_where_there_is_space(opcode: int, size: int, space: bool) -> None:
    target = decoder()
    assert target.feed(frame(opcode, b"x" * size)[:100]) == []
    assert (target.space() is not None) == space


@pytest.mark.usefixtures("in_place")
@BOTH
@pytest.mark.parametrize("whole", [False, True])
def test_a_large_payload_that_is_taken_or_discarded(masked: bool, whole: bool) -> None:
    payload = os.urandom(100_000)
    stream = frame(BINARY, payload, masked=masked)
    stream += frame(TEXT, b"next", masked=masked)
    for discard in (False, True):
        target = decoder(masked=masked)
        assert wire.put(target, target.feed, stream[:50_001]) == []
        if discard:
            target.discard_partial()
            taken = b""
        else:
            piece = target.take_partial()
            assert isinstance(piece, bytes)
            taken = piece
            assert payload.startswith(taken)
            assert len(taken) > 49_000
        assert target.space() is None
        assert target.partial_size == 0
        items = []
        for at in range(50_001, len(stream), len(stream) if whole else 1234):
            piece = stream[at : at + (len(stream) if whole else 1234)]
            items += wire.put(target, target.feed, piece)
        assert items == (["next"] if discard else [payload[len(taken) :], "next"])


@pytest.mark.usefixtures("in_place")
def test_a_space_outlives_what_it_was_for() -> None:
    # Whoever holds on to it sees no later message, and harms none.
    target = decoder()
    assert target.feed(frame(BINARY, bytes(LARGE))[:100]) == []
    space = target.space()
    assert space is not None
    target.discard_partial()
    with space:
        space[:4] = b"evil"
    assert target.feed(bytes(LARGE) + frame(TEXT, b"next")) != []


@pytest.mark.usefixtures("in_place")
@BOTH
@pytest.mark.parametrize("count", [0, -1, 10**6])
def test_what_does_not_fit_is_not_filled(masked: bool, count: int) -> None:
    target = decoder(masked=masked)
    assert target.feed(frame(BINARY, bytes(LARGE), masked=masked)[:100]) == []
    with pytest.raises(ValueError, match="fits into the space"):
        target.filled(count)


@pytest.mark.parametrize("parts", [0, 1])
def test_no_memory_for_what_may_never_come(
    parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Compiled code can't be made to fail; its copy in Python can.
    masking = pure.load("frames.masking")
    left = parts

    def blank(size: int) -> bytes:
        nonlocal left
        if size == 1000:
            left -= 1
            if left < 0:
                raise MemoryError
        return bytes(size)

    codec = pure.load("frames.decoder")
    monkeypatch.setattr(masking, "blank", blank)
    monkeypatch.setattr(pure.load("frames.partial"), "_LARGEST_ROOM", 1000)
    payload = os.urandom(LARGE)
    stream = frame(BINARY, payload, masked=True)
    for size in (777, len(stream)):
        left = parts
        target = codec.Decoder(masked=True, max_size=None)
        items: list[Item] = []
        for at in range(0, len(stream), size):
            items += wire.put(target, target.feed, stream[at : at + size])
        assert items == [payload]
        assert target.space() is None


def test_where_copying_costs_less_there_is_no_space(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As on PyPy.
    codec = pure.load("frames.decoder")
    monkeypatch.setattr(pure.load("frames.partial"), "IN_PLACE", False)
    payload = os.urandom(3 * LARGE)
    stream = frame(BINARY, payload, masked=True)
    target = codec.Decoder(masked=True, max_size=None)
    items: list[Item] = []
    for at in range(0, len(stream), 777):
        assert target.space() is None
        items += target.feed(stream[at : at + 777])
    assert items == [payload]


def test_a_decoder_that_is_garbage_in_the_middle_of_a_large_payload() -> None:
    # What can't be raised becomes a warning, which is an error here.
    for load in (in_use, pure.load):
        target = load("frames.decoder").Decoder(
            masked=False, max_size=None, trace=lambda *_: None
        )
        cycle = [target]
        cycle.append(cycle)
        assert target.feed(frame(BINARY, bytes(LARGE))[:100]) == []
        del target, cycle
        gc.collect()
