"""permessage-deflate: what is offered, accepted and refused."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import websockets.exceptions
import websockets.extensions.permessage_deflate as websockets_deflate
from websockets.frames import Frame as PeerFrame
from websockets.frames import Opcode

from tests.peers.wire import BINARY
from tests.protocol.extensions.compressed import (
    _NAMES,
    BLOCK,
    SWITCH,
    deflate,
    from_peer,
    keywords,
    noise,
)
from trio_ws._protocol.errors import NegotiationError
from trio_ws._protocol.extensions import deflate as _deflate
from trio_ws._protocol.extensions.base import Frame
from trio_ws._protocol.extensions.deflate import (
    WINDOW_BITS,
    ClientPerMessageDeflateFactory,
    PerMessageDeflate,
    ServerPerMessageDeflateFactory,
)

Params = Sequence[tuple[str, str | None]]

PROBES = [noise(300, 1) * 3, BLOCK + BLOCK, BLOCK, noise(20_000, 2) * 2, BLOCK]

OFFERS = list(itertools.product(SWITCH, SWITCH, (None, 9, 15), (None, True, 9, 15)))
WISHES = list(itertools.product(SWITCH, SWITCH, (None, 9, 15), (None, 9, 15)))


def to_peer(frame: Frame) -> PeerFrame:
    return PeerFrame(
        Opcode(frame.opcode), frame.data, frame.fin, frame.rsv1, frame.rsv2, frame.rsv3
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
    # A client that names no window of the server's isn't told of it either.
    assert answer == [("client_max_window_bits", "12")]
    ours = client.process_response_params(answer, [])
    for side, remote_bits in ((ours, 15), (theirs, 12)):
        assert isinstance(side, PerMessageDeflate)
        assert side._local_bits == WINDOW_BITS == 12
        assert side._remote_bits == remote_bits
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
    assert answer == []
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
        [("server_max_window_bits", "10")],
        "expected server_max_window_bits up to 9",
    ),
    ({"server_no_context_takeover": True}, [], "expected server_no_context_takeover"),
]


@pytest.mark.parametrize(("offer", "answer", "text"), ANSWERS)
def test_answers_that_do_not_fit_the_offer(
    offer: dict[str, Any], answer: Params, text: str
) -> None:
    factory = ClientPerMessageDeflateFactory(**offer)
    with pytest.raises(NegotiationError, match=text):
        factory.process_response_params(answer, [])


@pytest.mark.parametrize("wish", ALL_BITS)
def test_a_server_names_its_window_only_to_who_asked(wish: int | None) -> None:
    server = ServerPerMessageDeflateFactory(server_max_window_bits=wish)
    for offer in ALL_BITS:
        params = [] if offer is None else [("server_max_window_bits", str(offer))]
        answer, extension = server.process_request_params(params, [])
        bits = min(offer or 15, wish or 15)
        asked = [("server_max_window_bits", str(bits))]
        assert answer == ([] if offer is None else asked)
        # It is kept to in any case.
        assert isinstance(extension, PerMessageDeflate)
        assert extension._local_bits == bits


@pytest.mark.parametrize("bits", range(9, 16))
def test_a_window_that_is_not_named_is_kept_to(bits: int) -> None:
    server = ServerPerMessageDeflateFactory(server_max_window_bits=bits)
    answer, ours = server.process_request_params([], [])
    assert answer == []
    largest = deflate()
    smallest = deflate(remote_bits=bits)
    for data in PROBES:
        frame = ours.encode(Frame(BINARY, data))
        for theirs in (largest, smallest):
            assert theirs.decode(frame).data == data


@pytest.mark.parametrize("limit", range(8, 16))
def test_an_answer_without_the_window_that_was_asked_for(limit: int) -> None:
    client = ClientPerMessageDeflateFactory(server_max_window_bits=limit)
    ours = client.process_response_params([], [])
    assert isinstance(ours, PerMessageDeflate)
    assert ours._remote_bits == 15
    theirs = deflate()
    for data in PROBES:
        assert ours.decode(theirs.encode(Frame(BINARY, data))).data == data


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


@pytest.fixture(autouse=True)
def zlib_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is counted and measured here is zlib's; see test_speed.py for ISA-L."""
    monkeypatch.setattr(_deflate, "_fast", None)
