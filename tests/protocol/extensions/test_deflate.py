"""permessage-deflate: compression, fragments, one message for many."""

from __future__ import annotations

import zlib
from typing import Any

import pytest
from websockets.frames import Frame as PeerFrame

from tests.memory import measures_memory, tracemalloc
from tests.peers import wire
from tests.peers.wire import BINARY, CLOSE, CONT, PING, PONG, TEXT
from tests.protocol.extensions.compressed import (
    BLOCK,
    ROLES,
    RSV1,
    SWITCH,
    check_failed,
    compressed,
    deflate,
    engine,
    incoming,
    noise,
    random_bytes,
)
from trio_ws._protocol.engine import Engine
from trio_ws._protocol.errors import ProtocolError
from trio_ws._protocol.extensions import deflate as _deflate
from trio_ws._protocol.extensions.base import Frame
from trio_ws._protocol.extensions.deflate import (
    MIN_SIZE,
    ClientPerMessageDeflateFactory,
    PerMessageDeflate,
    ServerPerMessageDeflateFactory,
)
from trio_ws._protocol.frames.outbox import Encoded
from trio_ws._protocol.frames.text import WideText


def sent_frames(side: Engine, *encoded: Encoded) -> list[PeerFrame]:
    """Read what ``side`` made by another parser."""
    stream = b"".join(map(wire.made, encoded))
    return wire.parse_extended(stream, masked=side.client)


# -- Compressing --------------------------------------------------------------


@ROLES
def test_small_messages_are_left_as_they_are(client: bool) -> None:
    side = engine(client=client)
    text = b"a" * MIN_SIZE
    small, exact = sent_frames(
        side, side.data_frame(TEXT, text[1:], True), side.data_frame(TEXT, text, True)
    )
    assert (small.rsv1, small.data) == (False, text[1:])
    assert exact.rsv1
    assert len(exact.data) < 20


@ROLES
def test_a_message_that_is_not_to_be_compressed(client: bool) -> None:
    side = engine(client=client)
    data = bytes(5000)
    whole, first, last = sent_frames(
        side,
        side.data_frame(BINARY, data, True, False),
        side.data_frame(BINARY, data, False, False),
        side.data_frame(CONT, data, True, False),
    )
    for frame in (whole, first, last):
        assert (frame.rsv1, frame.data) == (False, data)


def test_a_window_of_8_bits_means_that_we_do_not_compress() -> None:
    # zlib can't. What the peer compresses with one, we read.
    extension = deflate(local_bits=8, remote_bits=8)
    assert extension.encode(Frame(BINARY, bytes(5000))) == Frame(BINARY, bytes(5000))
    side = engine(extension)
    side.receive(incoming(side, BINARY, compressed(bytes(200), level=0, bits=9)))
    assert side.messages.pop() == bytes(200)


def test_what_gets_no_smaller_is_sent_as_it_is() -> None:
    side, peer = engine(client=False, max_size=1000), engine(max_size=1000)
    data = random_bytes(1000)
    cache: dict[int, Any] = {}
    for _ in range(2):
        for encoded in (
            side.data_frame(BINARY, noise(500), True),
            side.data_frame(BINARY, data, True),
            side.shared_frame(BINARY, data, cache),
        ):
            peer.receive(wire.made(encoded))
    # It just fits, and what follows refers to nothing that the peer didn't get.
    assert peer.violation is None
    assert list(peer.messages) == [noise(500), data, data] * 2
    plain, shared = sent_frames(
        side, side.data_frame(BINARY, data, True), side.shared_frame(BINARY, data, {})
    )
    for frame in (plain, shared):
        assert (frame.rsv1, frame.data) == (False, data)


@ROLES
def test_control_frames_are_not_compressed(client: bool) -> None:
    side = engine(client=client)
    side.send_ping(b"p" * 125)
    side.send_pong(b"q" * 125)
    side.close(1000, "r" * 123)
    frames = sent_frames(side, b"".join(side.outbox.next_buffers(2**16)))
    assert [(frame.opcode, frame.rsv1) for frame in frames] == [
        (PING, False),
        (PONG, False),
        (CLOSE, False),
    ]
    assert [len(frame.data) for frame in frames] == [125, 125, 125]
    # As an extension among others, too.
    extension = deflate()
    ping = Frame(PING, bytes(125))
    assert extension.encode(ping) == extension.decode(ping) == ping


