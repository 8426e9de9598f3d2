"""Frames that go through extensions of users."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.contract.bugs import Buggy
from tests.peers import wire
from tests.peers.wire import BINARY, CLOSE, CONT, KEY, PING, PONG, TEXT
from tests.protocol.extensions.compressed import BLOCK, noise
from tests.protocol.extensions.samples import (
    FACTORIES,
    TOGETHER,
    Count,
    Xor,
    negotiated,
)
from trio_ws._protocol.closing import FAILED
from trio_ws._protocol.engine import Engine
from trio_ws._protocol.errors import PayloadTooBig
from trio_ws._protocol.extensions.base import Extension, Frame
from trio_ws._protocol.extensions.deflate import PerMessageDeflate


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


@pytest.mark.parametrize("error", [ZeroDivisionError(), MemoryError()])
def test_messages_before_one_that_cannot_be_decoded(error: Exception) -> None:
    side = Engine(client=False, max_size=None)
    side.extend([Buggy(decode=lambda frame: frame.data == b"break", error=error)])
    texts = (b"one", b"two", b"break", b"behind")
    side.receive(b"".join(wire.frame(TEXT, text, key=KEY) for text in texts))
    assert list(side.messages) == ["one", "two"]
    assert side.phase is FAILED
    assert side.sent is not None
    assert side.sent.code == 1011
    assert side.bug is side.cause is error
