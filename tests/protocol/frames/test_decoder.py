"""Frames as they are read: vectors, violations, costs, what is said of an end."""

from __future__ import annotations

import io
from typing import Any

import pytest

from tests.peers import wire
from tests.peers.wire import BINARY, CLOSE, CONT, KEY, PING, PONG, TEXT
from tests.protocol import pure
from tests.protocol.frames.decoding import BOTH, SHORT_ONES, decoder, feed_bytes, frame
from tests.protocol.violations import VIOLATIONS
from trio_ws._protocol.errors import PayloadTooBig, ProtocolError
from trio_ws._protocol.frames.decoder import Item
from trio_ws._protocol.opcodes import SHORT_FRAGMENT


def _examples() -> list[Any]:
    """List streams and what they hold; those of RFC 6455, section 5.7, in hex."""
    rfc: list[tuple[str, bool, str, list[Item]]] = [
        ("unmasked text", False, "81 05 48 65 6c 6c 6f", ["Hello"]),
        ("masked text", True, "81 85 37 fa 21 3d 7f 9f 4d 51 58", ["Hello"]),
        ("fragments", False, "01 03 48 65 6c 80 02 6c 6f", ["Hello"]),
        ("ping", False, "89 05 48 65 6c 6c 6f", [(PING, b"Hello")]),
        ("pong", True, "8a 85 37 fa 21 3d 7f 9f 4d 51 58", [(PONG, b"Hello")]),
    ]
    found = [
        pytest.param(masked, bytes.fromhex(text), items, id=f"RFC: {name}")
        for name, masked, text, items in rfc
    ]
    ours: list[tuple[str, list[tuple[int, bytes, bool]], list[Item]]] = [
        ("empty text", [(TEXT, b"", True)], [""]),
        ("empty binary", [(BINARY, b"", True)], [b""]),
        ("125", [(BINARY, b"x" * 125, True)], [b"x" * 125]),
        ("126", [(BINARY, b"x" * 126, True)], [b"x" * 126]),
        ("256", [(BINARY, bytes(range(256)), True)], [bytes(range(256))]),
        ("65535", [(BINARY, b"y" * 65535, True)], [b"y" * 65535]),
        ("65536", [(TEXT, b"z" * 65536, True)], ["z" * 65536]),
        ("UTF-8", [(TEXT, "aé€😀".encode(), True)], ["aé€😀"]),
        (
            "UTF-8 cut within a character",
            [
                (TEXT, "😀".encode()[:1], False),
                (CONT, "😀".encode()[1:3], False),
                (CONT, "😀".encode()[3:], True),
            ],
            ["😀"],
        ),
        (
            "binary that isn't UTF-8",
            [(BINARY, b"\xff", False), (CONT, b"\xfe", True)],
            [b"\xff\xfe"],
        ),
        (
            "empty fragments",
            [(TEXT, b"", False), (CONT, b"", False), (CONT, b"", True)],
            [""],
        ),
        (
            "control frames between fragments",
            [
                (TEXT, b"a", False),
                (PING, b"p" * 125, True),
                (CONT, b"b", False),
                (PONG, b"", True),
                (CONT, b"c", True),
                (BINARY, b"d", True),
            ],
            [(PING, b"p" * 125), (PONG, b""), "abc", b"d"],
        ),
        (
            "a close frame in the middle of a message",
            [(TEXT, b"a", False), (CLOSE, b"\x03\xe8bye", True)],
            [(CLOSE, b"\x03\xe8bye")],
        ),
        ("an empty close frame", [(CLOSE, b"", True)], [(CLOSE, b"")]),
    ]
    for name, frames, items in ours:
        for masked in (False, True):
            stream = b"".join(frame(o, p, fin=f, masked=masked) for o, p, f in frames)
            role = "masked" if masked else "unmasked"
            found.append(pytest.param(masked, stream, items, id=f"{name}, {role}"))
    return found


# Decoding: vectors


