"""HTTP header fields: a container, and the grammar of those the handshake needs.

The grammars are those of RFC 9110, section 5.6, and RFC 6455, section 9.1. All
parsers look at each character a fixed number of times, whatever the input.
"""

from __future__ import annotations

import base64
import functools
import re
from collections.abc import Sequence
from typing import Protocol, TypeAlias

from ..errors import InvalidHeaderFormat
from ..escaping import escape
from ..extensions.base import ExtensionParameter
from ..http.headers import TOKEN, is_token

# Lists. RFC 9110, section 5.6.1: #element is [ element ] *( OWS "," OWS
# [ element ] ), since a recipient must take empty elements; 1#element needs one.


# No honest sender has more items in a list. They are what takes time: each is a few
# steps in Python, where regular expressions take all else in one.
_MAX_ITEMS = 100


def parse_connection(value: str) -> list[str]:
    """Parse a Connection header: 1#token (RFC 9110, section 7.6.1).

    Raises InvalidHeaderFormat.
    """
    return _parse_list("Connection", value, is_token, "token")


# protocol = protocol-name ["/" protocol-version] (RFC 9110, section 7.8)
_is_protocol = re.compile(f"{TOKEN}(?:/{TOKEN})?").fullmatch


def parse_upgrade(value: str) -> list[str]:
    """Parse an Upgrade header: 1#protocol (RFC 9110, section 7.8).

    Raises InvalidHeaderFormat.
    """
    return _parse_list("Upgrade", value, _is_protocol, "protocol")


def parse_subprotocols(value: str) -> list[str]:
    """Parse a Sec-WebSocket-Protocol header: 1#token (RFC 6455, section 4.3).

    Raises InvalidHeaderFormat.
    """
    return _parse_list("Sec-WebSocket-Protocol", value, is_token, "token")


class _Matcher(Protocol):
    def __call__(self, string: str, /) -> re.Match[str] | None: ...


def _parse_list(name: str, value: str, is_item: _Matcher, what: str) -> list[str]:
    items = []
    pos = 0
    # Empty ones count: a recipient has to take "a reasonable number" of them.
    elements = value.split(",", _MAX_ITEMS)
    if len(elements) > _MAX_ITEMS:
        pos = len(value) - len(elements[-1])
        error = f"expected at most {_MAX_ITEMS} elements"
        raise InvalidHeaderFormat(name, error, escape(value), pos)
    for element in elements:
        item = element.strip(" \t")
        if item:
            if is_item(item) is None:
                raise InvalidHeaderFormat(name, f"expected {what}", escape(value), pos)
            items.append(item)
        pos += len(element) + 1
    if not items:
        raise InvalidHeaderFormat(name, f"expected {what}", escape(value), len(value))
    return items


ExtensionHeader: TypeAlias = tuple[str, list[ExtensionParameter]]


_match_token = re.compile(TOKEN).match


_match_ows = re.compile(r"[\t ]*").match


_match_empty_elements = re.compile(r"[\t ,]*").match


# quoted-string = DQUOTE *( qdtext / quoted-pair ) DQUOTE (RFC 9110, section
# 5.6.4). The two alternatives differ in their first character: no backtracking.
_match_quoted = re.compile(
    r'"((?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*)"'
).match


def parse_extensions(value: str) -> list[ExtensionHeader]:
    """Parse a Sec-WebSocket-Extensions header (RFC 6455, section 9.1).

    extension-list = 1#extension
    extension = extension-token *( ";" extension-param )
    extension-param = token [ "=" (token | quoted-string) ]

    Raises InvalidHeaderFormat.
    """
    return [(name, [*parameters]) for name, parameters in _scan_extensions(value)]


@functools.lru_cache(maxsize=16)  # nearly all clients say one of a few things
def _scan_extensions(value: str) -> list[ExtensionHeader]:
    scanner = _Scanner("Sec-WebSocket-Extensions", value)
    extensions: list[ExtensionHeader] = []
    scanner.skip_empty_elements()
    while not extensions or not scanner.at_end():
        name = scanner.token()
        parameters: list[ExtensionParameter] = []
        while scanner.take(";"):
            parameters.append(scanner.parameter())
        extensions.append((name, parameters))
        if not scanner.at_end() and not scanner.take(","):
            raise scanner.error("expected comma")
        scanner.skip_empty_elements()
    return extensions


