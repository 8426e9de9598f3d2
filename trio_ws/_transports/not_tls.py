"""Says what a peer speaks that isn't TLS."""

from __future__ import annotations

import ssl

from .._protocol.escaping import excerpt
from .._protocol.strangers import spoken_by


def explain(exc: ssl.SSLError, first: bytes, *, server_side: bool) -> None:
    """Say it in an error of the handshake, by the first bytes that came."""
    spoken = spoken_by(first)
    if not first or spoken == "TLS":
        return
    shown = spoken or excerpt(bytearray(first))
    exc.strerror = f"{exc.strerror}: expected TLS; got {shown}"
    if spoken == "HTTP":
        wrong, right = ("ws", "wss") if server_side else ("wss", "ws")
        exc.strerror += f"; this port speaks {right}://, not {wrong}://"
