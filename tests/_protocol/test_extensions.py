"""Extensions in the handshake, the codec and the engine: ours, others, several.

The two extensions of this file stand for those of users: one changes payloads and
uses a reserved bit, the other only looks.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import websockets.extensions.permessage_deflate as peer_deflate
from hypothesis import given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.http11 import Response as PeerResponse
from websockets.server import ServerProtocol
from websockets.uri import parse_uri as parse_peer_uri

from tests._protocol import wire
from tests._protocol.test_deflate import BLOCK, noise
from tests._protocol.test_handshake import request_bytes
from tests._protocol.wire import BINARY, CLOSE, CONT, KEY, PING, PONG, TEXT
from trio_ws._protocol.engine import Engine
from trio_ws._protocol.errors import (
    InvalidHandshake,
    InvalidHeaderFormat,
    NegotiationError,
    PayloadTooBig,
    ProtocolError,
)
from trio_ws._protocol.extensions.base import (
    ClientExtensionFactory,
    Extension,
    Frame,
    ServerExtensionFactory,
)
from trio_ws._protocol.extensions.deflate import (
    ClientPerMessageDeflateFactory,
    PerMessageDeflate,
    ServerPerMessageDeflateFactory,
)
from trio_ws._protocol.handshake.client import ClientHandshake
from trio_ws._protocol.handshake.common import accept_key
from trio_ws._protocol.handshake.server import ServerHandshake
from trio_ws._protocol.uri import parse_uri

Params = Sequence[tuple[str, str | None]]
Factories = list[Any]

URI = parse_uri("ws://example.com/chat")


# -- Two extensions of a user's ------------------------------------------------


class Xor(Extension):
    """XORs the payload of each data frame with a byte, and says so by RSV2."""

    name = "x-xor"

    def __init__(self, key: int) -> None:
        self.key = key

    def _applied(self, frame: Frame, rsv2: bool) -> Frame:
        data = bytes(byte ^ self.key for byte in frame.data)
        return Frame(
            frame.opcode, data, frame.fin, rsv1=frame.rsv1, rsv2=rsv2, rsv3=frame.rsv3
        )

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        if frame.opcode & 0x08:
            return frame
        if not frame.rsv2:
            raise ProtocolError("reserved bit 2 is not set")
        return self._applied(frame, False)

    def encode(self, frame: Frame) -> Frame:
        return frame if frame.opcode & 0x08 else self._applied(frame, True)


class ClientXor(ClientExtensionFactory):
    name = "x-xor"

    def __init__(self, key: int = 0x55) -> None:
        self.key = key

    def get_request_params(self) -> Params:
        return [("key", str(self.key))]

    def process_response_params(
        self, params: Params, accepted_extensions: Sequence[Extension]
    ) -> Extension:
        if list(params) != [("key", str(self.key))]:
            raise NegotiationError("expected the key that was offered")
        return Xor(self.key)


class ServerXor(ServerExtensionFactory):
    name = "x-xor"

    def process_request_params(
        self, params: Params, accepted_extensions: Sequence[Extension]
    ) -> tuple[Params, Extension]:
        match list(params):
            case [("key", str(key))] if key.isdecimal() and int(key) < 256:
                return params, Xor(int(key))
        raise NegotiationError("expected a key")


class Count(Extension):
    """Counts the frames, and leaves them as they are."""

    name = "x-count"

    def __init__(self) -> None:
        self.received: list[int] = []  # opcodes
        self.sent: list[int] = []

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        self.received.append(frame.opcode)
        return frame

    def encode(self, frame: Frame) -> Frame:
        self.sent.append(frame.opcode)
        return frame


class ClientCount(ClientExtensionFactory):
    name = "x-count"

    def get_request_params(self) -> Params:
        return []

    def process_response_params(
        self, params: Params, accepted_extensions: Sequence[Extension]
    ) -> Extension:
        return Count()


class ServerCount(ServerExtensionFactory):
    name = "x-count"

    def process_request_params(
        self, params: Params, accepted_extensions: Sequence[Extension]
    ) -> tuple[Params, Extension]:
        return [], Count()


FACTORIES: dict[str, Callable[[], tuple[Factories, Factories]]] = {
    "xor": lambda: ([ClientXor()], [ServerXor()]),
    "count": lambda: ([ClientCount()], [ServerCount()]),
    "xor, deflate": lambda: (
        [ClientXor(), ClientPerMessageDeflateFactory()],
        [ServerPerMessageDeflateFactory(), ServerXor()],
    ),
    "deflate, xor": lambda: (
        [ClientPerMessageDeflateFactory(), ClientXor()],
        [ServerXor(), ServerPerMessageDeflateFactory()],
    ),
    "count, deflate, xor": lambda: (
        [ClientCount(), ClientPerMessageDeflateFactory(), ClientXor()],
        [ServerXor(), ServerPerMessageDeflateFactory(), ServerCount()],
    ),
}

TOGETHER = pytest.mark.parametrize("names", FACTORIES)


# -- The handshake -------------------------------------------------------------


def negotiated(
    client: Factories, server: Factories
) -> tuple[ClientHandshake, ServerHandshake, str | None]:
    """Do the opening handshake; return both sides and the answer's header."""
    ours = ClientHandshake(URI, extensions=client)
    theirs = ServerHandshake(extensions=server)
    request = theirs.receive(ours.request_bytes)
    assert request is not None
    response = theirs.accept(request)
    assert ours.receive(response.serialize()) is not None
    return ours, theirs, response.headers.get("Sec-WebSocket-Extensions")


