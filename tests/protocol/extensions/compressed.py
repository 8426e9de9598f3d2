"""Payloads, and ends of a connection that compress them."""

from __future__ import annotations

import base64
import functools
import random
import zlib
from collections.abc import Sequence
from typing import Any

import pytest
from websockets.frames import Frame as PeerFrame

from tests.peers import wire
from tests.peers.wire import KEY
from trio_ws._protocol.engine import Engine
from trio_ws._protocol.errors import PayloadTooBig
from trio_ws._protocol.extensions.base import Frame
from trio_ws._protocol.extensions.deflate import PerMessageDeflate

RSV1 = 4  # as wire.frame() takes it
ROLES = pytest.mark.parametrize("client", [False, True], ids=["server", "client"])


def random_bytes(size: int) -> bytes:
    """Return bytes that can't be compressed, the same each time."""
    return random.Random(0).randbytes(size)


def noise(size: int, seed: int = 0) -> bytes:
    """Return text that is compressed to three quarters, the same each time.

    What can't be compressed is sent as it is, so it would show nothing.
    """
    return base64.b64encode(random.Random(seed).randbytes(size))[:size]


# What shows a window that is too small on the receiving side, and a context that
# one side alone takes over: references over 300, 700 and 20,000 bytes, and to the
# message before.
BLOCK = noise(700)


def deflate(
    *,
    remote_no_takeover: bool = False,
    local_no_takeover: bool = False,
    remote_bits: int = 15,
    local_bits: int = 15,
    **more: Any,
) -> PerMessageDeflate:
    return PerMessageDeflate(
        remote_no_context_takeover=remote_no_takeover,
        local_no_context_takeover=local_no_takeover,
        remote_max_window_bits=remote_bits,
        local_max_window_bits=local_bits,
        **more,
    )


def engine(
    extension: PerMessageDeflate | None = None,
    *,
    client: bool = True,
    max_size: int | None = None,
    **traces: Any,
) -> Engine:
    side = Engine(client=client, max_size=max_size, **traces)
    side.extend([deflate() if extension is None else extension])
    return side


def incoming(
    side: Engine, opcode: int, payload: bytes, *, fin: bool = True, rsv: int = RSV1
) -> bytes:
    """Make a frame as the peer of ``side`` would."""
    key = None if side.client else KEY
    return wire.frame(opcode, payload, fin=fin, rsv=rsv, key=key)


def compressed(data: bytes, *, level: int = 6, bits: int = 15) -> bytes:
    """Make the payload of a compressed message (section 7.2.1)."""
    context = zlib.compressobj(level, wbits=-bits)
    made = context.compress(data) + context.flush(zlib.Z_SYNC_FLUSH)
    assert made.endswith(b"\x00\x00\xff\xff")
    return made[:-4]


def final(data: bytes) -> bytes:
    """Compress to a stream that ends, as some peers make one of each message."""
    context = zlib.compressobj(wbits=-15)
    return context.compress(data) + context.flush()


def check_failed(side: Engine, code: int, text: str) -> None:
    assert side.violation is not None
    assert side.violation.close_code == code
    assert text in str(side.violation)
    assert isinstance(side.violation, PayloadTooBig) == (code == 1009)


SWITCH = (False, True)


_NAMES = (
    "server_no_context_takeover",
    "client_no_context_takeover",
    "server_max_window_bits",
    "client_max_window_bits",
)


def keywords(values: Sequence[Any]) -> dict[str, Any]:
    return dict(zip(_NAMES, values, strict=True))


def from_peer(frame: PeerFrame) -> Frame:
    return Frame(
        int(frame.opcode),
        bytes(frame.data),
        frame.fin,
        frame.rsv1,
        frame.rsv2,
        frame.rsv3,
    )


MiB = 2**20


@functools.cache
def bomb(size: int) -> bytes:
    """Compress so many MiB of zeros."""
    context = zlib.compressobj(9, wbits=-15)
    head = context.compress(bytes(MiB)) + context.flush(zlib.Z_FULL_FLUSH)
    part = context.compress(bytes(MiB)) + context.flush(zlib.Z_FULL_FLUSH)
    return (head + part * (size - 1))[:-4]
