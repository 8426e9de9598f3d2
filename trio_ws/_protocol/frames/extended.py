"""Frames that go through the extensions."""

from __future__ import annotations

from collections.abc import Sequence

from ..extensions.base import Extension, Frame
from ..extensions.deflate import PerMessageDeflate
from .encoder import encode
from .outbox import Encoded


def encode_extended(
    frame: Frame, extensions: Sequence[Extension], *, compress: bool, masked: bool
) -> Encoded:
    """Build what becomes of a frame; raise what an extension of the user's raises."""
    try:
        for extension in extensions:
            if compress or not isinstance(extension, PerMessageDeflate):
                frame = extension.encode(frame)
        reserved = frame.rsv1 << 6 | frame.rsv2 << 5 | frame.rsv3 << 4
        return encode(frame.opcode, frame.data, frame.fin, masked, reserved)
    except BaseException:
        forget(extensions)
        raise


def encode_control(
    opcode: int, payload: bytes, extensions: Sequence[Extension], masked: bool
) -> bytes:
    """Build a control frame, which is never compressed, nor large."""
    frame = encode_extended(
        Frame(opcode, payload), extensions, compress=False, masked=masked
    )
    assert type(frame) is bytes
    return frame


def forget(extensions: Sequence[Extension]) -> None:
    """Let nothing refer to what was compressed, since it isn't sent."""
    for extension in extensions:
        if isinstance(extension, PerMessageDeflate):
            extension.forget()