def names_of(extensions: Sequence[Extension]) -> list[str]:
    return [extension.name for extension in extensions]


@TOGETHER
def test_both_sides_have_the_same_in_the_order_of_the_offer(names: str) -> None:
    # Whatever the server's order is: section 9.1 leaves it to the client.
    client, server = FACTORIES[names]()
    ours, theirs, _ = negotiated(client, server)
    assert names_of(ours.extensions) == [factory.name for factory in client]
    assert names_of(theirs.extensions) == [factory.name for factory in client]


def test_none_offered_or_none_accepted() -> None:
    for client, server in (([], [ServerXor()]), ([ClientXor()], []), ([], [])):
        ours, theirs, header = negotiated(client, server)
        assert header is None
        assert ours.extensions == theirs.extensions == []
        offered = "Sec-WebSocket-Extensions" in ours.request.headers
        assert offered == bool(client)


def test_an_offer_that_is_declined_is_followed_by_the_next() -> None:
    # Three offers of the same extension: the first that suits is taken, and the
    # client finds the offer that is answered.
    client = [ClientXor(999), ClientXor(3), ClientXor(4)]

    class Once(ServerXor):
        def process_request_params(
            self, params: Params, accepted_extensions: Sequence[Extension]
        ) -> tuple[Params, Extension]:
            if accepted_extensions:
                raise NegotiationError("once is enough")
            return super().process_request_params(params, accepted_extensions)

    ours, theirs, header = negotiated(client, [Once()])
    assert header == "x-xor; key=3"
    for extensions in (ours.extensions, theirs.extensions):
        (xor,) = extensions
        assert isinstance(xor, Xor)
        assert xor.key == 3


def test_several_factories_of_a_server_for_one_name() -> None:
    class Never(ServerXor):
        def process_request_params(
            self, params: Params, accepted_extensions: Sequence[Extension]
        ) -> tuple[Params, Extension]:
            raise NegotiationError("never")

    _, theirs, _ = negotiated([ClientXor()], [Never(), ServerXor()])
    assert len(theirs.extensions) == 1


def answer_to(*offers: str) -> str | None:
    """Let a server with compression answer; return its header."""
    server = ServerHandshake(extensions=[ServerPerMessageDeflateFactory()])
    headers = [f"Sec-WebSocket-Extensions: {offer}" for offer in offers]
    request = server.receive(request_bytes(*headers))
    assert request is not None
    response = server.accept(request)
    assert response.status_code == 101
    assert len(server.extensions) == ("Sec-WebSocket-Extensions" in response.headers)
    return response.headers.get("Sec-WebSocket-Extensions")


