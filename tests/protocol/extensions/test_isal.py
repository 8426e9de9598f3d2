"""ISA-L in place of zlib: both read what either makes, within the same limits."""

from __future__ import annotations

import random
import zlib
from typing import Any

import pytest

from trio_ws._protocol.errors import PayloadTooBig, ProtocolError
from trio_ws._protocol.extensions import deflate as _deflate
from trio_ws._protocol.extensions.base import Frame
from trio_ws._protocol.extensions.deflate import PerMessageDeflate
from trio_ws._protocol.opcodes import BINARY, CONT

isal_zlib = pytest.importorskip("isal.isal_zlib")

WINDOWS = range(9, 16)
LIBRARIES = {"zlib": None, "isal": isal_zlib}


def side(library: Any, bits: int, monkeypatch: pytest.MonkeyPatch) -> PerMessageDeflate:
    """Make one side; its contexts are made on first use, with this library."""
    monkeypatch.setattr(_deflate, "_fast", library)
    extension = PerMessageDeflate(
        remote_no_context_takeover=False,
        local_no_context_takeover=False,
        remote_max_window_bits=bits,
        local_max_window_bits=bits,
    )
    # First use, of both contexts.
    sent = extension.encode(Frame(BINARY, bytes(200)))
    extension.decode(Frame(BINARY, sent.data, rsv1=True))
    extension.forget()
    extension.encode(Frame(BINARY, bytes(200)))
    return extension


def messages(seed: int) -> list[bytes]:
    """Make messages that refer to each other from near and far."""
    chance = random.Random(seed)
    past = chance.randbytes(40_000)
    made = []
    for size in (200, 3_000, 500, 20_000, 1_000, 9_000):
        start = chance.randrange(30_000)
        made.append(past[start : start + size] + chance.randbytes(50) + past[:300])
    return made


def test_isal_is_used_where_it_is_installed() -> None:
    assert _deflate._fast is isal_zlib


@pytest.mark.parametrize("bits", WINDOWS)
@pytest.mark.parametrize(
    ("sender", "receiver"), [("zlib", "isal"), ("isal", "zlib"), ("isal", "isal")]
)
def test_what_either_makes_the_other_reads(
    sender: str, receiver: str, bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = side(LIBRARIES[sender], bits, monkeypatch)
    other = side(LIBRARIES[receiver], bits, monkeypatch)
    for seed in range(5):
        for message in messages(seed):
            frame = one.encode(Frame(BINARY, message))
            assert other.decode(frame, max_size=len(message)).data == message
            halves = [
                one.encode(Frame(BINARY, message[:300], fin=False)),
                one.encode(Frame(CONT, message[300:])),
            ]
            assert b"".join(other.decode(each).data for each in halves) == message


@pytest.mark.parametrize("size", [999, 1000, 1001])
def test_limits_are_exact(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    extension = side(isal_zlib, 12, monkeypatch)
    context = zlib.compressobj(wbits=-12)
    data = context.compress(bytes(size)) + context.flush(zlib.Z_SYNC_FLUSH)
    frame = Frame(BINARY, data[:-4], rsv1=True)
    if size <= 1000:
        assert extension.decode(frame, max_size=1000).data == bytes(size)
    else:
        with pytest.raises(PayloadTooBig):
            extension.decode(frame, max_size=1000)


def test_a_bomb_makes_no_more_than_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    made = 0

    class Counted:
        def __init__(self, **settings: Any) -> None:
            self._original = isal_zlib.decompressobj(**settings)

        def decompress(self, data: bytes, limit: int) -> bytes:
            nonlocal made
            inflated: bytes = self._original.decompress(data, limit)
            made += len(inflated)
            return inflated

        def __getattr__(self, name: str) -> Any:
            return getattr(self._original, name)

    class Library:
        decompressobj = Counted
        compressobj = isal_zlib.compressobj

    extension = side(Library, 15, monkeypatch)
    made = 0
    context = zlib.compressobj(9, wbits=-15)
    bomb = context.compress(bytes(2**26)) + context.flush(zlib.Z_SYNC_FLUSH)
    with pytest.raises(PayloadTooBig):
        extension.decode(Frame(BINARY, bomb, rsv1=True), max_size=2**20)
    assert made <= 2**20 + 1


def test_a_last_block_in_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    extension = side(isal_zlib, 15, monkeypatch)
    parts = []
    for text in (b"Hello", b", world"):
        context = zlib.compressobj(wbits=-15)
        parts.append(context.compress(text) + context.flush())
    frame = Frame(BINARY, b"".join(parts) + b"\x00", rsv1=True)
    assert extension.decode(frame, max_size=100).data == b"Hello, world"


def test_garbage_is_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    extension = side(isal_zlib, 15, monkeypatch)
    with pytest.raises(ProtocolError, match="decompressed"):
        extension.decode(Frame(BINARY, b"\xff" * 20, rsv1=True), max_size=100)


def test_levels_are_zlibs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_deflate, "_fast", isal_zlib)
    extension = PerMessageDeflate(
        remote_no_context_takeover=False,
        local_no_context_takeover=False,
        remote_max_window_bits=15,
        local_max_window_bits=15,
        compress_settings={"level": 9},
    )
    message = b"level 9 is none of ISA-L's " * 20
    context = zlib.compressobj(9, wbits=-15)
    expected = context.compress(message) + context.flush(zlib.Z_SYNC_FLUSH)
    assert extension.encode(Frame(BINARY, message)).data == expected[:-4]
