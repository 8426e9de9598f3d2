# cython: annotation_typing=False
"""Frames that go through the extensions."""

from __future__ import annotations

from collections.abc import Sequence

from ..extensions.base import Extension, Frame
from ..extensions.deflate import PerMessageDeflate
from ..opcodes import CONT
from .encoder import encode
from .outbox import Encoded


def encode_extended(
    opcode: int,
    payload: bytes,
    fin: bool,
    masked: bool,
    extensions: Sequence[Extension],
    compress: bool,
    deflate: PerMessageDeflate | None,
) -> Encoded:
    """Build a data frame; raise what an extension of the user's raises.

    ``deflate`` is compression where it is the only extension.
    """
    try:
        if deflate is None or not fin or opcode == CONT:
            return _through(Frame(opcode, payload, fin), extensions, compress, masked)
        # A whole message, by far the most common, needs no detour by frames.
        data = deflate.deflate_message(payload) if compress else None
        if data is None:
            return encode(opcode, payload, True, masked)
        return encode(opcode, data, True, masked, 0x40)
    except BaseException:
        forget(extensions)
        raise


def _through(
    frame: Frame, extensions: Sequence[Extension], compress: bool, masked: bool
) -> Encoded:
    for extension in extensions:
        if compress or not isinstance(extension, PerMessageDeflate):
            frame = extension.encode(frame)
    reserved = frame.rsv1 << 6 | frame.rsv2 << 5 | frame.rsv3 << 4
    return encode(frame.opcode, frame.data, frame.fin, masked, reserved)


def encode_control(
    opcode: int, payload: bytes, extensions: Sequence[Extension], masked: bool
) -> bytes:
    """Build a control frame, which is never compressed, nor large."""
    frame = _through(Frame(opcode, payload), extensions, False, masked)
    assert type(frame) is bytes
    return frame


def forget(extensions: Sequence[Extension]) -> None:
    """Let nothing refer to what was compressed, since it isn't sent."""
    for extension in extensions:
        if isinstance(extension, PerMessageDeflate):
            extension.forget()
