"""What others can't do, or do wrong; the evidence stands in README.md."""

from __future__ import annotations

import re

# Of whom, in which tests (their names with the role of trio_ws and all), and why.
_FAULTS = [
    ("undici", r"client", "it is no server"),
    (
        "undici",
        r"theirs_closes.*-10(01|11)-",
        "browsers' API has 1000 and 3000 to 4999",
    ),
    ("tornado", r"each_message_alone", "it drops parameters without a value"),
    ("mojolicious", r"each_message_alone", "it reads no parameters"),
    (
        "libwebsockets",
        r"not_compressed.*server",
        "its client loops on it where compression was agreed",
    ),
    ("libwebsockets", r"test_compression\[", "it can't send the empty one compressed"),
    (
        "netty",
        r"fragments_of_theirs|test_compression\[client",
        "it can't compress an empty fragment",
    ),
    ("netty", r"test_compression\[server", "it loses the end of what doesn't shrink"),
    ("netty", r"each_message_alone.*server", "it takes only what it asked for"),
    ("apache2", r"behind.*HTTP/1.0", "it begins the tunnel without the 101"),
    # RFC 9112, section 6.1, lets it; that it sees them is test_behind's.
    ("apache2", r"in_the_body.*length and chunked", "it goes by the chunks alone"),
    ("caddy", r"in_the_body.*length and chunked", "it goes by the chunks alone"),
]


def fault(name: str, test: str) -> str | None:
    """Return what is wrong with it in that test, if anything."""
    for whose, pattern, reason in _FAULTS:
        if whose == name and re.search(pattern, test):
            return reason
    return None
