"""Frames as they are made."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.peers import wire
from tests.peers.wire import BINARY, CLOSE, CONT, PING, PONG, TEXT
from tests.protocol.frames.decoding import BOTH
from trio_ws._protocol.frames.encoder import encode
from trio_ws._protocol.frames.memory import PIECE_SIZE, SPLIT_SIZE


@pytest.mark.parametrize(
    ("size", "header"),
    [
        (0, "82 00"),
        (125, "82 7d"),
        (126, "82 7e 00 7e"),
        (65535, "82 7e ff ff"),
        (65536, "82 7f 00 00 00 00 00 01 00 00"),
    ],
)
def test_encode_lengths(size: int, header: str) -> None:
    payload = os.urandom(size)
    head = bytes.fromhex(header)
    assert wire.made(encode(BINARY, payload, True, False)) == head + payload
    made = wire.made(encode(BINARY, payload, True, True))
    masked_head = bytes([head[0], head[1] | 0x80]) + head[2:]
    assert made[: len(head)] == masked_head
    sent_key = made[len(head) : len(head) + 4]
    assert wire.xor(made[len(head) + 4 :], sent_key) == payload


@pytest.mark.parametrize("opcode", [CONT, TEXT, BINARY, CLOSE, PING, PONG])
@pytest.mark.parametrize("fin", [False, True])
def test_encode_first_byte(opcode: int, fin: bool) -> None:
    made = encode(opcode, b"a", fin, False)
    assert wire.made(made) == bytes([(0x80 if fin else 0) + opcode, 1]) + b"a"


@BOTH
def test_large_payloads_are_not_copied_behind_their_header(masked: bool) -> None:
    assert isinstance(encode(BINARY, bytes(SPLIT_SIZE - 1), True, masked), bytes)
    payload = bytes(SPLIT_SIZE)
    made = encode(BINARY, payload, True, masked)
    assert isinstance(made, tuple)
    assert len(made[0]) == 4 + 4 * masked
    if not masked:
        assert made[1] is payload


@BOTH
def test_very_large_payloads_are_masked_as_they_go_out(masked: bool) -> None:
    payload = os.urandom(PIECE_SIZE + 1)
    frame = encode(BINARY, payload, True, masked)
    assert len(frame) == 4 if masked else 2
    assert payload in frame  # as it is
    (sent,) = wire.parse_stream(wire.made(frame), masked=masked)
    assert sent.data == payload


@given(st.data())
def test_frames_made_are_read_by_another_parser(data: st.DataObject) -> None:
    masked = data.draw(st.booleans())
    opcodes = st.sampled_from([CONT, TEXT, BINARY])
    frames = data.draw(
        st.lists(st.tuples(opcodes, st.binary(max_size=300), st.booleans()))
    )
    stream = b"".join(wire.made(encode(o, p, fin, masked)) for o, p, fin in frames)
    read = wire.parse_stream(stream, masked=masked)
    assert [(int(f.opcode), bytes(f.data), f.fin) for f in read] == frames
