"""trio_ws._protocol._deflate: negotiation, compression, limits, other people's frames.

websockets' implementation of the same extension is the other side wherever there
is one, and zlib alone where the RFC's own vectors are tried.
"""

from __future__ import annotations

import base64
import functools
import itertools
import random
import tracemalloc
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import websockets.exceptions
import websockets.extensions.permessage_deflate as websockets_deflate
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Frame as PeerFrame
from websockets.frames import Opcode

from tests._protocol import wire
from tests._protocol.wire import BINARY, CLOSE, CONT, KEY, PING, PONG, TEXT
from trio_ws._protocol.engine import Engine
from trio_ws._protocol.errors import NegotiationError, PayloadTooBig, ProtocolError
from trio_ws._protocol.extensions import deflate as _deflate
from trio_ws._protocol.extensions.base import Frame
from trio_ws._protocol.extensions.deflate import (
    MIN_SIZE,
    WINDOW_BITS,
    ClientPerMessageDeflateFactory,
    PerMessageDeflate,
    ServerPerMessageDeflateFactory,
)
from trio_ws._protocol.frames.outbox import Encoded

RSV1 = 4  # as wire.frame() takes it
ROLES = pytest.mark.parametrize("client", [False, True], ids=["server", "client"])

Params = Sequence[tuple[str, str | None]]


def random_bytes(size: int) -> bytes:
    """Return bytes that can't be compressed, the same each time."""
    return random.Random(0).randbytes(size)


def noise(size: int, seed: int = 0) -> bytes:
    """Return text that is compressed to three quarters, the same each time.

    What can't be compressed is sent as it is, so it would show nothing.
    """
    return base64.b64encode(random.Random(seed).randbytes(size))[:size]


# What shows a window that is too small on the receiving side, and a context that
# one side alone takes over: references over 300, 700 and 20,000 bytes, and to the
# message before.
BLOCK = noise(700)
PROBES = [noise(300, 1) * 3, BLOCK + BLOCK, BLOCK, noise(20_000, 2) * 2, BLOCK]


def deflate(
    *,
    remote_no_takeover: bool = False,
    local_no_takeover: bool = False,
    remote_bits: int = 15,
    local_bits: int = 15,
    **more: Any,
) -> PerMessageDeflate:
    return PerMessageDeflate(
        remote_no_context_takeover=remote_no_takeover,
        local_no_context_takeover=local_no_takeover,
        remote_max_window_bits=remote_bits,
        local_max_window_bits=local_bits,
        **more,
    )


def engine(
    extension: PerMessageDeflate | None = None,
    *,
    client: bool = True,
    max_size: int | None = None,
    **traces: Any,
) -> Engine:
    side = Engine(client=client, max_size=max_size, **traces)
    side.extend([deflate() if extension is None else extension])
    return side


def incoming(
    side: Engine, opcode: int, payload: bytes, *, fin: bool = True, rsv: int = RSV1
) -> bytes:
    """Make a frame as the peer of ``side`` would."""
    key = None if side.client else KEY
    return wire.frame(opcode, payload, fin=fin, rsv=rsv, key=key)


def sent_frames(side: Engine, *encoded: Encoded) -> list[PeerFrame]:
    """Read what ``side`` made by another parser."""
    stream = b"".join(map(wire.made, encoded))
    return wire.parse_extended(stream, masked=side.client)


def compressed(data: bytes, *, level: int = 6, bits: int = 15) -> bytes:
    """Make the payload of a compressed message (section 7.2.1)."""
    context = zlib.compressobj(level, wbits=-bits)
    made = context.compress(data) + context.flush(zlib.Z_SYNC_FLUSH)
    assert made.endswith(b"\x00\x00\xff\xff")
    return made[:-4]


def check_failed(side: Engine, code: int, text: str) -> None:
    assert side.violation is not None
    assert side.violation.close_code == code
    assert text in str(side.violation)
    assert isinstance(side.violation, PayloadTooBig) == (code == 1009)


# -- Negotiation, against websockets ------------------------------------------

