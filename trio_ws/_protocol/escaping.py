"""Words of a peer, made safe for a log or an exception."""

from __future__ import annotations


def escape(text: str) -> str:
    """Make a peer's text safe for a log or an exception: no control characters."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode()
        for char in text
    )


_SHOWN = 60  # bytes of a bad line that an error shows


def excerpt(data: str | bytearray) -> str:
    start = data[:_SHOWN]
    text = ascii(start if isinstance(start, str) else start.decode("iso-8859-1"))
    return text + "..." if len(data) > _SHOWN else text
