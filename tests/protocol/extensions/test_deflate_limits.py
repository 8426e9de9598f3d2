"""permessage-deflate: what a peer must not send, and bombs."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.memory import MEASURED, tracemalloc
from tests.peers import wire
from tests.peers.wire import BINARY, CLOSE, CONT, KEY, PING, PONG, TEXT
from tests.protocol.extensions.compressed import (
    ROLES,
    RSV1,
    SWITCH,
    MiB,
    bomb,
    check_failed,
    compressed,
    deflate,
    engine,
    incoming,
    noise,
    random_bytes,
)
from trio_ws._protocol.engine import Engine
from trio_ws._protocol.extensions import deflate as _deflate
from trio_ws._protocol.extensions.base import Frame


@pytest.fixture(autouse=True)
def zlib_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is counted and measured here is zlib's; see test_speed.py for ISA-L."""
    monkeypatch.setattr(_deflate, "_fast", None)


# -- What a peer must not send ------------------------------------------------


@pytest.mark.parametrize(
    "payload",
    [
        b"\xff" * 20,  # a block of a type that doesn't exist
        b"\x00\x05\x00\x00\x00Hello",  # a stored block whose lengths don't fit
        b"\xf2\x00\x11\x00\x00",  # refers to what never was
        b"\xf3\x48\xcd\xc9\xc9\x07\x00\xff",  # garbage behind a final block
    ],
    ids=["type", "length", "distance", "behind the end"],
)
@pytest.mark.parametrize("max_size", [None, 1000])
def test_corrupt_data(payload: bytes, max_size: int | None) -> None:
    side = engine(max_size=max_size)
    side.receive(incoming(side, BINARY, payload))
    check_failed(side, 1002, "message can't be decompressed: ")
    assert not side.messages
    side.act_on_violation()
    assert side.sent is not None
    assert side.sent.code == 1002


@ROLES
def test_the_bit_without_negotiation(client: bool) -> None:
    side = Engine(client=client, max_size=None)
    side.receive(incoming(side, BINARY, compressed(b"Hello")))
    check_failed(side, 1002, "reserved bits are set; no extension was negotiated")


@ROLES
@pytest.mark.parametrize("compressing", SWITCH)
def test_the_bit_on_a_continuation_frame(client: bool, compressing: bool) -> None:
    side = engine(client=client)
    payload = compressed(b"Hello")
    rsv = RSV1 if compressing else 0
    side.receive(incoming(side, BINARY, payload[:3], fin=False, rsv=rsv))
    assert side.violation is None
    side.receive(incoming(side, CONT, payload[3:]))
    check_failed(side, 1002, "reserved bit 1 is set in a continuation frame")


@ROLES
@pytest.mark.parametrize("opcode", [PING, PONG, CLOSE])
@pytest.mark.parametrize("rsv", range(1, 8))
def test_reserved_bits_on_a_control_frame(client: bool, opcode: int, rsv: int) -> None:
    side = engine(client=client)
    side.receive(incoming(side, opcode, b"", rsv=rsv))
    check_failed(side, 1002, "reserved bits are set that no extension uses")
    assert side.outbox.size == 0


@ROLES
@pytest.mark.parametrize("rsv", [1, 2, 3, 5, 6, 7])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_reserved_bits_that_are_not_ours(client: bool, opcode: int, rsv: int) -> None:
    side = engine(client=client)
    payload = compressed(b"Hello") if rsv & RSV1 else b"Hello"
    side.receive(incoming(side, opcode, payload, rsv=rsv))
    check_failed(side, 1002, "reserved bits are set that no extension uses")