def test_empty_messages_and_fragments() -> None:
    # Section 7.2.3.6: an empty message compressed is one byte, 0x00.
    side = engine()
    side.receive(incoming(side, BINARY, b"\x00") + incoming(side, TEXT, b"\x00"))
    assert list(side.messages) == [b"", ""]
    (frame,) = sent_frames(side, side.data_frame(TEXT, b"", True))
    assert (frame.rsv1, frame.data) == (False, b"")
    # An empty fragment in a compressed message, from us.
    encoded = [
        side.data_frame(BINARY, bytes(200), False),
        side.data_frame(CONT, b"", False),
        side.data_frame(CONT, b"", True),
    ]
    peer = engine(client=False)
    for each in encoded:
        peer.receive(wire.made(each))
    assert peer.messages.pop() == bytes(200)


@pytest.mark.parametrize("text", ["x" * 4000, "\xe9" * 4000, "x" * 4000 + "\U0001f600"])
def test_text_is_kept_alike_however_it_comes(text: str) -> None:
    """Whole, in pieces, in fragments, and as it would without compression."""
    data = wire.made(engine().data_frame(TEXT, text.encode(), True))
    ways = [(data,), (data[:9], data[9:])]
    side = engine()
    fragments = [(TEXT, text[:300], False), (CONT, text[300:], True)]
    ways.append(
        tuple(wire.made(side.data_frame(o, t.encode(), f)) for o, t, f in fragments)
    )
    kept = []
    for pieces in ways:
        peer = engine(client=False)
        for piece in pieces:
            peer.receive(piece)
        kept.append((type(peer.messages[0]), peer.queued))
        assert peer.pop() == text
        assert peer.queued == 0
    assert len(set(kept)) == 1
    assert (kept[0][0] is WideText) == ("\U0001f600" in text)


@pytest.fixture(autouse=True)
def zlib_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is counted and measured here is zlib's; see test_speed.py for ISA-L."""
    monkeypatch.setattr(_deflate, "_fast", None)


