"""Both sides: on any bytes, with each other, and with websockets."""

from __future__ import annotations

import itertools

import pytest
import websockets.client
import websockets.server
import websockets.uri
from hypothesis import given
from hypothesis import strategies as st
from websockets.http11 import Request as PeerRequest
from websockets.http11 import Response as PeerResponse

from tests.protocol.handshake.handshakes import (
    URI,
    answer_to,
    by_byte,
    receive_all,
    request_bytes,
    response_bytes,
    serve,
    without_date,
)
from trio_ws._protocol.errors import InvalidStatus
from trio_ws._protocol.handshake.client import ClientHandshake
from trio_ws._protocol.handshake.server import ServerHandshake
from trio_ws._protocol.http.messages import Request
from trio_ws._protocol.uri import parse_uri

PIECES = [
    *[
        request_bytes(),
        response_bytes(),
        b"GET / HTTP/1.1\r\n",
        b"Host: a\r\n",
        b"\r\n",
    ],
    *[request_bytes()[:-2], response_bytes()[:-2], b"HTTP/1.1 103 x\r\n\r\n"],
    *[b"HTTP/1.1 200 OK\r\n", b"Content-Length: 3\r\n", b"Upgrade: websocket\r\n"],
    *[b"Sec-WebSocket-Protocol: a, b\r\n", b"Sec-WebSocket-Extensions: a;b=\r\n"],
    *[b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n", b"0\r\n\r\n", b"\n", b"\0"],
]
STREAMS = st.lists(st.sampled_from(PIECES) | st.binary(max_size=3)).map(b"".join)
CUTS = st.lists(st.integers(0, 1000))


def cut(data: bytes, positions: list[int]) -> list[bytes]:
    bounds = [0, *sorted(pos % (len(data) + 1) for pos in positions), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(bounds)]


# Properties


@given(data=STREAMS, positions=CUTS)
def test_a_server_answers_any_bytes_however_split(
    data: bytes, positions: list[int]
) -> None:
    response, _ = answer_to(data, subprotocols=["a"])
    pieces = cut(data, positions)
    again = serve(ServerHandshake(subprotocols=["a"]), pieces)[0]
    assert without_date(again) == without_date(response)


@given(data=STREAMS, positions=CUTS)
def test_a_client_takes_any_bytes_however_split(
    data: bytes, positions: list[int]
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("os.urandom", lambda size: b"the sample nonce"[:size])
        outcomes = [
            receive_all(pieces, subprotocols=["a"])
            for pieces in ([data], by_byte(data), cut(data, positions))
        ]
    assert len({(type(result), str(result), *rest) for result, *rest in outcomes}) == 1


TOKENS = st.lists(st.text("abc-", min_size=1, max_size=3), unique=True, max_size=4)
ADDED = st.lists(
    st.tuples(
        st.text("xyz", min_size=1, max_size=3), st.text("a \t\xe9").map(str.strip)
    ),
    max_size=3,
)


# Against each other and against websockets


@given(offered=TOKENS, available=TOKENS, added=ADDED, leftover=st.binary(max_size=5))
def test_both_sides_agree(
    offered: list[str],
    available: list[str],
    added: list[tuple[str, str]],
    leftover: bytes,
) -> None:
    client = ClientHandshake(URI, subprotocols=offered, additional_headers=added)
    server = ServerHandshake(subprotocols=available, additional_headers=added)
    answer, exc = serve(server, [client.request_bytes + leftover])
    assert server.leftover == leftover
    if exc is not None:
        assert not set(offered) & set(available)
        with pytest.raises(InvalidStatus):
            client.receive(answer.serialize())
        return
    response = client.receive(answer.serialize() + leftover)
    assert response == answer
    assert client.leftover == leftover
    assert client.subprotocol == server.subprotocol


def peer_server(subprotocols: list[str], data: bytes) -> PeerResponse:
    peer = websockets.server.ServerProtocol(subprotocols=subprotocols)  # type: ignore[arg-type]
    peer.receive_data(data)
    (request,) = peer.events_received()
    assert isinstance(request, PeerRequest)
    return peer.accept(request)


@given(offered=TOKENS, available=TOKENS)
def test_our_client_and_a_websockets_server(
    offered: list[str], available: list[str]
) -> None:
    client = ClientHandshake(URI, subprotocols=offered)
    theirs = peer_server(available, client.request_bytes)
    ours, _ = serve(ServerHandshake(subprotocols=available), [client.request_bytes])
    assert ours.status_code == theirs.status_code
    name = "Sec-WebSocket-Protocol"
    assert ours.headers.get(name) == theirs.headers.get(name)
    if theirs.status_code == 101:
        assert client.receive(theirs.serialize()) is not None
        assert client.subprotocol == ours.headers.get(name)


def test_a_websockets_client_and_our_server() -> None:
    uri = websockets.uri.parse_uri("wss://u:p@example.com:8765/chat")
    peer = websockets.client.ClientProtocol(uri, subprotocols=["a", "b"])  # type: ignore[list-item]
    peer.send_request(peer.connect())
    (data,) = peer.data_to_send()
    server = ServerHandshake(subprotocols=["b"])
    request = server.receive(data)
    assert isinstance(request, Request)
    ours = ClientHandshake(
        parse_uri("wss://u:p@example.com:8765/chat"), subprotocols=["a", "b"]
    )
    for name, value in ours.request.headers.raw_items():
        if name != "Sec-WebSocket-Key":
            assert request.headers.get_all(name) == [value]
    peer.receive_data(server.accept(request).serialize())
    assert peer.handshake_exc is None
    assert peer.subprotocol == "b"
