"""Frames made and read without trio_ws, to hold against what it makes and reads."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from websockets.frames import Frame
from websockets.streams import StreamReader

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

KEY = b"\x37\xfa\x21\x3d"  # of the examples in RFC 6455, section 5.7


def header(
    opcode: int,
    length: int,
    *,
    fin: bool = True,
    rsv: int = 0,
    key: bytes | None = None,
    extended: int | None = None,
) -> bytes:
    """Make a header, right or wrong; ``extended`` bytes hold the length."""
    if extended is None:
        extended = 0 if length < 126 else 2 if length < 2**16 else 8
    short = {0: length, 2: 126, 8: 127}[extended]
    return (
        bytes([fin << 7 | rsv << 4 | opcode, (key is not None) << 7 | short])
        + (length.to_bytes(extended, "big") if extended else b"")
        + (key or b"")
    )


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    key: bytes | None = None,
    extended: int | None = None,
) -> bytes:
    head = header(opcode, len(payload), fin=fin, rsv=rsv, key=key, extended=extended)
    if key is not None:
        payload = xor(payload, key)
    return head + payload


def xor(data: bytes, key: bytes) -> bytes:
    size = len(data)
    mask = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(data) ^ int.from_bytes(mask)).to_bytes(size)


def made(frame: bytes | tuple[Any, ...]) -> bytes:
    """Return what encode() made as it has to go out."""
    if isinstance(frame, bytes):
        return frame
    if len(frame) == 2:
        return b"".join(frame)
    header, beginning, payload, key = frame
    masked = xor(payload, key.to_bytes(4, "little"))
    assert masked.startswith(beginning)
    return bytes(header + masked)


def put(side: Any, receive: Callable[[bytes], Any], data: bytes) -> list[Any]:
    """Hand over bytes as the reader does: where there is space, else to receive().

    Return what all calls returned, one after the other.
    """
    items: list[Any] = []
    while data:
        space = side.space()
        if space is None:
            return items + (receive(data) or [])
        count = min(len(space), len(data))
        with space:
            space[:count] = data[:count]
        data = data[count:]
        items += side.filled(count) or []
    return items


def close_frame(code: int, reason: bytes = b"", *, key: bytes | None = None) -> bytes:
    return frame(CLOSE, code.to_bytes(2, "big") + reason, key=key)


def _run(step: Generator[None, None, Any]) -> Any:
    try:
        next(step)
    except StopIteration as exc:
        return exc.value
    raise AssertionError("the parser waits for bytes behind the end")


def parse_stream(stream: bytes, *, masked: bool) -> list[Frame]:
    """Read whole frames; a stream that ends within one raises EOFError."""
    reader = StreamReader()
    reader.feed_data(stream)
    reader.feed_eof()
    frames = []
    while not _run(reader.at_eof()):
        frames.append(_run(Frame.parse(reader.read_exact, mask=masked)))
    return frames


class _Recorder:
    """Takes part in parsing as an extension that uses all reserved bits."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        self.frames.append(frame)
        return Frame(frame.opcode, frame.data, frame.fin)


def parse_extended(stream: bytes, *, masked: bool) -> list[Frame]:
    """Read whole frames as parse_stream() does, reserved bits and all."""
    reader = StreamReader()
    reader.feed_data(stream)
    reader.feed_eof()
    recorder: Any = _Recorder()
    while not _run(reader.at_eof()):
        _run(Frame.parse(reader.read_exact, mask=masked, extensions=[recorder]))
    frames: list[Frame] = recorder.frames
    return frames
