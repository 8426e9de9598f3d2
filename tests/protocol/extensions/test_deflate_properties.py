"""permessage-deflate: any messages, any frames, websockets at the other end."""

from __future__ import annotations

import itertools
import zlib

import pytest
import websockets.exceptions
import websockets.extensions.permessage_deflate as websockets_deflate
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Frame as PeerFrame
from websockets.frames import Opcode

from tests.peers import wire
from tests.peers.wire import BINARY, CONT, TEXT
from tests.protocol.extensions.compressed import (
    BLOCK,
    deflate,
    engine,
    from_peer,
    noise,
)
from trio_ws._protocol.errors import PayloadTooBig, ProtocolError
from trio_ws._protocol.extensions import deflate as _deflate


@pytest.fixture(autouse=True)
def zlib_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is counted and measured here is zlib's; see test_speed.py for ISA-L."""
    monkeypatch.setattr(_deflate, "_fast", None)


WORDS = st.sampled_from([b"", b"a", "\u20ac".encode(), bytes(200), BLOCK, noise(90)])
MESSAGES = st.lists(
    st.tuples(
        st.booleans(),  # text
        st.lists(st.lists(WORDS, max_size=4).map(b"".join), min_size=1, max_size=4),
        st.booleans(),  # compress
    ),
    max_size=8,
)
BITS = st.integers(8, 15)


@settings(max_examples=200)
@given(
    MESSAGES,
    st.tuples(st.booleans(), st.booleans()),
    st.tuples(BITS, BITS),
    st.booleans(),
    st.lists(st.integers(0, 5000), max_size=10),
    st.booleans(),
)
def test_round_trip(
    messages: list[tuple[bool, list[bytes], bool]],
    no_takeover: tuple[bool, bool],
    bits: tuple[int, int],
    client: bool,
    cuts: list[int],
    pings: bool,
) -> None:
    one = engine(
        deflate(
            local_no_takeover=no_takeover[0],
            remote_no_takeover=no_takeover[1],
            local_bits=bits[0],
            remote_bits=bits[1],
        ),
        client=client,
    )
    other = engine(
        deflate(
            local_no_takeover=no_takeover[1],
            remote_no_takeover=no_takeover[0],
            local_bits=bits[1],
            remote_bits=bits[0],
        ),
        client=not client,
    )
    for sender, receiver in ((one, other), (other, one)):
        stream = b""
        expected: list[str | bytes] = []
        for text, fragments, compress in messages:
            whole = b"".join(fragments)
            if text:
                try:
                    expected.append(whole.decode())
                except UnicodeDecodeError:
                    continue
            else:
                expected.append(whole)
            for i, fragment in enumerate(fragments):
                opcode = CONT if i else TEXT if text else BINARY
                fin = i == len(fragments) - 1
                stream += wire.made(sender.data_frame(opcode, fragment, fin, compress))
                if pings:
                    stream += sender.send_ping(b"between")
        at = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
        for a, b in itertools.pairwise(at):
            receiver.receive(stream[a:b])
        assert receiver.violation is None
        assert [receiver.pop() for _ in range(len(receiver.messages))] == expected


@st.composite
def peer_frames(draw: st.DrawFn) -> list[PeerFrame]:
    """Make data frames as a peer may send them, with damage now and then."""
    context = zlib.compressobj(
        draw(st.sampled_from([0, 6])), wbits=-draw(st.sampled_from([9, 15]))
    )
    frames: list[PeerFrame] = []
    for text, fragments, compress in draw(MESSAGES):
        for i, fragment in enumerate(fragments):
            fin = i == len(fragments) - 1
            data = fragment
            if compress:
                data = context.compress(fragment) + context.flush(zlib.Z_SYNC_FLUSH)
                data = data[:-4] if fin else data
            if draw(st.integers(0, 15)) == 0 and data:
                at = draw(st.integers(0, len(data) - 1))
                data = data[:at] + bytes([draw(st.integers(0, 255))]) + data[at + 1 :]
            opcode = CONT if i else TEXT if text else BINARY
            rsv1 = compress and not i
            if draw(st.integers(0, 30)) == 0:
                rsv1 = not rsv1
            frames.append(PeerFrame(Opcode(opcode), data, fin, rsv1))
    return frames


def inflate_by_peer(
    frames: list[PeerFrame], no_takeover: bool, bits: int, max_size: int | None
) -> tuple[list[bytes], str | None]:
    """Return what websockets makes of frames, one by one, up to what it refuses."""
    extension = websockets_deflate.PerMessageDeflate(no_takeover, False, bits, 15)
    found: list[bytes] = []
    left = max_size
    for frame in frames:
        if frame.opcode is not Opcode.CONT:
            left = max_size
        try:
            decoded = extension.decode(
                PeerFrame(frame.opcode, frame.data, frame.fin, frame.rsv1),
                max_size=left,
            )
        except websockets.exceptions.PayloadTooBig:
            return found, "size"
        except websockets.exceptions.ProtocolError:
            return found, "protocol"
        if decoded.rsv1:
            return found, "protocol"
        data = bytes(decoded.data)
        if left is not None:
            if len(data) > left:
                return found, "size"
            left -= len(data)
        found.append(data)
    return found, None


@settings(max_examples=300)
@given(
    peer_frames(), st.booleans(), st.sampled_from([9, 15]), st.sampled_from([None, 900])
)
def test_any_frames_as_websockets_reads_them(
    frames: list[PeerFrame], no_takeover: bool, bits: int, max_size: int | None
) -> None:
    ours = deflate(remote_no_takeover=no_takeover, remote_bits=bits)
    found: list[bytes] = []
    problem: str | None = None
    left = max_size
    ends = False  # websockets reads nothing behind a final block
    compressing, size = False, 0
    for frame in frames:
        if frame.opcode is not Opcode.CONT:
            left = max_size
            compressing, size = frame.rsv1, 0
        size += len(frame.data)
        # It takes the tail of a message without a byte for the start of a block.
        ends = ends or (compressing and frame.fin and not size)
        try:
            decoded = ours.decode(from_peer(frame), max_size=left)
        except PayloadTooBig:
            problem = "size"
            break
        except ProtocolError:
            problem = "protocol"
            break
        finally:
            ends = ends or ours._ends > 0
        if left is not None:
            if len(decoded.data) > left:
                problem = "size"  # not compressed: for the decoder to see
                break
            left -= len(decoded.data)
        found.append(decoded.data)
    if ends:
        return
    theirs = inflate_by_peer(frames, no_takeover, bits, max_size)
    if theirs == (found, "protocol") and problem == "size":
        # It is both, and which is seen first differs: as it is without a limit.
        theirs = inflate_by_peer(frames, no_takeover, bits, None)
        problem = "protocol"
    assert (found, problem) == theirs