ACCEPTED = "permessage-deflate; server_max_window_bits=12"


@pytest.mark.parametrize(
    "offer",
    [
        "permessage-deflate; server_max_window_bits=7",
        "permessage-deflate; server_max_window_bits=16",
        "permessage-deflate; server_max_window_bits=x",
        "permessage-deflate; server_max_window_bits=08",
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; client_max_window_bits=16",
        "permessage-deflate; client_max_window_bits=09",
        "permessage-deflate; client_max_window_bits; client_max_window_bits",
        "permessage-deflate; server_max_window_bits=9; server_max_window_bits=9",
        "permessage-deflate; server_no_context_takeover=1",
        "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
        "permessage-deflate; mux=4",
        "permessage-deflate" + "; server_no_context_takeover" * 250,
        "permessage-deflated",
        "PerMessage-Deflate",
        "x-webkit-deflate-frame",
    ],
    ids=lambda offer: offer[:80],
)
def test_offers_that_are_declined(offer: str) -> None:
    assert answer_to(offer) is None
    # It costs the others nothing.
    assert answer_to(f"{offer}, permessage-deflate") == ACCEPTED
    assert answer_to("permessage-deflate", offer) == ACCEPTED


@pytest.mark.parametrize(
    ("offer", "answer"),
    [
        ("permessage-deflate", ACCEPTED),
        ("permessage-deflate, permessage-deflate", ACCEPTED),
        (",, permessage-deflate ,,", ACCEPTED),
        (
            'permessage-deflate; server_max_window_bits="10"',
            "permessage-deflate; server_max_window_bits=10",
        ),
        (
            "permessage-deflate;client_max_window_bits",
            f"{ACCEPTED}; client_max_window_bits=12",
        ),
        (
            "permessage-deflate\t; client_max_window_bits = 9",
            f"{ACCEPTED}; client_max_window_bits=9",
        ),
        (
            "permessage-deflate; server_no_context_takeover",
            "permessage-deflate; server_no_context_takeover; server_max_window_bits=12",
        ),
        (", ".join(["permessage-deflate"] * 400), ACCEPTED),
    ],
    ids=lambda text: text[:80],
)
def test_offers_that_are_accepted(offer: str, answer: str) -> None:
    assert answer_to(offer) == answer


MALFORMED = [
    "permessage-deflate; server_max_window_bits=",
    'permessage-deflate; server_max_window_bits="9',
    'permessage-deflate; server_max_window_bits=9"',
    'permessage-deflate; server_max_window_bits="9 "',
    "permessage-deflate;",
    "permessage-deflate; =9",
    "permessage-deflate; a b",
    "permessage deflate",
    "permessage-deflate; \xe9",
    "; permessage-deflate",
    "",
    "," * 8000,
    ", " * 4000,
    "a;" * 4000,
    "a," * 4000 + "=",
    'a="' + "\\x" * 3900,
    'a;b="' + "\\x" * 3900,
    "a;b=" * 1900,
    "a " * 4000,
]


@pytest.mark.parametrize("offer", MALFORMED, ids=lambda offer: offer[:50])
def test_offers_that_are_answered_with_400(offer: str) -> None:
    server = ServerHandshake(extensions=[ServerPerMessageDeflateFactory()])
    request = server.receive(request_bytes(f"Sec-WebSocket-Extensions: {offer}"))
    assert request is not None
    with pytest.raises(InvalidHeaderFormat) as caught:
        server.accept(request)
    response = server.rejection(caught.value)
    assert response.status_code == 400
    assert b"Sec-WebSocket-Extensions" in response.body


