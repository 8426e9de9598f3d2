"""trio_ws._protocol._codec: each rule for frames, in both directions."""

from __future__ import annotations

import gc
import io
import itertools
import os
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests._protocol import pure, wire
from tests._protocol.both import in_use
from tests._protocol.wire import BINARY, CLOSE, CONT, KEY, PING, PONG, TEXT
from trio_ws._protocol.errors import PayloadTooBig, ProtocolError
from trio_ws._protocol.frames.decoder import Decoder, Item
from trio_ws._protocol.frames.encoder import encode
from trio_ws._protocol.frames.memory import PIECE_SIZE, SPLIT_SIZE
from trio_ws._protocol.opcodes import MAX_SHORT_FRAGMENTS, SHORT_FRAGMENT

BOTH = pytest.mark.parametrize("masked", [False, True], ids=["server", "client"])


def decoder(
    *, masked: bool = False, max_size: int | None = None, trace: Any = None
) -> Decoder:
    return Decoder(masked=masked, max_size=max_size, trace=trace)


def key(masked: bool) -> bytes | None:
    return KEY if masked else None


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, masked: bool = False
) -> bytes:
    return wire.frame(opcode, payload, fin=fin, key=key(masked))


def feed_bytes(target: Decoder, data: bytes) -> list[Item]:
    """Feed byte by byte, up to what must be the last item."""
    items: list[Item] = []
    for byte in data:
        items += target.feed(bytes([byte]))
        if items and isinstance(items[-1], ProtocolError):
            break
    return items


def in_message(target: Decoder) -> bool:
    # A function, since mypy takes it that a property stays what it was.
    return target.in_message


# Masking


# Compiled code masks words of 8 bytes, and several at once; Python each fourth byte
# of long data, in parts.
@pytest.mark.parametrize(
    "size",
    [
        *range(20),
        *range(60, 75),
        *range(2046, 2054),
        SPLIT_SIZE + 1,
        *range(2**16 - 1, 2**16 + 4),
        2**17 + 3,
    ],
)
def test_masking(size: int) -> None:
    data = bytes(i * 7 % 256 for i in range(size))
    made = wire.made(encode(BINARY, data, True, True))
    head, sent_key, payload = made[: -size - 4], made[-size - 4 :][:4], made[-size:]
    assert head == wire.header(BINARY, size, key=b"")
    assert (payload if size else b"") == wire.xor(data, sent_key)
    for start in range(9):
        # Wherever in what is read it may stand.
        stream = frame(PING, b"p" * start, masked=True)
        stream += frame(BINARY, data, masked=True)
        target = decoder(masked=True)
        assert target.feed(stream) == [(PING, b"p" * start), data]


def test_a_key_of_zero() -> None:
    stream = wire.frame(TEXT, b"a", key=bytes(4)) + frame(TEXT, b"b", masked=True)
    assert decoder(masked=True).feed(stream) == ["a", "b"]
    assert feed_bytes(decoder(masked=True), stream) == ["a", "b"]


def test_each_frame_has_a_key_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    # RFC 6455, section 5.3
    pools: list[bytes] = []

    def urandom(size: int) -> bytes:
        start = len(pools) * 2**16
        pools.append(b"".join(i.to_bytes(4, "big") for i in range(start, start + size)))
        return pools[-1][:size]

    monkeypatch.setattr(os, "urandom", urandom)
    keys = [wire.made(encode(TEXT, b"", True, True))[2:] for _ in range(3000)]
    assert len(set(keys)) == 3000
    assert 1 < len(pools) < 10  # a thousand keys or so a system call