SWITCH = (False, True)
OFFERS = list(itertools.product(SWITCH, SWITCH, (None, 9, 15), (None, True, 9, 15)))
WISHES = list(itertools.product(SWITCH, SWITCH, (None, 9, 15), (None, 9, 15)))


_NAMES = (
    "server_no_context_takeover",
    "client_no_context_takeover",
    "server_max_window_bits",
    "client_max_window_bits",
)


def keywords(values: Sequence[Any]) -> dict[str, Any]:
    return dict(zip(_NAMES, values, strict=True))


def to_peer(frame: Frame) -> PeerFrame:
    return PeerFrame(
        Opcode(frame.opcode), frame.data, frame.fin, frame.rsv1, frame.rsv2, frame.rsv3
    )


def from_peer(frame: PeerFrame) -> Frame:
    return Frame(
        int(frame.opcode),
        bytes(frame.data),
        frame.fin,
        frame.rsv1,
        frame.rsv2,
        frame.rsv3,
    )


def check_talk(ours: PerMessageDeflate, theirs: Any) -> None:
    """Exchange messages for which each parameter has to be understood alike."""
    for data in PROBES:
        frame = ours.encode(Frame(BINARY, data))
        assert theirs.decode(to_peer(frame)).data == data
        received = ours.decode(from_peer(theirs.encode(PeerFrame(Opcode.BINARY, data))))
        assert received == Frame(BINARY, data)


def check_agreement(ours: PerMessageDeflate, theirs: Any) -> None:
    # What we send we may make smaller or simpler than we have to; what we are to
    # read has to be what the peer makes.
    assert ours._remote_bits == theirs.local_max_window_bits
    assert ours._remote_no_takeover == theirs.local_no_context_takeover
    assert ours._local_bits <= theirs.remote_max_window_bits
    assert ours._local_no_takeover or not theirs.remote_no_context_takeover


# One of these in as many pairs is tried with messages: the contexts cost time.
STRIDE = 7


@pytest.mark.parametrize("wish", WISHES, ids=str)
def test_our_offers_to_websockets(wish: Any) -> None:
    server = websockets_deflate.ServerPerMessageDeflateFactory(*wish)
    for number, offer in enumerate(OFFERS):
        ours = ClientPerMessageDeflateFactory(**keywords(offer))
        params = ours.get_request_params()
        peer = websockets_deflate.ClientPerMessageDeflateFactory(*offer)
        assert params == peer.get_request_params()
        answer, their_extension = server.process_request_params(params, [])
        try:
            peer.process_response_params(answer, [])
        except websockets.exceptions.NegotiationError:
            with pytest.raises(NegotiationError):
                ours.process_response_params(answer, [])
            continue
        extension = ours.process_response_params(answer, [])
        assert isinstance(extension, PerMessageDeflate)
        check_agreement(extension, their_extension)
        if number % STRIDE == 0:
            check_talk(extension, their_extension)


@pytest.mark.parametrize("wish", WISHES, ids=str)
def test_our_answers_to_websockets(wish: Any) -> None:
    server = ServerPerMessageDeflateFactory(**keywords(wish))
    small = itertools.product([False], [False], [8], (None, True, 9, 15))
    for number, offer in enumerate([*OFFERS, *small]):
        peer = websockets_deflate.ClientPerMessageDeflateFactory(*offer)
        answer, extension = server.process_request_params(peer.get_request_params(), [])
        assert isinstance(extension, PerMessageDeflate)
        # Raises if it is no answer to the offer.
        their_extension = peer.process_response_params(list(answer), [])
        # An offer of client_max_window_bits without an answer binds websockets
        # alone, to what it has offered.
        if offer[3] is None or offer[3] is True:
            check_agreement(extension, their_extension)
        assert extension._remote_bits >= their_extension.local_max_window_bits
        if number % STRIDE == 0:
            check_talk(extension, their_extension)


ALL_BITS = (None, 8, 9, 12, 15)