def count_contexts(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    made = {"compressobj": 0, "decompressobj": 0}
    for name in made:
        original = getattr(zlib, name)

        def make(
            *args: Any, name: str = name, original: Any = original, **more: Any
        ) -> Any:
            made[name] += 1
            return original(*args, **more)

        monkeypatch.setattr(zlib, name, make)
    return made


def test_contexts_are_made_when_first_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    made = count_contexts(monkeypatch)
    ours, theirs = engine(), engine(client=False)
    for message in (b"", b"a" * (MIN_SIZE - 1)):
        theirs.receive(wire.made(ours.data_frame(BINARY, message, True)))
        ours.receive(wire.made(theirs.data_frame(BINARY, message, True)))
    assert len(theirs.messages) == len(ours.messages) == 2
    assert made == {"compressobj": 0, "decompressobj": 0}
    theirs.receive(wire.made(ours.data_frame(BINARY, bytes(200), True)))
    assert made == {"compressobj": 1, "decompressobj": 1}
    theirs.receive(wire.made(ours.data_frame(BINARY, bytes(200), True)))
    assert made == {"compressobj": 1, "decompressobj": 1}
    assert theirs.messages.pop() == bytes(200)


@measures_memory
def test_a_negotiation_alone_costs_no_memory() -> None:
    client = ClientPerMessageDeflateFactory()
    server = ServerPerMessageDeflateFactory()
    tracemalloc.start()
    try:
        sides = []
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(100):
            answer, extension = server.process_request_params(
                client.get_request_params(), []
            )
            sides += [extension, client.process_response_params(answer, [])]
        unused, _ = tracemalloc.get_traced_memory()
        for side in sides:
            side.encode(Frame(BINARY, bytes(200)))
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert unused - before < 200 * 2000
    # 12 bits and memLevel 5; with zlib's defaults it would be 260 KB each.
    assert 200 * 10_000 < used - unused < 200 * 45_000


@pytest.mark.parametrize("no_takeover", SWITCH)
def test_context_takeover_of_what_we_send(
    no_takeover: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = count_contexts(monkeypatch)
    extension = deflate(local_no_takeover=no_takeover)
    sizes = [len(extension.encode(Frame(BINARY, BLOCK)).data) for _ in range(3)]
    assert [size > 400 for size in sizes] == [True, no_takeover, no_takeover]
    assert made["compressobj"] == (3 if no_takeover else 1)
    # Between messages there is nothing to remember, so nothing is kept.
    assert (extension._deflater is None) == no_takeover


@pytest.mark.parametrize("no_takeover", SWITCH)
def test_context_takeover_of_what_we_receive(
    no_takeover: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = count_contexts(monkeypatch)
    extension = deflate(remote_no_takeover=no_takeover)
    side = engine(extension)
    peer = deflate(local_no_takeover=no_takeover)
    for _ in range(3):
        payload = peer.encode(Frame(BINARY, BLOCK)).data
        side.receive(incoming(side, BINARY, payload))
        assert side.messages.pop() == BLOCK
    assert made["decompressobj"] == (3 if no_takeover else 1)
    assert (extension._inflater is None) == no_takeover
    # A peer that refers to earlier messages although it has promised not to.
    peer = deflate()
    payloads = [peer.encode(Frame(BINARY, BLOCK)).data for _ in range(2)]
    for payload in payloads:
        side.receive(incoming(side, BINARY, payload))
    if no_takeover:
        check_failed(side, 1002, "can't be decompressed")
    else:
        assert side.violation is None


def test_a_window_larger_than_agreed_is_an_error() -> None:
    # Within a frame zlib doesn't mind.
    side = engine(deflate(remote_bits=9))
    peer = deflate()
    for _ in range(2):
        side.receive(incoming(side, BINARY, peer.encode(Frame(BINARY, BLOCK)).data))
    check_failed(side, 1002, "can't be decompressed: ")


# -- Fragments ----------------------------------------------------------------


@ROLES
def test_control_frames_between_the_fragments_of_a_compressed_message(
    client: bool,
) -> None:
    side, peer = engine(client=client), engine(client=not client)
    text = ("\u20ac" * 300).encode()
    for part in (
        side.data_frame(TEXT, text[:400], False),
        side.send_ping(b"1"),
        side.data_frame(CONT, text[400:401], False),
        side.send_ping(b"2"),
        side.data_frame(CONT, text[401:], True),
    ):
        peer.receive(wire.made(part))
    assert list(peer.messages) == ["\u20ac" * 300]
    answers = sent_frames(peer, b"".join(peer.outbox.next_buffers(2**16)))
    assert [frame.data for frame in answers] == [b"1", b"2"]


def test_only_the_first_fragment_has_the_bit() -> None:
    side = engine()
    frames = sent_frames(
        side,
        side.data_frame(BINARY, bytes(200), False),
        side.data_frame(CONT, bytes(200), False),
        side.data_frame(CONT, b"", True),
    )
    assert [frame.rsv1 for frame in frames] == [True, False, False]


def test_the_first_fragment_decides_for_the_message() -> None:
    side = engine()
    frames = sent_frames(
        side,
        side.data_frame(BINARY, b"small", False),
        side.data_frame(CONT, bytes(200), True),
    )
    assert [(frame.rsv1, frame.data) for frame in frames] == [
        (False, b"small"),
        (False, bytes(200)),
    ]


def test_plain_and_compressed_messages_in_turn() -> None:
    side = engine()
    payload = compressed(BLOCK)
    for data in (
        incoming(side, BINARY, payload[:300], fin=False),
        incoming(side, CONT, payload[300:], rsv=0),
        incoming(side, TEXT, b"plain", rsv=0),
        incoming(side, TEXT, b"pl", rsv=0, fin=False),
        incoming(side, CONT, b"ain", rsv=0),
        incoming(side, BINARY, compressed(b"more")),
    ):
        side.receive(data)
    assert list(side.messages) == [BLOCK, "plain", "plain", b"more"]


def test_a_message_that_is_read_piece_by_piece() -> None:
    side = engine()
    text = "\u20ac" * 300
    context = zlib.compressobj(wbits=-15)
    data = text.encode()
    parts = [
        context.compress(data[a:b]) + context.flush(zlib.Z_SYNC_FLUSH)
        for a, b in ((0, 100), (100, 101), (101, 900))
    ]
    side.receive(incoming(side, TEXT, parts[0], fin=False))
    assert side.decoder.take_partial() == "\u20ac" * 33
    side.receive(incoming(side, CONT, parts[1], fin=False, rsv=0))
    assert side.decoder.take_partial() == ""  # in the middle of a character
    side.receive(incoming(side, CONT, parts[2][:-4], rsv=0))
    assert side.pop() == "\u20ac" * 267


def test_a_discarded_message_is_still_part_of_the_context() -> None:
    side = engine()
    peer = deflate()
    first = peer.encode(Frame(BINARY, BLOCK, fin=False)).data
    side.receive(incoming(side, BINARY, first, fin=False))
    side.decoder.discard_partial()
    last = peer.encode(Frame(CONT, noise(400, 3))).data
    side.receive(incoming(side, CONT, last, rsv=0))
    assert not side.messages
    again = peer.encode(Frame(BINARY, BLOCK + noise(400, 3))).data
    assert len(again) < 50
    side.receive(incoming(side, BINARY, again))
    assert side.pop() == BLOCK + noise(400, 3)


def test_logs_show_what_is_inside() -> None:
    received: list[tuple[int, bytes, int, bool]] = []
    sent: list[tuple[int, bytes, int, bool]] = []
    side = engine(
        trace_received=lambda *seen: received.append(seen),
        trace_sent=lambda *seen: sent.append(seen),
    )
    payload = compressed(b"x" * 500)
    side.receive(incoming(side, BINARY, payload[:5], fin=False))
    side.receive(incoming(side, CONT, payload[5:], rsv=0))
    assert [(opcode, fin) for opcode, _, _, fin in received] == [
        (BINARY, False),
        (CONT, True),
    ]
    assert sum(size for _, _, size, _ in received) == 500
    side.data_frame(BINARY, b"y" * 500, True)
    assert sent == [(BINARY, b"y" * 500, 500, True)]


def servers(*extensions: PerMessageDeflate | None) -> list[Engine]:
    sides = []
    for extension in extensions:
        side = Engine(client=False, max_size=None)
        side.extend([] if extension is None else [extension])
        sides.append(side)
    return sides


def peer_of(side: Engine) -> Engine:
    ours = side.decoder.deflate
    if ours is None:
        return Engine(client=True, max_size=None)
    return engine(
        deflate(
            remote_bits=ours._local_bits, remote_no_takeover=ours._local_no_takeover
        )
    )


# -- One message for many connections -------------------------------------------


def test_a_shared_frame_is_built_once_for_those_that_are_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = count_contexts(monkeypatch)
    sides = servers(
        None, None, deflate(), deflate(local_no_takeover=True), deflate(local_bits=9)
    )
    sides += servers(deflate(local_bits=8), deflate(local_bits=9))
    cache: dict[int, Any] = {}
    frames = [side.shared_frame(BINARY, BLOCK, cache) for side in sides]
    assert frames[0] is frames[1] is frames[5]  # not compressed
    assert frames[2] is frames[3]
    assert frames[4] is frames[6]
    assert len({id(frame) for frame in frames}) == 3
    assert made["compressobj"] == 2
    # A small one is the same for all.
    cache = {}
    frames = [side.shared_frame(TEXT, b"small", cache) for side in sides]
    assert len({id(frame) for frame in frames}) == 1
    assert made["compressobj"] == 2


def test_messages_before_and_after_a_shared_one() -> None:
    """None refers to what its receiver doesn't know, in any order."""
    sides = servers(
        deflate(),
        deflate(local_bits=9),
        deflate(local_no_takeover=True),
        deflate(local_bits=8),
        None,
    )
    peers = [peer_of(side) for side in sides]
    # What each says for itself differs: a context that is mixed up shows.
    own = [noise(600, 10 + number) for number in range(len(sides))]
    for _ in range(3):
        cache: dict[int, Any] = {}
        for side, peer, data in zip(sides, peers, own, strict=True):
            peer.receive(wire.made(side.data_frame(BINARY, data, True)))
            peer.receive(wire.made(side.shared_frame(BINARY, BLOCK, cache)))
            peer.receive(wire.made(side.data_frame(BINARY, data + BLOCK, True)))
    for peer, data in zip(peers, own, strict=True):
        assert peer.violation is None
        assert list(peer.messages) == [data, BLOCK, data + BLOCK] * 3


def test_a_shared_frame_is_logged() -> None:
    sent: list[tuple[int, bytes, int, bool]] = []
    side = engine(client=False, trace_sent=lambda *seen: sent.append(seen))
    side.shared_frame(BINARY, BLOCK, {})
    assert sent == [(BINARY, BLOCK, 700, True)]


def test_a_client_has_frames_of_its_own() -> None:
    # Each has its mask, so there is nothing to share, and its context goes on.
    side, peer = engine(), engine(client=False)
    cache: dict[int, Any] = {}
    sizes = []
    for _ in range(2):
        frame = wire.made(side.shared_frame(BINARY, BLOCK, cache))
        peer.receive(frame)
        sizes.append(len(frame))
    assert list(peer.messages) == [BLOCK, BLOCK]
    assert sizes[1] < 100 < sizes[0]
    assert not cache


@ROLES
def test_no_shared_frame_on_a_connection_that_is_not_open(client: bool) -> None:
    side = engine(client=client)
    side.close(1000, "")
    with pytest.raises(ProtocolError, match="SEND_DATA"):
        side.shared_frame(BINARY, BLOCK, {})


HELLO = "f2 48 cd c9 c9 07 00"


# Payloads of frames, each with FIN, of one message or of several, and what these are.
VECTORS: dict[str, tuple[list[tuple[str, bool]], list[str]]] = {
    "7.2.3.1 one block": ([(HELLO, True)], ["Hello"]),
    "7.2.3.1 fragments": ([("f2 48 cd", False), ("c9 c9 07 00", True)], ["Hello"]),
    "7.2.3.2 sharing the window": (
        [(HELLO, True), ("f2 00 11 00 00", True)],
        ["Hello", "Hello"],
    ),
    "7.2.3.2 not sharing it": ([(HELLO, True), (HELLO, True)], ["Hello", "Hello"]),
    "7.2.3.3 no compression": ([("00 05 00 fa ff 48 65 6c 6c 6f 00", True)], ["Hello"]),
    "7.2.3.4 a final block": ([("f3 48 cd c9 c9 07 00 00", True)], ["Hello"]),
    "7.2.3.5 two blocks": (
        [("f2 48 05 00 00 00 ff ff ca c9 c9 07 00", True)],
        ["Hello"],
    ),
    "7.2.3.6 an empty message": ([("00", True)], [""]),
    # Not in the RFC: final blocks elsewhere, and messages behind one.
    "final in the middle": (
        [("f3 48 cd c9 c9 07 00 f2 48 cd c9 c9 07 00", True)],
        ["HelloHello"],
    ),
    "final in fragments": (
        [("f3 48 cd c9 c9", False), ("07 00", False), (HELLO, True)],
        ["HelloHello"],
    ),
    "final, then a message": (
        [("f3 48 cd c9 c9 07 00 00", True), (HELLO, True)],
        ["Hello", "Hello"],
    ),
}


# -- The RFC's examples -------------------------------------------------------


@pytest.mark.parametrize("bytewise", SWITCH)
@pytest.mark.parametrize("max_size", [None, 10])
@pytest.mark.parametrize(("payloads", "messages"), VECTORS.values(), ids=VECTORS)
def test_vectors(
    payloads: list[tuple[str, bool]],
    messages: list[str],
    max_size: int | None,
    bytewise: bool,
) -> None:
    side = engine(max_size=max_size)
    stream = b""
    begun = False
    for text, fin in payloads:
        opcode, rsv = (CONT, 0) if begun else (TEXT, RSV1)
        stream += incoming(side, opcode, bytes.fromhex(text), fin=fin, rsv=rsv)
        begun = not fin
    pieces = [bytes([byte]) for byte in stream] if bytewise else [stream]
    for piece in pieces:
        side.receive(piece)
    assert side.violation is None
    assert list(side.messages) == messages


def test_what_we_send_is_the_example() -> None:
    # Section 7.2.3.1, were it not that we leave small messages alone.
    assert deflate().compressed_alone(b"Hello") == bytes.fromhex(HELLO)