class _Scanner:
    """A position in a header's value; every method steps over the OWS behind."""

    def __init__(self, name: str, value: str) -> None:
        self._name = name
        self._value = value
        self._pos = 0
        self._tokens = 0

    def error(self, expected: str) -> InvalidHeaderFormat:
        return InvalidHeaderFormat(self._name, expected, escape(self._value), self._pos)

    def at_end(self) -> bool:
        return self._pos == len(self._value)

    def skip_empty_elements(self) -> None:
        self._step(_match_empty_elements(self._value, self._pos))

    def take(self, char: str) -> bool:
        found = self._value.startswith(char, self._pos)
        if found:
            self._step(_match_ows(self._value, self._pos + 1))
        return found

    def token(self) -> str:
        match = _match_token(self._value, self._pos)
        if match is None:
            raise self.error("expected token")
        self._tokens += 1
        if self._tokens > _MAX_ITEMS:
            raise self.error(f"expected at most {_MAX_ITEMS} names and values")
        self._step(_match_ows(self._value, match.end()))
        return match.group()

    def parameter(self) -> ExtensionParameter:
        name = self.token()
        if not self.take("="):
            return name, None
        if not self._value.startswith('"', self._pos):
            return name, self.token()
        match = _match_quoted(self._value, self._pos)
        if match is None:
            raise self.error("expected quoted string")
        # "the value after quoted-string unescaping MUST conform to the 'token'
        # ABNF" (RFC 6455, section 9.1), so no backslash may be left.
        value = match.group(1)
        if r"\\" not in value:
            value = value.replace("\\", "")
        if is_token(value) is None:
            raise self.error("expected token in quoted string")
        self._step(_match_ows(self._value, match.end()))
        return name, value

    def _step(self, match: re.Match[str] | None) -> None:
        assert match is not None  # the pattern matches the empty string
        self._pos = match.end()


def build_extensions(extensions: Sequence[ExtensionHeader]) -> str:
    """Build a Sec-WebSocket-Extensions header (RFC 6455, section 9.1).

    Raises ValueError if a name or a value isn't a token.
    """
    elements = []
    for name, parameters in extensions:
        parts = [name]
        for parameter, value in parameters:
            parts += [parameter] if value is None else [parameter, value]
        for part in parts:
            if is_token(part) is None:
                raise ValueError(f"extension: expected a token; got {part!r}")
        texts = [
            key if value is None else f"{key}={value}" for key, value in parameters
        ]
        elements.append("; ".join([name, *texts]))
    return ", ".join(elements)


def validate_subprotocols(subprotocols: Sequence[str]) -> tuple[str, ...]:
    """Check the subprotocols that a user asks for (RFC 6455, section 4.1).

    Raises ValueError unless all are tokens and no two are the same, TypeError
    if it is no sequence of str.
    """
    if isinstance(subprotocols, str) or not isinstance(subprotocols, Sequence):
        raise TypeError(
            f"subprotocols: expected a list of str; got {type(subprotocols).__name__}"
        )
    for subprotocol in subprotocols:
        if not isinstance(subprotocol, str):
            raise TypeError(
                f"subprotocol: expected a str; got {type(subprotocol).__name__}"
            )
        if is_token(subprotocol) is None:
            raise ValueError(f"subprotocol: expected a token; got {subprotocol!r}")
    if len(set(subprotocols)) < len(subprotocols):
        raise ValueError(
            f"subprotocols: expected no duplicates; got {list(subprotocols)!r}"
        )
    return tuple(subprotocols)


def build_subprotocols(subprotocols: Sequence[str]) -> str:
    """Build a Sec-WebSocket-Protocol header (RFC 6455, section 4.1).

    Raises as :func:`validate_subprotocols` does.
    """
    return ", ".join(validate_subprotocols(subprotocols))


def build_authorization_basic(username: str, password: str) -> str:
    """Build an Authorization header with Basic credentials (RFC 7617, section 2).

    Raises ValueError if the user name has a colon, or either a control
    character.
    """
    if ":" in username:
        raise ValueError("Basic credentials: expected no colon in the user name")
    if re.search(r"[\x00-\x1f\x7f]", username + password) is not None:
        raise ValueError("Basic credentials: expected no control characters")
    credentials = f"{username}:{password}".encode()
    return "Basic " + base64.b64encode(credentials).decode("ascii")