def test_our_own_two_sides_agree_on_anything() -> None:
    """Also on a window of 8 bits, which websockets doesn't do."""
    offers = itertools.product(SWITCH, SWITCH, ALL_BITS, (True, *ALL_BITS))
    wishes = list(itertools.product(SWITCH, SWITCH, ALL_BITS, ALL_BITS))
    for offer in offers:
        client = ClientPerMessageDeflateFactory(**keywords(offer))
        for wish in wishes:
            server = ServerPerMessageDeflateFactory(**keywords(wish))
            params = client.get_request_params()
            answer, accepted = server.process_request_params(params, [])
            made = client.process_response_params(answer, [])
            assert isinstance(made, PerMessageDeflate)
            assert isinstance(accepted, PerMessageDeflate)
            for one, other in ((made, accepted), (accepted, made)):
                assert one._local_bits <= other._remote_bits
                assert one._local_no_takeover >= other._remote_no_takeover
            for limit in (offer[2], wish[2]):
                assert accepted._local_bits <= (limit or 15)
            assert accepted._local_no_takeover == (offer[0] or wish[0])
            assert made._local_no_takeover == (offer[1] or wish[1])


def test_defaults() -> None:
    client = ClientPerMessageDeflateFactory()
    assert client.get_request_params() == [("client_max_window_bits", None)]
    server = ServerPerMessageDeflateFactory()
    answer, theirs = server.process_request_params(client.get_request_params(), [])
    assert answer == [
        ("server_max_window_bits", "12"),
        ("client_max_window_bits", "12"),
    ]
    ours = client.process_response_params(answer, [])
    for side in (ours, theirs):
        assert isinstance(side, PerMessageDeflate)
        assert side._local_bits == side._remote_bits == WINDOW_BITS == 12
    # A server that says nothing may use any window; ours stays small.
    silent = client.process_response_params([], [])
    assert isinstance(silent, PerMessageDeflate)
    assert (silent._local_bits, silent._remote_bits) == (12, 15)
    # Nor does it have to answer what a client says of itself.
    factory = ClientPerMessageDeflateFactory(
        client_no_context_takeover=True, client_max_window_bits=10
    )
    silent = factory.process_response_params([], [])
    assert isinstance(silent, PerMessageDeflate)
    assert (silent._local_no_takeover, silent._local_bits) == (True, 10)
    # A client that doesn't know the parameter isn't told it.
    answer, theirs = server.process_request_params([], [])
    assert answer == [("server_max_window_bits", "12")]
    assert isinstance(theirs, PerMessageDeflate)
    assert (theirs._local_bits, theirs._remote_bits) == (12, 15)


# Names and values of section 7.1 that aren't right in either direction.
WRONG: dict[str, Params] = {
    **{
        f"{name} {value}": [(name, value)]
        for name in _NAMES[2:]
        for value in ("7", "16", "x", "08", "+9", "9.0", "0", "-9", "", "\u0669")
    },
    "server_max_window_bits": [("server_max_window_bits", None)],
    "server_no_context_takeover true": [("server_no_context_takeover", "true")],
    "client_no_context_takeover 1": [("client_no_context_takeover", "1")],
    "unknown": [("mux", None)],
    "unknown with value": [("mux", "1")],
    "case": [("Server_No_Context_Takeover", None)],
    **{
        f"twice {name}": [(name, value), (name, value)]
        for name, value in zip(_NAMES, (None, None, "9", "9"), strict=True)
    },
    "twice, differently": [
        ("client_max_window_bits", None),
        ("client_max_window_bits", "9"),
    ],
}


@pytest.mark.parametrize("params", WRONG.values(), ids=WRONG)
def test_wrong_parameters(params: Params) -> None:
    client = ClientPerMessageDeflateFactory(server_max_window_bits=9)
    with pytest.raises(NegotiationError):
        client.process_response_params(params, [])
    with pytest.raises(NegotiationError):
        ServerPerMessageDeflateFactory().process_request_params(params, [])