def test_text_is_checked_once_it_is_decompressed() -> None:
    side = engine()
    side.receive(incoming(side, TEXT, compressed(b"abc\xff")))
    check_failed(side, 1007, "invalid start byte at position 3")
    # Across fragments, whose ends don't matter.
    side = engine()
    payload = compressed(("a\u20ac" * 50).encode(), level=0)
    for cut in range(1, len(payload)):
        side.receive(incoming(side, TEXT, payload[:cut], fin=False))
        side.receive(incoming(side, CONT, payload[cut:], rsv=0))
        assert side.pop() == "a\u20ac" * 50
    # As soon as it is there: the message isn't complete.
    context = zlib.compressobj(wbits=-15)
    parts = [
        context.compress(part) + context.flush(zlib.Z_SYNC_FLUSH)
        for part in (b"a" * 50 + b"\xe2\x82", b"b")
    ]
    side.receive(incoming(side, TEXT, parts[0], fin=False))
    assert side.violation is None
    side.receive(incoming(side, CONT, parts[1], fin=False, rsv=0))
    check_failed(side, 1007, "at position 50")


def test_text_that_ends_in_the_middle_of_a_character() -> None:
    side = engine()
    side.receive(incoming(side, TEXT, compressed(b"abc\xe2\x82")))
    check_failed(side, 1007, "unexpected end of data at position 3")


class Counted:
    """zlib with its output counted."""

    def __init__(self) -> None:
        self.produced = 0

    def decompressobj(self, *args: Any, **keywords: Any) -> _CountedInflater:
        return _CountedInflater(self, zlib.decompressobj(*args, **keywords))

    def __getattr__(self, name: str) -> Any:
        return getattr(zlib, name)


class _CountedInflater:
    def __init__(self, counted: Counted, inflater: Any) -> None:
        self._counted = counted
        self._inflater = inflater

    def decompress(self, data: bytes, limit: int) -> Any:
        produced = self._inflater.decompress(data, limit)
        self._counted.produced += len(produced)
        return produced

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inflater, name)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    found = Counted()
    monkeypatch.setattr(_deflate, "zlib", found)
    return found


class Memory:
    """The most that was allocated in a block, in bytes; 0 where nothing tells."""

    peak = 0

    def __enter__(self) -> Memory:
        if MEASURED:
            tracemalloc.start()
        return self

    def __exit__(self, *_: object) -> None:
        if MEASURED:
            self.peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()


def check_bomb(side: Engine, counted: Counted, frames: Iterator[bytes]) -> None:
    """Feed frames until the connection fails, in pieces as the network brings them."""
    before = counted.produced
    with Memory() as memory:
        for frame in frames:
            for at in range(0, len(frame), 65536):
                side.receive(frame[at : at + 65536])
            if side.violation is not None:
                break
    check_failed(side, 1009, "max_size")
    side.act_on_violation()
    assert side.sent is not None
    assert side.sent.code == 1009
    assert counted.produced - before <= MiB + 1
    assert memory.peak < 4 * MiB


# -- Bombs --------------------------------------------------------------------


def test_a_bomb(counted: Counted) -> None:
    side = engine(max_size=MiB)
    check_bomb(side, counted, iter([incoming(side, BINARY, bomb(256))]))


def test_a_bomb_in_fragments(counted: Counted) -> None:
    # Each is small; together they are 256 MiB.
    side = engine(max_size=MiB)
    context = zlib.compressobj(9, wbits=-15)
    zeros = bytes(65536)
    parts = [
        context.compress(zeros) + context.flush(zlib.Z_SYNC_FLUSH) for _ in range(4096)
    ]
    frames = (
        incoming(side, CONT if i else BINARY, part, fin=False, rsv=0 if i else RSV1)
        for i, part in enumerate(parts)
    )
    check_bomb(side, counted, frames)


def test_a_bomb_in_the_second_message(counted: Counted) -> None:
    # It refers to what the first brought.
    side = engine(max_size=MiB)
    peer = deflate()
    first = peer.encode(Frame(BINARY, noise(32_000)))
    side.receive(incoming(side, BINARY, first.data))
    assert side.pop() == noise(32_000)
    second = peer.encode(Frame(BINARY, noise(32_000) * 300)).data
    check_bomb(side, counted, iter([incoming(side, BINARY, second)]))


def test_a_bomb_behind_a_final_block(counted: Counted) -> None:
    side = engine(max_size=MiB)
    payload = bytes.fromhex("f3 48 cd c9 c9 07 00") + bomb(256)
    check_bomb(side, counted, iter([incoming(side, BINARY, payload)]))