def steps(call: Callable[[], object]) -> int:
    """Count the calls, of Python and of C, that a call makes."""
    count = 0

    def profile(frame: Any, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        call()
    finally:
        sys.setprofile(before)
    return count


@pytest.mark.parametrize(
    "unit",
    [
        ",",
        "permessage-deflate,",
        "permessage-deflate; mux,",
        "permessage-deflate; server_max_window_bits=16,",
        "x-xor; key=999,",
        'a; b="\\9", ',
    ],
)
def test_time_is_linear_in_the_size_of_an_offer(unit: str) -> None:
    def answer(size: int) -> int:
        offer = unit * (size // len(unit)) + "permessage-deflate"
        handshake = ServerHandshake(
            extensions=[ServerPerMessageDeflateFactory(), ServerXor()]
        )
        request = handshake.receive(request_bytes(f"Sec-WebSocket-Extensions: {offer}"))
        assert request is not None
        count = steps(lambda: handshake.accept(request))
        assert names_of(handshake.extensions) == ["permessage-deflate"]
        return count

    assert answer(8000) < 2.2 * answer(4000) + 100


def client_with(*factories: Any) -> ClientHandshake:
    return ClientHandshake(URI, extensions=factories)


def check_answer(client: ClientHandshake, header: str) -> None:
    key = client.request.headers["Sec-WebSocket-Key"]
    response = (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Accept: {accept_key(key)}\r\n"
        f"Sec-WebSocket-Extensions: {header}\r\n\r\n"
    )
    assert client.receive(response.encode("iso-8859-1")) is not None


@pytest.mark.parametrize(
    ("header", "text"),
    [
        ("x-other", "expected no extension x-other: not offered"),
        ("permessage-deflate, x-other; a=1", "x-other: not offered"),
        ("permessage-deflate, permessage-deflate", "duplicate extension"),
        ("permessage-deflate; mux", "unknown parameter: mux"),
        ("permessage-deflate; server_max_window_bits=7", "expected 8 to 15"),
        ("permessage-deflate; client_max_window_bits", "expected 8 to 15"),
        ("Permessage-Deflate", "not offered"),
    ],
)
def test_answers_that_are_wrong(header: str, text: str) -> None:
    client = client_with(ClientPerMessageDeflateFactory())
    with pytest.raises(NegotiationError, match=text):
        check_answer(client, header)


def test_an_answer_where_nothing_was_offered() -> None:
    with pytest.raises(NegotiationError, match="not offered"):
        check_answer(client_with(), "permessage-deflate")


@pytest.mark.parametrize("header", MALFORMED)
def test_answers_that_are_malformed(header: str) -> None:
    client = client_with(ClientPerMessageDeflateFactory())
    with pytest.raises(InvalidHeaderFormat):
        check_answer(client, header)


def test_an_answer_to_one_of_two_offers() -> None:
    narrow = ClientPerMessageDeflateFactory(server_max_window_bits=9)
    wide = ClientPerMessageDeflateFactory(client_max_window_bits=None)
    for header, bits in (
        ("permessage-deflate; server_max_window_bits=9", 9),
        ("permessage-deflate; server_max_window_bits=12", 12),
        ("permessage-deflate", 15),
    ):
        client = client_with(narrow, wide)
        check_answer(client, header)
        (extension,) = client.extensions
        assert isinstance(extension, PerMessageDeflate)
        assert extension._remote_bits == bits
    # Neither: the reason given is that of the last.
    with pytest.raises(NegotiationError, match="unexpected client_max_window_bits"):
        check_answer(
            client_with(narrow, wide), "permessage-deflate; client_max_window_bits=9"
        )


def test_a_name_or_a_parameter_that_cannot_be_sent() -> None:
    class Wrong(ClientXor):
        name = "x xor"

    with pytest.raises(ValueError, match="expected a token; got 'x xor'"):
        client_with(Wrong())

    class Broken(ClientXor):
        def get_request_params(self) -> Params:
            return [("a", "b\r\nc")]

    with pytest.raises(ValueError, match=r"expected a token; got 'b\\r\\nc'"):
        client_with(Broken())


def test_the_handshake_with_websockets() -> None:
    """Both header lines, read and written by both."""
    client = ClientProtocol(
        parse_peer_uri("ws://example.com/chat"),
        extensions=[peer_deflate.ClientPerMessageDeflateFactory()],
    )
    server = ServerHandshake(extensions=[ServerPerMessageDeflateFactory()])
    client.send_request(client.connect())
    request = server.receive(b"".join(client.data_to_send()))
    assert request is not None
    client.receive_data(server.accept(request).serialize())
    (response,) = client.events_received()
    assert isinstance(response, PeerResponse)
    assert client.handshake_exc is None
    assert [extension.name for extension in client.extensions] == ["permessage-deflate"]

    peer = ServerProtocol(extensions=[peer_deflate.ServerPerMessageDeflateFactory()])
    ours = client_with(ClientPerMessageDeflateFactory())
    peer.receive_data(ours.request_bytes)
    (asked,) = peer.events_received()
    peer.send_response(peer.accept(asked))  # type: ignore[arg-type]
    assert ours.receive(b"".join(peer.data_to_send())) is not None
    assert names_of(ours.extensions) == ["permessage-deflate"]


HEADERS = st.lists(
    st.sampled_from(
        [
            *("permessage-deflate", "x-xor", "; ", ", ", "=", '"', "key", "9", "\\"),
            *("server_max_window_bits", "client_max_window_bits", "\t", "\xe9"),
            "server_no_context_takeover",
        ]
    )
    | st.text('ab;,= "\\', max_size=3),
    max_size=20,
).map(lambda parts: "".join(parts).strip(" \t"))


@given(HEADERS)
def test_any_header_raises_only_what_is_documented(header: str) -> None:
    server = ServerHandshake(extensions=[ServerPerMessageDeflateFactory(), ServerXor()])
    request = server.receive(request_bytes(f"Sec-WebSocket-Extensions: {header}"))
    assert request is not None
    problem: InvalidHandshake | None = None
    try:
        server.accept(request)
    except InvalidHandshake as exc:
        problem = exc
    assert problem is None or server.rejection(problem).status_code == 400
    client = client_with(ClientPerMessageDeflateFactory(), ClientXor())
    try:
        check_answer(client, header)
    except InvalidHandshake:
        pass


# -- Frames --------------------------------------------------------------------


def engines(
    names: str, *, max_size: int | None = None
) -> tuple[Engine, Engine, list[Extension], list[Extension]]:
    """Return a client and a server that have agreed, and their extensions."""
    ours, theirs, _ = negotiated(*FACTORIES[names]())
    client = Engine(client=True, max_size=max_size)
    server = Engine(client=False, max_size=max_size)
    client.extend(ours.extensions)
    server.extend(theirs.extensions)
    return client, server, ours.extensions, theirs.extensions


def take(side: Engine) -> bytes:
    taken = b"".join(side.outbox.next_buffers(2**30))
    side.outbox.consume(len(taken))
    return taken


@TOGETHER
@pytest.mark.parametrize("piece", [1, 7, 10_000])
def test_messages_through_extensions(names: str, piece: int) -> None:
    client, server, _, _ = engines(names)
    for sender, receiver in ((client, server), (server, client)):
        stream = b"".join(
            [
                wire.made(sender.data_frame(TEXT, "g\u20ac".encode(), True)),
                wire.made(sender.data_frame(BINARY, BLOCK, True)),
                wire.made(sender.data_frame(BINARY, BLOCK, True)),
                wire.made(sender.data_frame(BINARY, BLOCK, True, False)),
                wire.made(sender.data_frame(BINARY, b"", True)),
                wire.made(sender.data_frame(TEXT, b"a" * 300, False)),
                sender.send_ping(b"p" * 125),
                wire.made(sender.data_frame(CONT, b"b" * 300, True)),
            ]
        )
        pongs: list[bytes] = []
        sender.on_pong = pongs.append
        for at in range(0, len(stream), piece):
            receiver.receive(stream[at : at + piece])
        assert receiver.violation is None
        assert list(receiver.messages) == [
            "g\u20ac",
            BLOCK,
            BLOCK,
            BLOCK,
            b"",
            "a" * 300 + "b" * 300,
        ]
        sender.outbox.drop()  # the ping, which went with the rest
        sender.receive(take(receiver))
        assert pongs == [b"p" * 125]


@pytest.mark.parametrize("names", ["xor, deflate", "deflate, xor"])
def test_the_order_on_the_wire(names: str) -> None:
    # Section 9.1: "the order of operations on the data should be assumed to be the
    # same as the order in which the extensions are listed".
    _, server, _, _ = engines(names)
    sent = wire.made(server.data_frame(BINARY, bytes(1000), True))
    (frame,) = wire.parse_extended(sent, masked=False)
    assert (frame.rsv1, frame.rsv2, frame.rsv3) == (True, True, False)
    first = Xor(0x55).encode(Frame(BINARY, bytes(1000)))
    alone = PerMessageDeflate(
        remote_no_context_takeover=False,
        local_no_context_takeover=False,
        remote_max_window_bits=12,
        local_max_window_bits=12,
    )
    if names == "xor, deflate":
        expected = alone.encode(first)
    else:
        expected = Xor(0x55).encode(alone.encode(Frame(BINARY, bytes(1000))))
    assert frame.data == expected.data


def test_an_uncompressed_message_still_goes_through_the_others() -> None:
    client, server, _, _ = engines("xor, deflate")
    sent = wire.made(client.data_frame(BINARY, BLOCK, True, False))
    (frame,) = wire.parse_extended(sent, masked=True)
    assert (frame.rsv1, frame.rsv2) == (False, True)
    server.receive(sent)
    assert server.pop() == BLOCK


def test_one_that_only_looks_sees_every_frame() -> None:
    client, server, (ours,), (theirs,) = engines("count")
    assert isinstance(ours, Count)
    assert isinstance(theirs, Count)
    client.outbox.push(client.data_frame(TEXT, b"a", True))
    client.outbox.push(client.data_frame(BINARY, b"b", False))
    client.outbox.push(client.data_frame(CONT, b"c", True))
    client.send_ping(b"d")
    client.send_pong(b"e")
    client.close(1000, "")
    server.receive(take(client))
    client.receive(take(server))
    assert ours.sent == [TEXT, BINARY, CONT, PING, PONG, CLOSE]
    assert sorted(theirs.received) == sorted(ours.sent)
    assert theirs.sent == ours.received == [PONG, CLOSE]
    assert client.rcvd is not None
    assert client.rcvd.code == 1000


def incoming(
    side: Engine, opcode: int, payload: bytes, *, fin: bool = True, rsv: int = 0
) -> bytes:
    key = None if side.client else KEY
    return wire.frame(opcode, payload, fin=fin, rsv=rsv, key=key)


@pytest.mark.parametrize(
    ("names", "opcode", "rsv", "text"),
    [
        ("xor", BINARY, 0, "reserved bit 2 is not set"),
        ("xor", BINARY, 4, "reserved bit 2 is not set"),
        ("xor", BINARY, 6, "reserved bits are set that no extension uses"),
        ("xor", BINARY, 3, "reserved bits are set that no extension uses"),
        ("xor", PING, 2, "reserved bits are set that no extension uses"),
        ("xor, deflate", BINARY, 4, "reserved bit 2 is not set"),
        ("xor, deflate", PING, 4, "reserved bits are set that no extension uses"),
        ("count", TEXT, 1, "reserved bits are set that no extension uses"),
        ("count", CLOSE, 2, "reserved bits are set that no extension uses"),
    ],
)
def test_what_an_extension_refuses(
    names: str, opcode: int, rsv: int, text: str
) -> None:
    for side in engines(names)[:2]:
        payload = b"\x00" if opcode == BINARY else b""
        side.receive(incoming(side, opcode, payload, rsv=rsv))
        assert side.violation is not None
        assert side.violation.close_code == 1002
        assert text in str(side.violation)


@pytest.mark.parametrize("names", ["count", "count, deflate, xor", "xor"])
def test_max_size_whatever_an_extension_does(names: str) -> None:
    # Neither of the two looks at it.
    client, server, _, _ = engines(names)
    limited = engines(names, max_size=1000)[1]
    for compress in (False, True):
        fits = wire.made(client.data_frame(BINARY, noise(1000), True, compress))
        limited.receive(fits)
        assert limited.pop() == noise(1000)
    for fragments in ([1001], [1000, 1], [1, 1000], [500, 0, 501]):
        limited = engines(names, max_size=1000)[1]
        for i, size in enumerate(fragments):
            fin = i == len(fragments) - 1
            made = server.data_frame(CONT if i else BINARY, noise(size), fin, False)
            head = wire.parse_extended(wire.made(made), masked=False)[0]
            rsv = head.rsv1 << 2 | head.rsv2 << 1
            limited.receive(
                incoming(limited, int(head.opcode), bytes(head.data), fin=fin, rsv=rsv)
            )
        assert isinstance(limited.violation, PayloadTooBig)
        assert "message of 1001 bytes or more exceeds max_size, 1000 bytes" in str(
            limited.violation
        )
        assert not limited.messages


def test_control_frames_do_not_count_towards_max_size() -> None:
    client, server, _, _ = engines("count", max_size=3)
    server.receive(wire.made(client.data_frame(BINARY, b"12", False)))
    server.receive(client.send_ping(b"p" * 100))
    server.receive(wire.made(client.data_frame(CONT, b"3", True)))
    assert server.pop() == b"123"


def test_an_extension_that_makes_more_than_there_was() -> None:
    """What a decoder further on may still make is counted from there."""

    class Double(Count):
        def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
            limits.append(max_size)
            return Frame(frame.opcode, frame.data * 2, frame.fin)

    limits: list[int | None] = []
    side = Engine(client=True, max_size=10)
    side.extend([Double()])
    side.receive(wire.frame(BINARY, b"abc", fin=False))
    side.receive(wire.frame(CONT, b"de"))
    assert side.pop() == b"abcabcdede"
    side.receive(wire.frame(BINARY, b"abcabc"))
    assert limits == [10, 4, 10]
    assert isinstance(side.violation, PayloadTooBig)


def test_a_shared_frame_where_there_are_extensions_of_others() -> None:
    # Nothing can be known of what they do, so each makes its own.
    for names in FACTORIES:
        client, server, _, _ = engines(names)
        cache: dict[int, Any] = {}
        for _ in range(2):
            client.receive(wire.made(server.shared_frame(BINARY, BLOCK, cache)))
            client.receive(wire.made(server.data_frame(BINARY, BLOCK + b"more", True)))
        assert list(client.messages) == [BLOCK, BLOCK + b"more"] * 2
        assert not cache


def test_logs_show_payloads_as_the_application_knows_them() -> None:
    ours, theirs, _ = negotiated(*FACTORIES["deflate, xor"]())
    seen: list[tuple[str, int, bytes, int, bool]] = []
    client = Engine(
        client=True,
        max_size=None,
        trace_sent=lambda *frame: seen.append((">", *frame)),
    )
    server = Engine(
        client=False,
        max_size=None,
        trace_received=lambda *frame: seen.append(("<", *frame)),
    )
    client.extend(ours.extensions)
    server.extend(theirs.extensions)
    server.receive(wire.made(client.data_frame(TEXT, b"a" * 200, True)))
    server.receive(client.send_ping(b"b"))
    assert seen == [
        (">", TEXT, b"a" * 200, 200, True),
        ("<", TEXT, b"a" * 100, 200, True),
        (">", PING, b"b", 1, True),
        ("<", PING, b"b", 1, True),
    ]


@given(
    st.sampled_from(sorted(FACTORIES)),
    st.lists(st.tuples(st.binary(max_size=300), st.booleans(), st.booleans())),
    st.lists(st.integers(0, 3000), max_size=10),
)
def test_any_messages_any_extensions(
    names: str, fragments: list[tuple[bytes, bool, bool]], cuts: list[int]
) -> None:
    client, server, _, _ = engines(names)
    stream = b""
    expected: list[bytes] = []
    parts: list[bytes] = []
    compress = True
    for data, fin, wish in fragments:
        opcode = CONT if parts else BINARY
        compress = compress if parts else wish
        stream += wire.made(client.data_frame(opcode, data, fin, compress))
        parts.append(data)
        if fin:
            expected.append(b"".join(parts))
            parts = []
    at = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    for a, b in itertools.pairwise(at):
        server.receive(stream[a:b])
    assert server.violation is None
    assert list(server.messages) == expected