ANSWERS: list[tuple[dict[str, Any], Params, str]] = [
    ({}, [("client_max_window_bits", None)], "expected 8 to 15"),
    (
        {"client_max_window_bits": None},
        [("client_max_window_bits", "9")],
        "unexpected client_max_window_bits",
    ),
    (
        {"client_max_window_bits": 9},
        [("client_max_window_bits", "10")],
        "expected client_max_window_bits up to 9",
    ),
    (
        {"server_max_window_bits": 9},
        [],
        "expected server_max_window_bits up to 9",
    ),
    (
        {"server_max_window_bits": 9},
        [("server_max_window_bits", "10")],
        "expected server_max_window_bits up to 9",
    ),
    ({"server_max_window_bits": 15}, [], "expected server_max_window_bits up to 15"),
    ({"server_no_context_takeover": True}, [], "expected server_no_context_takeover"),
]


@pytest.mark.parametrize(("offer", "answer", "text"), ANSWERS)
def test_answers_that_do_not_fit_the_offer(
    offer: dict[str, Any], answer: Params, text: str
) -> None:
    factory = ClientPerMessageDeflateFactory(**offer)
    with pytest.raises(NegotiationError, match=text):
        factory.process_response_params(answer, [])


def test_compression_twice() -> None:
    for extend in (
        ClientPerMessageDeflateFactory().process_response_params,
        ServerPerMessageDeflateFactory().process_request_params,
    ):
        with pytest.raises(NegotiationError, match="duplicate extension"):
            extend([], [deflate()])


@pytest.mark.parametrize(
    "wrong",
    [
        {"server_max_window_bits": 7},
        {"server_max_window_bits": 16},
        {"server_max_window_bits": "9"},
        {"server_max_window_bits": True},
        {"server_max_window_bits": 9.0},
        {"client_max_window_bits": 7},
        {"client_max_window_bits": 1},  # equals True
        {"client_max_window_bits": False},
        {"compress_settings": {"wbits": 12}},
        {"compress_settings": {"memLevel": 77}},
    ],
    ids=str,
)
def test_wrong_configurations(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    for factory in (ClientPerMessageDeflateFactory, ServerPerMessageDeflateFactory):
        with pytest.raises(ValueError, match=name):
            factory(**wrong)
    with pytest.raises(ValueError, match="client_max_window_bits"):
        ServerPerMessageDeflateFactory(client_max_window_bits=True)


def test_wrong_settings() -> None:
    # In the constructor, not in the first send().
    for factory in (ClientPerMessageDeflateFactory, ServerPerMessageDeflateFactory):
        with pytest.raises(TypeError, match="compress_settings"):
            factory(compress_settings={"speed": 9})


def test_settings_are_used_and_copied() -> None:
    chosen = {"level": 0}
    client = ClientPerMessageDeflateFactory(compress_settings=chosen)
    server = ServerPerMessageDeflateFactory(compress_settings=chosen)
    chosen["level"] = 9
    answer, accepted = server.process_request_params(client.get_request_params(), [])
    for extension in (accepted, client.process_response_params(answer, [])):
        frame = extension.encode(Frame(BINARY, bytes(500), fin=False))
        assert len(frame.data) > 500  # stored


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


# -- One message for many connections -------------------------------------------


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


# -- The RFC's examples -------------------------------------------------------

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


# -- Bombs --------------------------------------------------------------------

MiB = 2**20


@functools.cache
def bomb(size: int) -> bytes:
    """Compress so many MiB of zeros."""
    context = zlib.compressobj(9, wbits=-15)
    head = context.compress(bytes(MiB)) + context.flush(zlib.Z_FULL_FLUSH)
    part = context.compress(bytes(MiB)) + context.flush(zlib.Z_FULL_FLUSH)
    return (head + part * (size - 1))[:-4]


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
    """The most that was allocated in a block, in bytes."""

    peak = 0

    def __enter__(self) -> Memory:
        tracemalloc.start()
        return self

    def __exit__(self, *_: object) -> None:
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


# -- Any messages -------------------------------------------------------------

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
        assert list(receiver.messages) == expected


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
    for frame in frames:
        if frame.opcode is not Opcode.CONT:
            left = max_size
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
