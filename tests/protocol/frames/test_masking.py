"""Masking: the key, and what it makes of payloads."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.peers import wire
from tests.peers.wire import BINARY, PING, TEXT
from tests.platforms import needs_fork
from tests.protocol.frames.decoding import decoder, feed_bytes, frame
from trio_ws._protocol.frames.encoder import encode
from trio_ws._protocol.frames.masking import masked_as_a_whole, masked_by_words
from trio_ws._protocol.frames.memory import SPLIT_SIZE


# Compiled code masks words of 8 bytes, and several at once; Python each fourth byte
# of long data, in parts.
@pytest.mark.parametrize(
    "size",
    [
        *range(20),
        *range(60, 75),
        *range(2046, 2054),
        SPLIT_SIZE + 1,
        *range(2**16 - 1, 2**16 + 4),
        2**17 + 3,
    ],
)
def test_masking(size: int) -> None:
    data = bytes(i * 7 % 256 for i in range(size))
    made = wire.made(encode(BINARY, data, True, True))
    head, sent_key, payload = made[: -size - 4], made[-size - 4 :][:4], made[-size:]
    assert head == wire.header(BINARY, size, key=b"")
    assert (payload if size else b"") == wire.xor(data, sent_key)
    for start in range(9):
        # Wherever in what is read it may stand.
        stream = frame(PING, b"p" * start, masked=True)
        stream += frame(BINARY, data, masked=True)
        target = decoder(masked=True)
        assert target.feed(stream) == [(PING, b"p" * start), data]


@pytest.mark.parametrize("way", [masked_as_a_whole, masked_by_words])
@pytest.mark.parametrize("key", [0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x12345678])
@pytest.mark.parametrize("size", [*range(20), 2047, 2048, 2**16 + 3])
def test_both_ways_in_python(
    way: Callable[[bytes, int, int, int], bytes], key: int, size: int
) -> None:
    data = bytes(i * 7 % 256 for i in range(size + 5))
    expected = wire.xor(data[3:-2], key.to_bytes(4, "little"))
    assert way(data, 3, size + 3, key) == expected


def test_a_key_of_zero() -> None:
    stream = wire.frame(TEXT, b"a", key=bytes(4)) + frame(TEXT, b"b", masked=True)
    assert decoder(masked=True).feed(stream) == ["a", "b"]
    assert feed_bytes(decoder(masked=True), stream) == ["a", "b"]


def test_each_frame_has_a_key_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    # RFC 6455, section 5.3
    pools: list[bytes] = []

    def urandom(size: int) -> bytes:
        start = len(pools) * 2**16
        pools.append(b"".join(i.to_bytes(4, "big") for i in range(start, start + size)))
        return pools[-1][:size]

    monkeypatch.setattr(os, "urandom", urandom)
    keys = [wire.made(encode(TEXT, b"", True, True))[2:] for _ in range(3000)]
    assert len(set(keys)) == 3000
    assert 1 < len(pools) < 10  # a thousand keys or so a system call


# In a process of its own: to fork one that may have threads is asking for trouble.
FORKING = """
import os
from trio_ws._protocol.frames.encoder import encode

encode(1, b"", True, True)  # so that keys are in store
if os.fork() == 0:
    print("child", encode(1, b"", True, True)[2:].hex(), flush=True)
    os._exit(0)
os.wait()
print("parent", encode(1, b"", True, True)[2:].hex())
"""


@needs_fork
def test_a_child_does_not_use_the_keys_of_its_parent() -> None:
    result = subprocess.run(
        [sys.executable, "-c", FORKING], capture_output=True, text=True, check=True
    )
    child, theirs, parent, ours = result.stdout.split()
    assert (child, parent) == ("child", "parent")
    assert len(theirs) == len(ours) == 8
    assert theirs != ours
