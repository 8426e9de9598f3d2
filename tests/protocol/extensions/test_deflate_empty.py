"""permessage-deflate: messages, fragments and ends of streams without a byte."""

from __future__ import annotations

import zlib

import pytest

from tests.peers.wire import BINARY, CONT
from tests.protocol.extensions.compressed import (
    BLOCK,
    RSV1,
    SWITCH,
    compressed,
    deflate,
    engine,
    final,
    incoming,
)
from trio_ws._protocol.extensions import deflate as _deflate
from trio_ws._protocol.extensions.base import Frame

LIBRARIES = ["zlib", "isal"]


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    name: str = request.param
    if name == "isal":
        found = pytest.importorskip("isal.isal_zlib")
        monkeypatch.setattr(_deflate, "_fast", found)
    return name


HI, FINAL_HI = compressed(b"Hi"), final(b"Hi")

# Payloads of the frames of one message, and what it is.
EMPTY: dict[str, tuple[list[bytes], bytes]] = {
    "a message": ([b""], b""),
    "all fragments": ([b"", b"", b""], b""),
    "first": ([b"", HI], b"Hi"),
    "last": ([HI, b""], b"Hi"),
    "first and last": ([b"", HI[:2], b"", HI[2:], b""], b"Hi"),
    "one byte, as it should be": ([b"\x00"], b""),
    "one byte, then none": ([b"\x00", b""], b""),
    "behind the end of a stream": ([FINAL_HI], b"Hi"),
    "last, behind the end of a stream": ([FINAL_HI, b""], b"Hi"),
    "first, then a stream's end": ([b"", FINAL_HI], b"Hi"),
    "two ends of streams": ([FINAL_HI, b"", FINAL_HI, b""], b"HiHi"),
    "an end, and as it should be": ([FINAL_HI + b"\x00"], b"Hi"),
    "an end, then as it should be": ([FINAL_HI, b"\x00"], b"Hi"),
}


@pytest.mark.parametrize("max_size", [None, 1000])
@pytest.mark.parametrize("no_takeover", SWITCH)
@pytest.mark.parametrize("client", SWITCH, ids=["server", "client"])
@pytest.mark.parametrize(("payloads", "message"), EMPTY.values(), ids=EMPTY)
def test_where_nothing_is_to_be_inflated_the_context_goes_on(
    payloads: list[bytes],
    message: bytes,
    client: bool,
    no_takeover: bool,
    max_size: int | None,
    library: str,
) -> None:
    side = engine(
        deflate(remote_no_takeover=no_takeover), client=client, max_size=max_size
    )
    peer = deflate(local_no_takeover=no_takeover)
    sizes = []
    # What is special comes before, between and behind others.
    for _ in range(3):
        for number, payload in enumerate(payloads):
            fin = number == len(payloads) - 1
            opcode, rsv = (CONT, 0) if number else (BINARY, RSV1)
            side.receive(incoming(side, opcode, payload, fin=fin, rsv=rsv))
        assert side.violation is None
        assert side.pop() == message
        if message:
            peer.forget()  # the peer's context knows nothing of it
        sent = peer.encode(Frame(BINARY, BLOCK))
        sizes.append(len(sent.data))
        side.receive(incoming(side, BINARY, sent.data))
        assert side.violation is None
        assert side.pop() == BLOCK
    assert not side.messages
    if not no_takeover and message == b"":
        # It was indeed the same context.
        assert sizes[1] < 50 < sizes[0]


def test_empty_fragments_of_ours_leave_the_peers_context_as_it_is(
    library: str,
) -> None:
    # Each of our messages in fragments ends with an empty one.
    ours = deflate()
    theirs = zlib.decompressobj(wbits=-15)
    for parts in ([BLOCK, b""], [BLOCK, b"", b""], [BLOCK, b"", BLOCK, b""]):
        for _ in range(2):
            found = b""
            for number, part in enumerate(parts):
                fin = number == len(parts) - 1
                opcode = CONT if number else BINARY
                data = ours.encode(Frame(opcode, part, fin)).data
                found += theirs.decompress(data + b"\x00\x00\xff\xff" * fin)
            assert found == b"".join(parts)
