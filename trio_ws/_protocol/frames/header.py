# cython: annotation_typing=False, nonecheck=True
"""The header of a frame (RFC 6455, section 5.2): what may stand in it.

Off the fastest way: the decoder calls these where a header isn't that of a short
data frame.
"""

from __future__ import annotations

from typing import Final

from ..errors import ProtocolError
from ..opcodes import MAX_CONTROL_PAYLOAD, OPCODE_NAMES

# No frame is longer (RFC 6455, section 5.2).
MAX_LENGTH: Final = 2**63 - 1


def extended_length(data: bytes, start: int, stop: int) -> int:
    """Read a length of 2 or 8 bytes (section 5.2). Raises ProtocolError."""
    if stop - start == 2:
        length = data[start] << 8 | data[start + 1]
        if length >= 126:
            return length
    else:
        length = int.from_bytes(data[start:stop], "big")
        if length > MAX_LENGTH:
            raise ProtocolError(
                "frame length: expected less than 2**63; the top bit is set"
            )
        if length >= 0x10000:
            return length
    raise ProtocolError(
        f"frame length: expected the shortest encoding; "
        f"got {stop - start} bytes for {length}"
    )


def check_header(first: int, second: int, masked: bool, extended: bool) -> None:
    """Check the first two bytes of a frame (section 5.2).

    ``masked`` is what frames must be, ``extended`` whether an extension may use
    their reserved bits. Raises ProtocolError.
    """
    if first & 0x70 and not extended:
        raise ProtocolError("reserved bits are set; no extension was negotiated")
    opcode = first & 0x0F
    if opcode not in OPCODE_NAMES:
        raise ProtocolError(f"unknown opcode {opcode:#x}")
    if masked != (second >= 0x80):
        # Section 5.1
        raise ProtocolError(
            "frame of a client is not masked"
            if masked
            else "frame of a server is masked"
        )
    if opcode & 0x08:
        # Section 5.5
        if not first & 0x80:
            raise ProtocolError(f"{OPCODE_NAMES[opcode]} frame is fragmented")
        if second & 0x7F > MAX_CONTROL_PAYLOAD:
            raise ProtocolError(
                f"{OPCODE_NAMES[opcode]} frame: expected a payload of at most "
                f"{MAX_CONTROL_PAYLOAD} bytes"
            )


def expected(start: bytes, masked: bool) -> str:
    """Say what these first bytes of a frame are the beginning of."""
    if len(start) == 1:
        return "2 bytes, at least, of a frame's header"
    first, second = start[:2]
    length = second & 0x7F
    size = 2 + {126: 2, 127: 8}.get(length, 0) + (4 if masked else 0)
    if first & 0x08:
        return f"{size + length} bytes of a {OPCODE_NAMES[first & 0x0F]} frame"
    return f"{size} bytes of a frame's header"
