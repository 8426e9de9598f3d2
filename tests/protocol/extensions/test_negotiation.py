"""The negotiation of extensions in the opening handshake."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest
import websockets.extensions.permessage_deflate as peer_deflate
from hypothesis import given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.http11 import Response as PeerResponse
from websockets.server import ServerProtocol
from websockets.uri import parse_uri as parse_peer_uri

from tests.protocol.extensions.samples import (
    FACTORIES,
    TOGETHER,
    URI,
    ClientXor,
    Params,
    ServerXor,
    Xor,
    negotiated,
)
from tests.protocol.handshake.handshakes import request_bytes
from trio_ws._protocol.errors import (
    InvalidHandshake,
    InvalidHeaderFormat,
    NegotiationError,
)
from trio_ws._protocol.extensions.base import Extension
from trio_ws._protocol.extensions.deflate import (
    ClientPerMessageDeflateFactory,
    PerMessageDeflate,
    ServerPerMessageDeflateFactory,
)
from trio_ws._protocol.handshake.client import ClientHandshake
from trio_ws._protocol.handshake.common import accept_key
from trio_ws._protocol.handshake.server import ServerHandshake


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


ACCEPTED = "permessage-deflate"


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
        "permessage-deflate" + "; server_no_context_takeover" * 90,
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
            "permessage-deflate; server_no_context_takeover",
        ),
        (
            "permessage-deflate; server_max_window_bits=15",
            "permessage-deflate; server_max_window_bits=12",
        ),
        (", ".join(["permessage-deflate"] * 100), ACCEPTED),
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
    def answer(units: int) -> int:
        offer = unit * units + "permessage-deflate"
        handshake = ServerHandshake(
            extensions=[ServerPerMessageDeflateFactory(), ServerXor()]
        )
        request = handshake.receive(request_bytes(f"Sec-WebSocket-Extensions: {offer}"))
        assert request is not None
        count = steps(lambda: handshake.accept(request))
        assert names_of(handshake.extensions) == ["permessage-deflate"]
        return count

    assert answer(30) < 2.2 * answer(15) + 100


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
        ("x-other", "expected no extension 'x-other': not offered"),
        ("permessage-deflate, x-other; a=1", "'x-other': not offered"),
        ("permessage-deflate, permessage-deflate", "duplicate extension"),
        ("permessage-deflate; mux", "unknown parameter: 'mux'"),
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
            client_with(narrow, wide),
            "permessage-deflate; server_max_window_bits=10; client_max_window_bits=9",
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


NO_END = {
    "parameters": ("a", ";a"),
    "parameters with values": ("a", ";a=1"),
    "parameters of compression": ("permessage-deflate", ";a"),
    "extensions": ("a", ",a"),
    "offers": ("permessage-deflate", ",permessage-deflate"),
    "offers that are declined": ("permessage-deflate", ";a,permessage-deflate"),
    "escapes": ('a;b="', "\\x"),
}


@pytest.mark.parametrize(("start", "more"), NO_END.values(), ids=NO_END)
@pytest.mark.parametrize("client", [False, True], ids=["server", "client"])
def test_a_header_costs_little_however_long(
    start: str, more: str, client: bool
) -> None:
    def cost(size: int) -> int:
        header = start + more * (size // len(more)) + '"' * start.count('"')

        ours = client_with(ClientPerMessageDeflateFactory(), ClientXor())
        server = ServerHandshake(
            extensions=[ServerPerMessageDeflateFactory(), ServerXor()]
        )
        request = server.receive(request_bytes(f"Sec-WebSocket-Extensions: {header}"))

        def answer() -> None:
            assert request is not None
            with suppress(InvalidHandshake):
                if client:
                    check_answer(ours, header)
                else:
                    server.accept(request)

        return steps(answer)

    cost(4000)  # what is made once is made
    assert cost(8000) <= cost(4000) + 100


def test_how_a_header_that_is_too_long_is_refused() -> None:
    server = ServerHandshake(extensions=[ServerPerMessageDeflateFactory()])
    header = "permessage-deflate" + ";a" * 4000
    request = server.receive(request_bytes(f"Sec-WebSocket-Extensions: {header}"))
    assert request is not None
    with pytest.raises(InvalidHeaderFormat) as caught:
        server.accept(request)
    response = server.rejection(caught.value)
    assert response.status_code == 400
    assert b"Sec-WebSocket-Extensions header: expected at most 100" in response.body


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
