"""Words of a peer, made safe for a log or an exception."""

from __future__ import annotations


class _Escapes(dict[int, str]):
    """What stands for a character: an escape sequence or itself."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        if not char.isprintable():
            char = char.encode("unicode_escape").decode()
        if code < 0x100:  # all that a header has; a close reason can have any
            self[code] = char
        return char


_escapes = _Escapes()


def escape(text: str) -> str:
    """Make a peer's text safe for a log or an exception: no control characters."""
    if text.isprintable():
        return text
    return text.translate(_escapes)


_LOGGED = 300  # characters of a peer's text that a log line shows


def shortened(text: str) -> str:
    """Make a line for a log of text in which a peer may say kilobytes."""
    if len(text) <= _LOGGED:
        return text
    return f"{text[:_LOGGED]}... [{len(text)} characters]"


_SHOWN = 60  # bytes of a bad line that an error shows


def excerpt(data: str | bytearray) -> str:
    start = data[:_SHOWN]
    text = ascii(start if isinstance(start, str) else start.decode("iso-8859-1"))
    return text + "..." if len(data) > _SHOWN else text