def test_bombs_each_behind_a_final_block(counted: Counted) -> None:
    side = engine(max_size=MiB)
    context = zlib.compressobj(9, wbits=-15)
    one = context.compress(bytes(300_000)) + context.flush(zlib.Z_FINISH)
    check_bomb(side, counted, iter([incoming(side, BINARY, one * 800)]))


def test_final_blocks_without_end(counted: Counted) -> None:
    # Each makes nothing, and costs a context: two bytes of the peer's.
    side = engine(max_size=MiB)
    copied = 0
    original = _CountedInflater.decompress

    def decompress(self: Any, data: bytes, limit: int) -> Any:
        nonlocal copied
        produced = original(self, data, limit)
        copied += len(self.unused_data)
        return produced

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_CountedInflater, "decompress", decompress)
        side.receive(incoming(side, BINARY, b"\x03\x00" * (MiB // 2)))
    check_failed(side, 1009, "more than 4096 deflate streams end")
    # zlib copies what is behind an end; that may not be all of it each time.
    assert copied < 20 * MiB
    # A message of as many is taken, and the next one begins anew.
    side = engine(max_size=MiB)
    for _ in range(3):
        side.receive(incoming(side, BINARY, b"\x03\x00" * 4096 + b"\x00"))
        assert side.pop() == b""


def test_many_ends_of_streams_in_fragments() -> None:
    # They count wherever they are, also where nothing follows in the fragment.
    side = engine(max_size=MiB)
    fragment = b"\x03\x00" * 64
    for number in range(65):
        opcode, rsv = (CONT, 0) if number else (BINARY, RSV1)
        assert side.violation is None
        side.receive(incoming(side, opcode, fragment, fin=False, rsv=rsv))
    check_failed(side, 1009, "more than 4096 deflate streams end")


def test_a_compressed_frame_is_refused_by_its_header() -> None:
    # More than any compressor makes of a message that is allowed.
    side = engine(client=False, max_size=10_000)
    size = 14_000
    side.receive(wire.header(BINARY, size, rsv=RSV1, key=KEY))
    check_failed(side, 1009, "exceeds max_size, 10000 bytes")


@pytest.mark.parametrize("memory_level", [1, 5, 9])
@pytest.mark.parametrize("level", [0, 1, 6])
@pytest.mark.parametrize("size", [0, 1, 127, 128, 5000, 300_000])
def test_max_size_exactly(size: int, level: int, memory_level: int) -> None:
    # Also of what gets larger by being compressed.
    for data in (random_bytes(size), bytes(size)):
        context = zlib.compressobj(level, zlib.DEFLATED, -12, memory_level)
        made = context.compress(data) + context.flush(zlib.Z_SYNC_FLUSH)
        whole, fits = incoming, engine(max_size=size)
        fits.receive(whole(fits, BINARY, made[:-4]))
        assert fits.violation is None
        assert fits.pop() == data
        if size:
            side = engine(max_size=size - 1)
            side.receive(whole(side, BINARY, made[:-4]))
            check_failed(side, 1009, "max_size")


def test_max_size_exactly_in_fragments() -> None:
    peer = deflate()
    first = peer.encode(Frame(BINARY, bytes(600), fin=False)).data
    last = peer.encode(Frame(CONT, bytes(400))).data
    for max_size, fits in ((1000, True), (999, False)):
        side = engine(max_size=max_size)
        side.receive(incoming(side, BINARY, first, fin=False))
        side.receive(incoming(side, CONT, last, rsv=0))
        if fits:
            assert side.pop() == bytes(1000)
        else:
            check_failed(side, 1009, "max_size")


def test_no_max_size() -> None:
    side = engine(max_size=None)
    side.receive(incoming(side, BINARY, bomb(3)))
    assert side.pop() == bytes(3 * MiB)
    payload = bytes.fromhex("f3 48 cd c9 c9 07 00") + bomb(8)
    side.receive(incoming(side, BINARY, payload))
    assert side.pop() == b"Hello" + bytes(8 * MiB)
