"""Fuzz permessage-deflate: all of its parameters, in both directions.

    python tests/programs/fuzz/fuzz_deflate.py -max_total_time=60

Whatever is compressed comes out again; what somebody else made is decompressed as
zlib does, the same for any fragments, or fails as documented; ISA-L does as zlib.
"""

from __future__ import annotations

import itertools
import sys
import zlib
from typing import Any

import atheris

with atheris.instrument_imports(include=["trio_ws._protocol.extensions"]):
    from trio_ws._protocol.errors import PayloadTooBig, ProtocolError
    from trio_ws._protocol.extensions import deflate
    from trio_ws._protocol.extensions.base import Frame

MAX_SIZE = 5000
TAIL = b"\x00\x00\xff\xff"
LIBRARIES = [None] if deflate._fast is None else [None, deflate._fast]


def pieces_of(data: bytes, size: int) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)] or [b""]


def frames_of(pieces: list[bytes], rsv1: bool) -> list[Frame]:
    last = len(pieces) - 1
    return [
        Frame(0 if i else 2, piece, i == last, rsv1 and not i)
        for i, piece in enumerate(pieces)
    ]


def received(extension: Any, frames: list[Frame]) -> bytes:
    """Take in a message; raise ProtocolError."""
    message = b""
    for frame in frames:
        left = MAX_SIZE - len(message)
        decoded = extension.decode(frame, max_size=left)
        assert not decoded.rsv1
        assert len(decoded.data) <= left
        message += decoded.data
    return message


def made(data: bytes, library: object) -> Any:
    deflate._fast = library
    return deflate.PerMessageDeflate(
        remote_no_context_takeover=data[0] & 1 == 1,
        local_no_context_takeover=data[0] & 1 == 1,
        remote_max_window_bits=8 + (data[0] >> 2 & 7),
        local_max_window_bits=8 + (data[0] >> 2 & 7),
        compress_settings={"memLevel": 1 + data[0] % 9},
    )


def decompress(data: bytes, size: int, library: object) -> list[object]:
    """Return what messages, cut at each byte 0xFE, come to, or why they don't."""
    extension = made(data, library)
    outcome: list[object] = []
    for part in data[2:].split(b"\xfe"):
        try:
            outcome.append(received(extension, frames_of(pieces_of(part, size), True)))
        except PayloadTooBig as exc:
            assert exc.close_code == 1009
            return [*outcome, "too big"]
        except ProtocolError as exc:
            assert exc.close_code == 1002
            return [*outcome, "wrong"]
    return outcome


def agree(data: bytes, one: list[object], other: list[object]) -> bool:
    """Tell whether two outcomes are as good as the same.

    What refers to more than its window has is wrong; zlib sees that only where the
    bytes have left the buffer that it writes to, which depends on the cuts. ISA-L may
    make more than max_size before it sees what is wrong, which depends on them, too.
    """
    for seen, also in zip(one, other, strict=False):
        if {seen, also} == {"wrong", "too big"}:
            return True
        if seen != also:
            return (data[0] >> 2 & 7) != 7 and "wrong" in (seen, also)
    return len(one) == len(other)


def check_against_zlib(data: bytes, outcome: list[object]) -> int:
    """Compare; return how many messages are right and end where a block does.

    Of others, ISA-L finds out earlier or later than zlib that they are wrong.
    """
    bits = -(8 + (data[0] >> 2 & 7))
    inflater = zlib.decompressobj(bits)
    for index, (part, seen) in enumerate(
        zip(data[2:].split(b"\xfe"), outcome, strict=False)
    ):
        if not part:
            expected = b""  # as some say it; the tail alone would begin a block
        else:
            try:
                expected = inflater.decompress(part + TAIL, MAX_SIZE + 1)
            except zlib.error:
                # It may have been too big before.
                assert seen in ("wrong", "too big")
                return index
        if inflater.eof:
            return index  # what is behind is another stream's
        assert seen == ("too big" if len(expected) > MAX_SIZE else expected)
        try:
            behind = inflater.copy()
            behind.decompress(inflater.unconsumed_tail + b"\x03\x00")  # an empty block
        except zlib.error:
            return index
        if not behind.eof:
            return index
        if data[0] & 1:
            inflater = zlib.decompressobj(bits)
    return len(outcome)


def check_round_trip(data: bytes, size: int, library: object) -> None:
    sender, receiver = made(data, library), made(data, library)
    # Long enough to be compressed, and to have something in common.
    for part, length in zip(
        data[2:].split(b"\xfe"), itertools.cycle([1, 40, 300]), strict=False
    ):
        message = (part * length)[:MAX_SIZE]
        cut = data[1] & 1 == 1
        pieces = pieces_of(message, max(size, 20)) if cut else [message]
        sent = [sender.encode(frame) for frame in frames_of(pieces, False)]
        assert cut or len(sent[0].data) <= len(message)
        assert received(receiver, sent) == message


def test_one_input(data: bytes) -> None:
    if len(data) < 3:
        return
    size = data[1] or 1
    outcomes = []
    for library in LIBRARIES:
        whole = decompress(data, len(data), library)
        assert agree(data, decompress(data, size, library), whole)
        check_round_trip(data, size, library)
        outcomes.append(whole)
    right = check_against_zlib(data, outcomes[0])
    for outcome in outcomes:
        assert agree(data, outcome[:right], outcomes[0][:right])


if __name__ == "__main__":
    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()
