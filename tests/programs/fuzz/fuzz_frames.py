"""Fuzz the frame decoder and the engine, in both roles.

    python tests/programs/fuzz/fuzz_frames.py -max_total_time=60

Nothing that comes raises anything; where the bytes are cut changes nothing; the
frames are those that websockets' parser sees.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from typing import Any

import atheris
from websockets.frames import Frame
from websockets.streams import StreamReader

# What it has tried guides it, which compiled code doesn't tell; fuzz_both.py has that.
os.environ["TRIO_WS_PURE"] = "1"

with atheris.instrument_imports(include=["trio_ws._protocol"]):
    from trio_ws._protocol.closing import CLOSE_DONE, CLOSE_SENT, FAILED, FINAL, OPEN
    from trio_ws._protocol.engine import Engine
    from trio_ws._protocol.errors import ProtocolError
    from trio_ws._protocol.frames.decoder import Decoder

MAX_SIZE = 300
TRACED = 100  # so much of a frame that comes in pieces is seen

Seen = list[tuple[int, bytes, int, bool]]


def decode(pieces: list[bytes], masked: bool) -> tuple[list[Any], Seen, str]:
    """Return what came out, the frames that were seen, and where it stands."""
    seen: Seen = []
    decoder = Decoder(
        masked=masked,
        max_size=MAX_SIZE,
        trace=lambda opcode, start, *rest: seen.append((opcode, start[:TRACED], *rest)),
    )
    items: list[Any] = []
    for piece in pieces:
        items += decoder.feed(piece)
        assert decoder.partial_size <= MAX_SIZE
        if items and isinstance(items[-1], ProtocolError):
            exc = items.pop()
            assert exc.close_code in (1002, 1007, 1009)
            items.append((str(exc), exc.close_code))
            return items, seen, "failed"
        if items and isinstance(items[-1], tuple) and items[-1][0] == 8:
            return items, seen, "closed"
    return items, seen, decoder.where()


def run(pieces: list[bytes], client: bool, closing: bool) -> tuple[Any, ...]:
    engine = Engine(client=client, max_size=MAX_SIZE)
    if closing:
        engine.close(1000, "")
    for piece in pieces:
        engine.receive(piece)
        engine.act_on_violation()
    assert engine.phase in (OPEN, CLOSE_SENT, CLOSE_DONE, FAILED)
    assert engine.outbox.size == sum(map(len, engine.outbox.next_buffers(2**30)))
    facts = (
        engine.phase,
        list(engine.messages),
        engine.rcvd,
        engine.sent,
        engine.rcvd_then_sent,
        str(engine.cause),
        engine.outbox.size,
    )
    engine.receive_eof()
    assert engine.phase in FINAL
    return facts


def step(generator: Generator[None, None, Any]) -> Any:
    try:
        next(generator)
    except StopIteration as exc:
        return exc.value
    raise EOFError


def check_against_websockets(stream: bytes, masked: bool, seen: Seen) -> None:
    reader = StreamReader()
    reader.feed_data(stream)
    reader.feed_eof()
    for opcode, start, size, fin in seen:
        frame = step(Frame.parse(reader.read_exact, mask=masked))
        assert (int(frame.opcode), frame.fin, len(frame.data)) == (opcode, fin, size)
        assert bytes(frame.data)[: len(start)] == start


def test_one_input(data: bytes) -> None:
    if len(data) < 2:
        return
    client, closing = data[0] & 1 == 1, data[0] & 2 == 2
    size = data[1] or 1
    stream = data[2:]
    cut = [stream[i : i + size] for i in range(0, len(stream), size)]
    single = [stream[i : i + 1] for i in range(len(stream))]

    items, seen, where = decode([stream], not client)
    check_against_websockets(stream, not client, seen)
    for pieces in (cut, single):
        again, seen_again, where_again = decode(pieces, not client)
        assert (again, where_again) == (items, where)
        # A frame that fails in the middle may or may not have been seen.
        assert seen_again == seen or where == "failed"

    outcome = run([stream], client, closing)
    assert run(cut, client, closing) == outcome
    assert run(single, client, closing) == outcome


if __name__ == "__main__":
    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()