# In a process of its own: to fork one that may have threads is asking for trouble.
FORKING = """
import os
from trio_ws._protocol.frames.encoder import encode

encode(1, b"", True, True)  # so that keys are in store
if os.fork() == 0:
    print("child", encode(1, b"", True, True)[2:].hex(), flush=True)
    os._exit(0)
os.wait()
print("parent", encode(1, b"", True, True)[2:].hex())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
def test_a_child_does_not_use_the_keys_of_its_parent() -> None:
    result = subprocess.run(
        [sys.executable, "-c", FORKING], capture_output=True, text=True, check=True
    )
    child, theirs, parent, ours = result.stdout.split()
    assert (child, parent) == ("child", "parent")
    assert len(theirs) == len(ours) == 8
    assert theirs != ours


# Encoding


@pytest.mark.parametrize(
    ("size", "header"),
    [
        (0, "82 00"),
        (125, "82 7d"),
        (126, "82 7e 00 7e"),
        (65535, "82 7e ff ff"),
        (65536, "82 7f 00 00 00 00 00 01 00 00"),
    ],
)
def test_encode_lengths(size: int, header: str) -> None:
    payload = os.urandom(size)
    head = bytes.fromhex(header)
    assert wire.made(encode(BINARY, payload, True, False)) == head + payload
    made = wire.made(encode(BINARY, payload, True, True))
    masked_head = bytes([head[0], head[1] | 0x80]) + head[2:]
    assert made[: len(head)] == masked_head
    sent_key = made[len(head) : len(head) + 4]
    assert wire.xor(made[len(head) + 4 :], sent_key) == payload


@pytest.mark.parametrize("opcode", [CONT, TEXT, BINARY, CLOSE, PING, PONG])
@pytest.mark.parametrize("fin", [False, True])
def test_encode_first_byte(opcode: int, fin: bool) -> None:
    made = encode(opcode, b"a", fin, False)
    assert wire.made(made) == bytes([(0x80 if fin else 0) + opcode, 1]) + b"a"


@BOTH
def test_large_payloads_are_not_copied_behind_their_header(masked: bool) -> None:
    assert isinstance(encode(BINARY, bytes(SPLIT_SIZE - 1), True, masked), bytes)
    payload = bytes(SPLIT_SIZE)
    made = encode(BINARY, payload, True, masked)
    assert isinstance(made, tuple)
    assert len(made[0]) == 4 + 4 * masked
    if not masked:
        assert made[1] is payload


@BOTH
def test_very_large_payloads_are_masked_as_they_go_out(masked: bool) -> None:
    payload = os.urandom(PIECE_SIZE + 1)
    frame = encode(BINARY, payload, True, masked)
    assert len(frame) == 4 if masked else 2
    assert payload in frame  # as it is
    (sent,) = wire.parse_stream(wire.made(frame), masked=masked)
    assert sent.data == payload


# Decoding: vectors


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


def violation(
    name: str,
    stream: bytes,
    reason: str,
    *,
    known_at: int | None = None,
    code: int = 1002,
    masked: bool = False,
    max_size: int | None = None,
) -> Any:
    """Describe a violation, to be found with the byte ``known_at``."""
    at = len(stream) if known_at is None else known_at
    return pytest.param(masked, max_size, stream, at, code, reason, id=name)


UNKNOWN_OPCODES = [3, 4, 5, 6, 7, 11, 12, 13, 14, 15]

TOO_SHORT = "frame length: expected the shortest encoding; got {} bytes for {}"
BAD_TEXT = "invalid UTF-8 in text: {} at position {}"
SHORT_ONES = b"".join(
    [frame(TEXT, fin=False), frame(CONT, fin=False) * (MAX_SHORT_FRAGMENTS - 1)]
)

VIOLATIONS = [
    violation(
        "unmasked frame of a client",
        frame(TEXT, b"hello"),
        "frame of a client is not masked",
        known_at=2,
        masked=True,
    ),
    violation(
        "masked frame of a server",
        frame(TEXT, b"hello", masked=True),
        "frame of a server is masked",
        known_at=2,
    ),
    violation(
        "unmasked ping of a client",
        frame(PING),
        "frame of a client is not masked",
        known_at=2,
        masked=True,
    ),
    *(
        violation(
            f"reserved bits {rsv:03b}, opcode {opcode:#x}",
            wire.frame(opcode, b"a", rsv=rsv),
            "reserved bits are set; no extension was negotiated",
            known_at=2,
        )
        for rsv, opcode in [
            *((rsv, TEXT) for rsv in range(1, 8)),
            *((4, opcode) for opcode in (CONT, BINARY, CLOSE, PING, PONG)),
        ]
    ),
    *(
        violation(
            f"opcode {opcode:#x}, {'' if fin else 'not '}final",
            wire.frame(opcode, b"payload", fin=fin, extended=8),
            f"unknown opcode {opcode:#x}",
            known_at=2,
        )
        for opcode in UNKNOWN_OPCODES
        for fin in (True, False)
    ),
    *(
        violation(
            f"fragmented {name}",
            frame(opcode, b"ab", fin=False),
            f"{name} frame is fragmented",
            known_at=2,
        )
        for opcode, name in ((CLOSE, "CLOSE"), (PING, "PING"), (PONG, "PONG"))
    ),
    *(
        violation(
            f"{name} of {length} bytes",
            wire.header(opcode, length),
            f"{name} frame: expected a payload of at most 125 bytes",
            known_at=2,
        )
        for opcode, name in ((CLOSE, "CLOSE"), (PING, "PING"), (PONG, "PONG"))
        for length in (126, 65536)
    ),
    violation(
        "stray continuation",
        frame(CONT, b"ab", fin=False),
        "continuation frame without a message to continue",
        known_at=2,
    ),
    violation(
        "stray final continuation",
        frame(CONT, b"ab"),
        "continuation frame without a message to continue",
        known_at=2,
    ),
    *(
        violation(
            f"new message ({opcode}, final: {fin}) in a fragmented one",
            frame(TEXT, b"a", fin=False) + frame(opcode, b"b", fin=fin),
            "new message in the middle of a fragmented one; "
            "expected a continuation frame",
            known_at=5,
        )
        for opcode in (TEXT, BINARY)
        for fin in (True, False)
    ),
    *(
        violation(
            f"length {length:#x}",
            wire.header(BINARY, length, extended=8),
            "frame length: expected less than 2**63; the top bit is set",
        )
        for length in (2**63, 2**64 - 1)
    ),
    *(
        violation(
            f"{length} in {extended} bytes",
            wire.header(BINARY, length, extended=extended) + b"a",
            TOO_SHORT.format(extended, length),
            known_at=2 + extended,
        )
        for length, extended in [(0, 2), (125, 2), (0, 8), (125, 8), (126, 8)]
    ),
    violation(
        "65535 in 8 bytes",
        wire.header(BINARY, 65535, extended=8),
        TOO_SHORT.format(8, 65535),
    ),
    violation(
        "5 in 2 bytes, masked",
        wire.header(BINARY, 5, extended=2, key=KEY),
        TOO_SHORT.format(2, 5),
        known_at=4,
        masked=True,
    ),
    # Section 8.1; known with the first byte that no UTF-8 can have there.
    *(
        violation(
            f"invalid UTF-8 {payload!r}, {'masked' if masked else 'unmasked'}",
            frame(TEXT, payload, masked=masked),
            BAD_TEXT.format(reason, position),
            known_at=2 + 4 * masked + bad,
            code=1007,
            masked=masked,
        )
        for payload, reason, position, bad in [
            (b"ab\xffcd", "invalid start byte", 2, 3),
            (b"ab\x80cd", "invalid start byte", 2, 3),
            (b"\xc0\xafcd", "invalid start byte", 0, 1),
            (b"\xe0\x80cd", "invalid continuation byte", 0, 2),
            # CPython's decoder waits for the third byte of a surrogate.
            (b"a\xed\xa0\x80d", "invalid continuation byte", 1, 4),
            (b"\xf4\x90\x80\x80", "invalid continuation byte", 0, 2),
            (b"\xf5aaa", "invalid start byte", 0, 1),
            (b"\xe2\x82(", "invalid continuation byte", 0, 3),
            (b"ab\xe2\x82", "unexpected end of data", 2, 4),
            (b"\xc3", "unexpected end of data", 0, 1),
        ]
        for masked in (False, True)
    ),
    violation(
        "invalid UTF-8 in the second fragment",
        frame(TEXT, b"abc", fin=False) + frame(CONT, b"d\xffe"),
        BAD_TEXT.format("invalid start byte", 4),
        known_at=9,
        code=1007,
    ),
    violation(
        "invalid UTF-8 across two fragments",
        frame(TEXT, b"abc\xe2", fin=False) + frame(CONT, b"\x82(e"),
        BAD_TEXT.format("invalid continuation byte", 3),
        known_at=10,
        code=1007,
    ),
    violation(
        "a character that the last fragment leaves incomplete",
        frame(TEXT, b"abc\xe2", fin=False) + frame(CONT, b"\x82"),
        BAD_TEXT.format("unexpected end of data", 3),
        code=1007,
    ),
    violation(
        "a character that an empty last fragment leaves incomplete",
        frame(TEXT, b"\xf0\x9f", fin=False) + frame(CONT),
        BAD_TEXT.format("unexpected end of data", 0),
        code=1007,
    ),
    *(
        violation(
            f"too big: {size} bytes, masked: {masked}",
            wire.header(BINARY, size, key=key(masked)),
            f"message of {size} bytes or more exceeds max_size, 100 bytes",
            # By the header alone, even before the masking key.
            known_at=len(wire.header(BINARY, size)),
            code=1009,
            masked=masked,
            max_size=100,
        )
        for size in (101, 126, 65536, 2**63 - 1)
        for masked in (False, True)
    ),
    violation(
        "too big: the sum of the fragments",
        frame(BINARY, b"x" * 60, fin=False)
        + frame(PING, b"p" * 100)
        + frame(CONT, b"x" * 40, fin=False)
        + wire.header(CONT, 1),
        "message of 101 bytes or more exceeds max_size, 100 bytes",
        code=1009,
        max_size=100,
    ),
    violation(
        "too big: what is still to come of the fragments",
        frame(TEXT, b"x", fin=False) + wire.header(CONT, 100, fin=False),
        "message of 101 bytes or more exceeds max_size, 100 bytes",
        code=1009,
        max_size=100,
    ),
    violation(
        "too big: nothing is allowed",
        frame(BINARY, b"x"),
        "message of 1 bytes or more exceeds max_size, 0 bytes",
        known_at=2,
        code=1009,
        max_size=0,
    ),
    *(
        violation(
            f"too many short fragments, the last of {length} bytes, final: {fin}",
            SHORT_ONES + wire.header(CONT, length, fin=fin),
            "message with more than 4096 fragments of less than 16 bytes",
            code=1009,
        )
        for length in (0, SHORT_FRAGMENT - 1)
        for fin in (False, True)
    ),
]


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


# Costs


# Counted in Python, of which the compiled code is made.


class _Counting(io.BytesIO):
    """Counts what is written, to all of its kind."""

    written = 0

    def write(self, data: Any) -> int:
        type(self).written += len(data)
        return super().write(data)


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


@given(st.data())
def test_frames_made_are_read_by_another_parser(data: st.DataObject) -> None:
    masked = data.draw(st.booleans())
    opcodes = st.sampled_from([CONT, TEXT, BINARY])
    frames = data.draw(
        st.lists(st.tuples(opcodes, st.binary(max_size=300), st.booleans()))
    )
    stream = b"".join(wire.made(encode(o, p, fin, masked)) for o, p, fin in frames)
    read = wire.parse_stream(stream, masked=masked)
    assert [(int(f.opcode), bytes(f.data), f.fin) for f in read] == frames


def test_every_first_two_bytes() -> None:
    """What may begin a frame between two messages, by a rule of its own."""
    for first, second in itertools.product(range(256), range(256)):
        opcode = first & 15
        legal = (
            first & 0x70 == 0
            and second < 128
            and (
                opcode in (TEXT, BINARY)
                or (opcode in (CLOSE, PING, PONG) and first >= 128 and second < 126)
            )
        )
        # Some rules are those of the frame and the message together, which are
        # checked once the length is there.
        extended = b"\x01" + bytes(7) if second & 127 >= 126 else b""
        items = decoder().feed(bytes([first, second]) + extended)
        assert bool(items and isinstance(items[-1], ProtocolError)) == (not legal)


# Large payloads, received where they stay

LARGE = 32 * 1024


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


def test_a_payload_larger_than_one_part() -> None:
    # So that the peer's word alone takes no more memory.
    payload = os.urandom(1000) * (2**24 // 1000 + 100)
    stream = frame(BINARY, payload)
    assert decoder().feed(stream) == [payload]
    target = decoder()
    assert target.feed(stream[:10]) == []
    assert wire.put(target, target.feed, stream[10:]) == [payload]


@pytest.mark.parametrize(
    ("opcode", "size", "space"),
    [(BINARY, LARGE, True), (BINARY, LARGE - 1, False), (TEXT, LARGE, False)],
)
def test_where_there_is_space(opcode: int, size: int, space: bool) -> None:
    target = decoder()
    assert target.feed(frame(opcode, b"x" * size)[:100]) == []
    assert (target.space() is not None) == space


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