@pytest.mark.parametrize(("masked", "stream", "items"), _examples())
def test_examples(masked: bool, stream: bytes, items: list[Item]) -> None:
    whole = decoder(masked=masked)
    assert whole.feed(stream) == items
    bytewise = decoder(masked=masked)
    assert feed_bytes(bytewise, stream) == items
    for cut in {1, 2, 3, len(stream) // 2, len(stream) - 1}:
        two = decoder(masked=masked)
        assert two.feed(stream[:cut]) + two.feed(stream[cut:]) == items


@pytest.mark.parametrize(
    ("masked", "stream", "items"),
    [each for each in _examples() if "close" not in str(each.id)],
)
def test_bytes_left_over(masked: bool, stream: bytes, items: list[Item]) -> None:
    following = frame(TEXT, "né".encode() * 80, masked=masked)
    for cut in (1, 2, 3, 5, 8, 20, len(following) - 1):
        target = decoder(masked=masked)
        assert target.feed(stream + following[:cut]) == items
        assert target.feed(following[cut:]) == ["né" * 80]
        assert target.where() == "between two messages"


def test_nothing_behind_a_close_frame_is_looked_at() -> None:
    stream = frame(TEXT, b"a") + frame(CLOSE) + b"\xff" * 10
    assert decoder().feed(stream) == ["a", (CLOSE, b"")]


def test_empty_feeds() -> None:
    target = decoder()
    assert target.feed(b"") == []
    assert target.feed(b"\x81") == []
    assert target.feed(b"") == []
    assert target.feed(b"\x02h") == []
    assert target.feed(b"") == []
    assert target.feed(b"i") == ["hi"]


# Decoding: violations


@pytest.mark.parametrize(
    ("masked", "max_size", "stream", "known_at", "code", "reason"), VIOLATIONS
)
def test_violations(
    masked: bool,
    max_size: int | None,
    stream: bytes,
    known_at: int,
    code: int,
    reason: str,
) -> None:
    def check(items: list[Item], before: list[Item]) -> None:
        *first, exc = items
        assert [each for each in first if type(each) is not tuple] == before
        assert isinstance(exc, ProtocolError)
        assert str(exc) == reason
        assert exc.close_code == code
        assert isinstance(exc, PayloadTooBig) == (code == 1009)
        assert isinstance(exc.__cause__, UnicodeDecodeError) == (code == 1007)

    # All at once, and with garbage behind it.
    check(decoder(masked=masked, max_size=max_size).feed(stream), [])
    check(decoder(masked=masked, max_size=max_size).feed(stream + b"\xff" * 50), [])
    # Behind a message, which is delivered.
    before = frame(BINARY, masked=masked)
    check(decoder(masked=masked, max_size=max_size).feed(before + stream), [b""])
    # No later than it can be known, and no earlier.
    target = decoder(masked=masked, max_size=max_size)
    early = target.feed(stream[: known_at - 1])
    assert not any(isinstance(item, ProtocolError) for item in early)
    check(target.feed(stream[known_at - 1 : known_at]), [])
    # Byte by byte.
    if len(stream) < 1000:
        check(feed_bytes(decoder(masked=masked, max_size=max_size), stream), [])


def test_a_continuation_behind_a_message_is_stray() -> None:
    stream = frame(TEXT, b"a", fin=False) + frame(CONT, b"b") + frame(CONT, b"c")
    first, exc = decoder().feed(stream)
    assert first == "ab"
    assert str(exc) == "continuation frame without a message to continue"


def test_a_message_of_max_size_is_accepted() -> None:
    for cut in range(1, 100):
        stream = frame(BINARY, b"x" * cut, fin=False) + frame(CONT, b"x" * (100 - cut))
        assert decoder(max_size=100).feed(stream) == [b"x" * 100]
    assert decoder(max_size=100).feed(frame(TEXT, b"x" * 100)) == ["x" * 100]
    # Of each message on its own.
    target = decoder(max_size=100)
    assert target.feed(stream * 3 + frame(TEXT, b"x" * 100)) == [
        *[b"x" * 100] * 3,
        "x" * 100,
    ]


def test_only_short_fragments_of_one_message_are_counted() -> None:
    target = decoder()
    assert target.feed(SHORT_ONES) == []
    # Longer ones don't count, nor do control frames.
    longer = frame(CONT, b"x" * SHORT_FRAGMENT, fin=False)
    assert target.feed(longer * 10 + frame(PING, b"a") * 10) == [(PING, b"a")] * 10
    last = frame(CONT, b"y" * SHORT_FRAGMENT)
    assert target.feed(last) == ["x" * (SHORT_FRAGMENT * 10) + "y" * SHORT_FRAGMENT]
    # A new message begins at zero, whole or in fragments.
    assert target.feed(frame(TEXT, b"a")) == ["a"]
    assert target.feed(SHORT_ONES + last) == ["y" * SHORT_FRAGMENT]


class _Counting(io.BytesIO):
    """Counts what is written, to all of its kind."""

    written = 0

    def write(self, data: Any) -> int:
        type(self).written += len(data)
        return super().write(data)


# Counted in Python, of which the compiled code is made.


@pytest.mark.parametrize("total", [30_000, 60_000])
def test_many_fragments_cost_what_they_bring(
    total: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _Counting.written = 0
    monkeypatch.setattr(io, "BytesIO", _Counting)
    payload = b"x" * SHORT_FRAGMENT
    target = pure.load("frames.decoder").Decoder(masked=True, max_size=None)
    assert target.feed(frame(BINARY, payload, fin=False, masked=True)) == []
    target.feed(frame(CONT, payload, fin=False, masked=True) * (total - 2))
    (message,) = target.feed(frame(CONT, payload, masked=True))
    assert message == payload * total
    # Each byte is added to the message once, and the many are one part of it.
    assert _Counting.written == total * SHORT_FRAGMENT


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_short_and_long_fragments_stay_in_order(opcode: int) -> None:
    parts = [b"%d," % i * size for i, size in enumerate([1, 2, 900, 3, 700, 800, 1])]
    stream = b"".join(frame(CONT, part, fin=False) for part in parts)
    target = decoder()
    assert target.feed(frame(opcode, fin=False) + stream) == []
    expected = b"".join(parts)
    (message,) = target.feed(frame(CONT, b"end"))
    assert message in (expected + b"end", expected.decode() + "end")


def _fed_and_unmasked(
    monkeypatch: pytest.MonkeyPatch, stream: bytes, piece: int
) -> tuple[list[Any], int, int]:
    """Feed in pieces; return the items, bytes unmasked, and the most kept back."""
    unmasked = most = 0
    masking = pure.load("frames.masking")
    original = masking.masked

    def counting(data: bytes, start: int, stop: int, mask: int) -> Any:
        nonlocal unmasked
        unmasked += stop - start
        return original(data, start, stop, mask)

    monkeypatch.setattr(masking, "masked", counting)
    target = pure.load("frames.decoder").Decoder(masked=True, max_size=None)
    items: list[Any] = []
    for i in range(0, len(stream), piece):
        items += target.feed(stream[i : i + piece])
        most = max(most, len(target._left))
    return items, unmasked, most


@pytest.mark.parametrize("piece", [1, 2, 7, 1000])
def test_small_pieces_cost_what_they_bring(
    piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "é" * 10_000
    stream = frame(TEXT, text.encode(), masked=True)
    stream += frame(PING, b"p" * 125, masked=True)
    items, unmasked, most = _fed_and_unmasked(monkeypatch, stream, piece)
    assert items == [text, (PING, b"p" * 125)]
    # Each byte is unmasked once, and what is looked at again with every piece
    # is no longer than a control frame.
    assert unmasked == 20_000 + 125
    assert most < 2 + 4 + 125


# What is said of the end, and of each frame


@pytest.mark.parametrize(
    ("stream", "where"),
    [
        (b"", "between two messages"),
        (frame(TEXT, b"a"), "between two messages"),
        (frame(PING, b"a"), "between two messages"),
        (frame(TEXT, b"a", fin=False), "between two fragments of a message"),
        (
            frame(TEXT, b"a", fin=False) + frame(PONG),
            "between two fragments of a message",
        ),
        (b"\x81", "after 1 of the 2 bytes, at least, of a frame's header"),
        (b"\x81\x7e\x01", "after 3 of the 4 bytes of a frame's header"),
        (b"\x81\x7f" + bytes(5), "after 7 of the 10 bytes of a frame's header"),
        (frame(PING, b"abc")[:-1], "after 4 of the 5 bytes of a PING frame"),
        (
            frame(TEXT, b"a", fin=False) + b"\x80",
            "after 1 of the 2 bytes, at least, of a frame's header",
        ),
        (
            frame(TEXT, b"abc")[:-2],
            "after 1 of the 3 bytes of a frame's payload",
        ),
        (
            wire.header(BINARY, 70_000),
            "after 0 of the 70000 bytes of a frame's payload",
        ),
    ],
)
def test_where(stream: bytes, where: str) -> None:
    for feed in (lambda target: target.feed(stream), lambda t: feed_bytes(t, stream)):
        target = decoder()
        feed(target)
        assert target.where() == where


@pytest.mark.parametrize(
    ("stream", "where"),
    [
        (b"\x81\x85", "after 2 of the 6 bytes of a frame's header"),
        (b"\x82\xfe\x01", "after 3 of the 8 bytes of a frame's header"),
        (b"\x82\xff\0\0", "after 4 of the 14 bytes of a frame's header"),
        (b"\x8a\x83" + KEY, "after 6 of the 9 bytes of a PONG frame"),
    ],
)
def test_where_of_a_client(stream: bytes, where: str) -> None:
    target = decoder(masked=True)
    assert target.feed(stream) == []
    assert target.where() == where


@BOTH
@pytest.mark.parametrize("size", [1, 3, 64, 10_000])
def test_trace(masked: bool, size: int) -> None:
    seen: list[tuple[int, bytes, int, bool]] = []
    stream = b"".join(
        [
            frame(TEXT, b"hello", masked=masked),
            frame(BINARY, bytes(range(200)), fin=False, masked=masked),
            frame(PING, b"p", masked=masked),
            frame(CONT, b"", fin=False, masked=masked),
            frame(CONT, b"end", masked=masked),
            frame(CLOSE, b"\x03\xe8", masked=masked),
        ]
    )
    target = decoder(masked=masked, trace=lambda *frame: seen.append(frame))
    for i in range(0, len(stream), size):
        target.feed(stream[i : i + size])
    assert seen == [
        (TEXT, b"hello", 5, True),
        (BINARY, bytes(range(100)), 200, False),
        (PING, b"p", 1, True),
        (CONT, b"", 0, False),
        (CONT, b"end", 3, True),
        (CLOSE, b"\x03\xe8", 2, True),
    ]


def test_where_parsing_has_stopped() -> None:
    target = decoder(masked=False)
    target.frame_limit = 1
    assert target.feed(frame(TEXT, b"a") + frame(TEXT, b"bc")) == ["a"]
    assert target.stopped
    assert target.where() == "with 4 bytes more than were looked at"
    assert target.go_on() == ["bc"]
    assert not target.stopped
