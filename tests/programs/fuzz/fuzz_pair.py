"""Fuzz two engines that talk: a connection as a state machine, at both ends.

    python tests/programs/fuzz/fuzz_pair.py -max_total_time=60

Whatever the sides do and wherever their streams are cut, neither breaks the protocol,
and each message arrives whole, once, in order, unless somebody fails or is cut off.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import atheris

# What it has tried guides it, which compiled code doesn't tell.
os.environ["TRIO_WS_PURE"] = "1"

with atheris.instrument_imports(include=["trio_ws._protocol"]):
    from trio_ws._protocol.closing import CLOSE_DONE, FAILED, FINAL, OPEN
    from trio_ws._protocol.engine import Engine
    from trio_ws._protocol.extensions.deflate import PerMessageDeflate

TEXTS = ["", "x", "h\u00e9llo \U0001f600", "ab" * 70, "long " * 300]
CODES = [1000, 1001, 1011, 3000, 4999]


class Side:
    """One end, what it has sent, and what has come."""

    def __init__(self, client: bool, deflate: tuple[bool, int, int] | None) -> None:
        self.engine = Engine(client=client, max_size=None, max_waiting=4000)
        if deflate is not None:
            no_takeover, *bits = deflate if client else (deflate[0], *deflate[:0:-1])
            extension = PerMessageDeflate(
                remote_no_context_takeover=no_takeover,
                local_no_context_takeover=no_takeover,
                remote_max_window_bits=bits[0],
                local_max_window_bits=bits[1],
            )
            self.engine.extend([extension])
        self.engine.on_pong = self._take_pong
        self.sent: list[str | bytes] = []
        self.begun: str | None = None  # the rest of a message in fragments
        self.came: list[str | bytes] = []
        self.pings: list[bytes] = []
        self.pongs: list[bytes] = []
        self.wire = bytearray()  # that the other hasn't got
        self.broken = False

    def _take_pong(self, payload: bytes) -> None:
        self.pongs.append(payload)

    @property
    def may_send(self) -> bool:
        return self.engine.phase is OPEN

    def push(self, opcode: int, text: str | bytes, fin: bool) -> None:
        payload = text.encode() if isinstance(text, str) else text
        self.engine.outbox.push(self.engine.data_frame(opcode, payload, fin))

    def send(self, number: int) -> None:
        text = TEXTS[number % len(TEXTS)]
        if not self.may_send or self.begun is not None:
            return
        if number & 8:
            self.sent.append(text.encode())
            self.push(2, text.encode(), True)
        else:
            self.sent.append(text)
            self.push(1, text, True)

    def fragment(self, number: int) -> None:
        if not self.may_send:
            return
        if self.begun is None:
            whole = TEXTS[number % len(TEXTS)]
            middle = len(whole) // 2
            self.push(1, whole[:middle], False)
            self.sent.append(whole)
            self.begun = whole[middle:]
        else:
            self.push(0, self.begun, True)
            self.begun = None

    def ping(self) -> None:
        if self.may_send:
            self.pings.append(b"%d" % len(self.pings))
            self.engine.send_ping(self.pings[-1])

    def close(self, number: int) -> None:
        if self.may_send:
            self.engine.close(CODES[number % len(CODES)], "bye")

    def fail(self, number: int) -> None:
        self.broken = self.broken or self.engine.phase not in FINAL
        self.engine.fail(CODES[number % len(CODES)], "failed", TimeoutError())

    def flush(self, count: int) -> None:
        buffers = self.engine.outbox.next_buffers(2**16)
        taken = b"".join(buffers)[:count]
        self.engine.outbox.consume(len(taken))
        self.wire += taken

    def take(self) -> None:
        while self.engine.messages or self.engine.backlog:
            while self.engine.messages:
                self.came.append(self.engine.pop())
            if self.engine.backlog:
                self.engine.go_on()

    def hear(self, other: Side, count: int) -> None:
        data = bytes(other.wire[:count])
        del other.wire[:count]
        if data:
            # What isn't parsed for want of room is not the peer's to send again.
            self.engine.receive(data)
        assert self.engine.violation is None, self.engine.violation


def bytes_of(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield what is done and a number for it."""
    return zip(data[::2], data[1::2], strict=False)


def test_one_input(data: bytes) -> None:
    if len(data) < 4:
        return
    flags = data[0]
    deflate = None
    if flags & 1:
        deflate = flags & 2 == 2, 9 + (flags >> 2) % 7, 9 + (flags >> 5) % 7
    sides = Side(True, deflate), Side(False, deflate)
    for what, number in bytes_of(data[1:]):
        side, other = sides[what & 1], sides[1 - (what & 1)]
        match what >> 1 & 15:
            case 0 | 1 | 2:
                side.send(number)
            case 3 | 4:
                side.fragment(number)
            case 5:
                side.ping()
            case 6 if number < 40:
                side.close(number)
            case 7 if number < 10:
                side.fail(number)
            case 8 | 9:
                side.flush(number or 2**20)
            case 10 | 11:
                side.take()
            case _:
                side.hear(other, number or 2**20)
    settle(*sides)
    for side, other in (sides, sides[::-1]):
        check(side, other)


def settle(*sides: Side) -> None:
    """Let all arrive."""
    for _ in range(1000):
        for side, other in (sides, sides[::-1]):
            side.flush(2**20)
            other.hear(side, 2**20)
            other.take()
        if not any(side.engine.outbox.size or side.wire for side in sides):
            return
    raise AssertionError("they never come to rest")


def check(side: Side, other: Side) -> None:
    complete = side.sent if side.begun is None else side.sent[:-1]
    # In order, each once; and all of them unless somebody ended it before.
    assert other.came == complete[: len(other.came)]
    if side.engine.phase is OPEN and other.engine.phase is OPEN:
        assert other.came == complete
        # In order; the oldest that wait are left out (section 5.5.3).
        pings = iter(side.pings)
        assert all(pong in pings for pong in side.pongs)
        if side.pings:
            assert side.pongs[-1] == side.pings[-1]
    if not (side.broken or other.broken):
        assert side.engine.phase in (OPEN, CLOSE_DONE), side.engine.phase
        assert side.engine.phase is other.engine.phase
        assert side.engine.cause is None
    elif side.broken:
        assert side.engine.phase is FAILED


if __name__ == "__main__":
    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()
