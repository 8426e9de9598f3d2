"""What others may speak on a port, known by its first bytes."""

from __future__ import annotations

import re

# Of version 2 of the PROXY protocol.
PROXY_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"

_TLS = "TLS"
_HTTP2 = "HTTP/2"
_PROXY = "a header of the PROXY protocol"
_PROXY_2 = f"{_PROXY}, version 2"

# What a client or a proxy says that is set up for another port, not a probe.
ASTRAY = ("HTTP", _TLS, _HTTP2, _PROXY, _PROXY_2)

# So many bytes tell one from the other.
MOST = 16

# Of those that speak first, or answer what isn't for them with an error.
_SPOKEN = (
    # A status line, or a request with one of the methods that there are.
    (rb"HTTP/[0-9]|(?:GET|HEAD|POST|PUT|DELETE|OPTIONS|PATCH|CONNECT|TRACE) ", "HTTP"),
    # ContentType alert and handshake, and the version (RFC 8446, section 5.1)
    (rb"[\x15\x16]\x03", _TLS),
    # A frame SETTINGS, of less than 256 bytes, or the preface (RFC 9113, section 3.4)
    (rb"\0\0.\x04|PRI \* HTTP/2", _HTTP2),
    (rb"PROXY ", _PROXY),
    (re.escape(PROXY_SIGNATURE), _PROXY_2),
    (rb"SSH-", "SSH"),
    (rb"-(?:ERR|NOAUTH|DENIED) |\*[0-9]", "Redis"),
    (rb"220[ -]", "SMTP or FTP"),
    (rb"\+OK", "POP3"),
    (rb"\* ", "IMAP"),
    (rb"RFB ", "VNC"),
)
_patterns = [(re.compile(pattern, re.DOTALL), name) for pattern, name in _SPOKEN]


def spoken_by(first: bytes | bytearray) -> str | None:
    """Name what begins with these bytes; None if that isn't known."""
    return next((name for regex, name in _patterns if regex.match(first)), None)
