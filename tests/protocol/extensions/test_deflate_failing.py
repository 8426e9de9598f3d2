"""permessage-deflate: what fails half-way, and what the error of a violation keeps."""

from __future__ import annotations

import gc
import zlib

import pytest

from tests.memory import measures_memory, tracemalloc
from tests.peers import wire
from tests.peers.wire import BINARY, CONT, KEY, TEXT
from tests.protocol.extensions.compressed import (
    BLOCK,
    ROLES,
    RSV1,
    SWITCH,
    MiB,
    bomb,
    compressed,
    deflate,
    engine,
    final,
    noise,
)
from trio_ws._protocol.engine import Engine
from trio_ws._protocol.errors import ProtocolError
from trio_ws._protocol.extensions import deflate as _deflate
from trio_ws._protocol.extensions.base import Extension, Frame


@pytest.fixture(autouse=True)
def zlib_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is measured here is zlib's; see test_isal.py for ISA-L."""
    monkeypatch.setattr(_deflate, "_fast", None)


# -- What fails half-way --------------------------------------------------------


class Failing:
    """A compressor that takes what it is given and fails then."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def compress(self, data: bytes) -> bytes:
        raise self._error

    def flush(self, mode: int) -> bytes:
        raise AssertionError("not reached")


ERRORS = [MemoryError(), zlib.error("Error -5"), GeneratorExit()]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
@pytest.mark.parametrize("fragment", [0, 1])
@pytest.mark.parametrize("no_takeover", SWITCH)
def test_a_compressor_that_fails_is_forgotten(
    error: BaseException,
    fragment: int,
    no_takeover: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours = deflate(local_no_takeover=no_takeover)
    theirs = deflate(remote_no_takeover=no_takeover)
    assert theirs.decode(ours.encode(Frame(BINARY, BLOCK))).data == BLOCK
    frames = [Frame(BINARY, BLOCK, fin=False), Frame(CONT, BLOCK, fin=False)]
    for frame in frames[:fragment]:
        assert theirs.decode(ours.encode(frame)).data == BLOCK
    ours._deflater = Failing(error)
    with pytest.raises(type(error)):
        ours.encode(frames[fragment])
    # The same fragment, or another, or a message: the peer reads what comes.
    if fragment:
        assert theirs.decode(ours.encode(Frame(CONT, BLOCK))).data == BLOCK
    for _ in range(2):
        assert theirs.decode(ours.encode(Frame(BINARY, BLOCK))).data == BLOCK


class Refusing(Extension):
    """Another extension, behind compression, that fails once."""

    name = "x-refusing"
    fails = False

    def encode(self, frame: Frame) -> Frame:
        if self.fails and not frame.opcode & 8:
            raise ZeroDivisionError
        return frame

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        return frame


@pytest.mark.parametrize("fin", SWITCH)
def test_what_another_extension_lost_is_not_referred_to(fin: bool) -> None:
    refusing = Refusing()
    side = Engine(client=False, max_size=None)
    side.extend([deflate(), refusing])
    peer = Engine(client=True, max_size=None)
    peer.extend([deflate(), Refusing()])
    peer.receive(wire.made(side.data_frame(BINARY, noise(700, 7), True)))
    refusing.fails = True
    with pytest.raises(ZeroDivisionError):
        side.data_frame(BINARY, BLOCK, fin)
    refusing.fails = False
    peer.receive(wire.made(side.data_frame(BINARY, BLOCK, True)))
    assert peer.violation is None
    assert list(peer.messages) == [noise(700, 7), BLOCK]


# -- What an error keeps ----------------------------------------------------------


LARGE = 900_000

#: Payload, opcode, reserved bits, close code.
KEPT: dict[str, tuple[bytes, int, int, int]] = {
    "a bomb": (bomb(64), BINARY, RSV1, 1009),
    "a bomb behind an end": (final(b"Hi") + bomb(64), BINARY, RSV1, 1009),
    "corrupt": (compressed(noise(LARGE)) + b"\xff" * 100, BINARY, RSV1, 1002),
    "not UTF-8": (b"x" * LARGE + b"\xff", TEXT, 0, 1007),
    "not UTF-8, compressed": (compressed(b"x" * LARGE + b"\xff"), TEXT, RSV1, 1007),
    "a bit of nobody's": (b"x" * LARGE, TEXT, 1, 1002),
}


@measures_memory
@ROLES
@pytest.mark.parametrize("fin", SWITCH)
@pytest.mark.parametrize(("payload", "opcode", "rsv", "code"), KEPT.values(), ids=KEPT)
def test_an_error_keeps_no_payload(
    payload: bytes, opcode: int, rsv: int, code: int, fin: bool, client: bool
) -> None:
    def kept(data: bytes) -> BaseException | None:
        side = engine(client=client, max_size=MiB)
        side.receive(data)
        side.act_on_violation()
        assert side.sent is not None
        assert side.sent.code == code
        return side.cause

    key = None if client else KEY
    data = wire.frame(opcode, payload, rsv=rsv, key=key)
    if not fin:
        half = len(payload) // 2
        data = wire.frame(opcode, payload[:half], fin=False, rsv=rsv, key=key)
        data += wire.frame(CONT, payload[half:], key=key)
    kept(data)  # what is made once is made
    gc.collect()
    tracemalloc.start()
    try:
        error = kept(data)
        gc.collect()
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(error, ProtocolError)
    assert size < 20_000
