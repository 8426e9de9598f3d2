"""Streams of frames as hypothesis draws them, and where they are cut."""

from __future__ import annotations

import itertools

from hypothesis import strategies as st

from tests.peers import wire
from tests.peers.wire import BINARY, CLOSE, CONT, KEY, PING, PONG, TEXT

TEXTS = st.text(max_size=40) | st.text("a\u00e9\u20ac\U0001f600", max_size=60)
PAYLOADS = st.one_of(
    TEXTS.map(str.encode),
    st.binary(max_size=40),
    st.integers(100, 300).map(bytes),
    # Close codes, and texts that are nearly UTF-8.
    st.integers(990, 1020).map(lambda code: code.to_bytes(2, "big")),
    st.lists(
        st.sampled_from([b"a", b"\xe2\x82", b"\xac", b"\xed\xa0", b"\xf4\x90"])
    ).map(b"".join),
)


@st.composite
def any_frame(draw: st.DrawFn, masked: bool) -> bytes:
    """Make a frame that breaks a rule now and then."""
    opcode = draw(
        st.sampled_from([CONT, CONT, TEXT, TEXT, BINARY, PING, PONG, CLOSE])
        | st.integers(0, 15)
    )
    payload = draw(PAYLOADS)
    if opcode == CLOSE and draw(st.integers(0, 2)):
        payload = draw(st.sampled_from([b"", b"\x03\xe8", b"\x0f\xa0\xc3\xa9"]))
    if opcode >= 8 and draw(st.integers(0, 9)):
        payload = payload[:125]
    rarely = draw(st.integers(0, 19))
    size = len(payload)
    fitting = [e for e, most in ((0, 126), (2, 2**16), (8, 2**64)) if size < most]
    return wire.frame(
        opcode,
        payload,
        fin=draw(st.booleans()) or (opcode >= 8 and rarely != 0),
        rsv=draw(st.integers(1, 7)) if rarely == 1 else 0,
        key=KEY if masked != (rarely == 2) else None,
        extended=draw(st.sampled_from(fitting)) if rarely == 3 else None,
    )


def streams(masked: bool) -> st.SearchStrategy[bytes]:
    frames = st.lists(any_frame(masked), max_size=12).map(b"".join)
    return st.one_of(
        frames,
        st.tuples(frames, st.binary(max_size=20)).map(b"".join),
        st.tuples(frames, st.integers(0, 400)).map(lambda each: each[0][: each[1]]),
    )


def split(stream: bytes, cuts: list[int]) -> list[bytes]:
    at = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    return [stream[a:b] for a, b in itertools.pairwise(at)]


CUTS = st.lists(st.integers(0, 4000), max_size=30)
