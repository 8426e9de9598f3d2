"""HTTP header fields: a container, and the grammar of those the handshake needs.

The grammars are those of RFC 9110, section 5.6, and RFC 6455, section 9.1. All
parsers look at each character a fixed number of times, whatever the input.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias

from ._errors import InvalidHeaderFormat
from ._frames import escape

# token = 1*tchar (RFC 9110, section 5.6.2)
TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
is_token = re.compile(TOKEN).fullmatch

# field-content, without the rule that white space stays inside: VCHAR, obs-text,
# SP and HTAB (RFC 9110, section 5.5). A str stands for bytes in ISO-8859-1.
is_field_value = re.compile(r"[\t\x20-\x7e\x80-\xff]*").fullmatch


class MultipleValuesError(LookupError):
    """A header that was asked for as one value came several times."""

    def __str__(self) -> str:
        return repr(self.args[0]) if len(self.args) == 1 else super().__str__()


class SupportsKeysAndGetItem(Protocol):
    """What dict() takes as a mapping: keys() and indexing."""

    def keys(self) -> Iterable[str]:
        """Return the names."""

    def __getitem__(self, name: str, /) -> str:
        """Return the value of a name."""


class Headers(MutableMapping[str, str]):
    """The header fields of a request or a response.

    A mapping whose names are case-insensitive and may come several times:

    - ``headers[name]`` raises KeyError if there is no such header, and another
      LookupError if there are several;
    - ``headers[name] = value`` adds one, after those already there;
    - ``del headers[name]`` removes them all.

    Names are tokens. Values hold no control characters other than HTAB and
    nothing above U+00FF, as they travel in ISO-8859-1; setting anything else
    raises ValueError, so that no CR, LF or NUL can reach the wire from here.
    """

    __slots__ = ("_items", "_packed", "_values")

    # The wire's order and spelling, and an index by lower-cased name.
    _items: list[tuple[str, str]]
    _values: dict[str, list[str]]
    _packed: str  # both, while there is neither

    def __init__(self, *args: HeadersLike, **kwargs: str) -> None:
        self._items = []
        self._values = {}
        self.update(*args, **kwargs)

    @classmethod
    def from_valid(cls, items: list[tuple[str, str]]) -> Headers:
        """Make headers of names and values that a parser has checked already."""
        headers = cls.__new__(cls)
        headers._fill(items)
        return headers

    def _fill(self, items: list[tuple[str, str]]) -> None:
        self._items = items
        values = self._values = {}
        for name, value in items:
            # setdefault(..., []) would make a list a header more.
            key = name.lower()
            if key in values:
                values[key].append(value)
            else:
                values[key] = [value]

    def _pack(self) -> None:
        """Take a sixth of the memory until somebody looks again.

        For the headers of the opening handshake, which are kept as long as the
        connection.
        """
        self._packed = str(self)
        del self._items, self._values

    if not TYPE_CHECKING:  # it would make any attribute a known one

        def __getattr__(self, name: str) -> object:
            # Reached where a slot is empty: the headers are packed.
            if name not in ("_items", "_values"):
                raise AttributeError(name)
            lines = self._packed.split("\r\n")[:-2]
            parts = [line.partition(": ") for line in lines]
            self._fill([(part[0], part[2]) for part in parts])
            del self._packed
            return getattr(self, name)

    def __getitem__(self, name: str) -> str:
        values = self._values[name.lower()]
        if len(values) > 1:
            raise MultipleValuesError(name)
        return values[0]

    def __setitem__(self, name: str, value: str) -> None:
        check_header(name, value)
        self._items.append((name, value))
        self._values.setdefault(name.lower(), []).append(value)

    def __delitem__(self, name: str) -> None:
        key = name.lower()
        del self._values[key]
        self._items = [item for item in self._items if item[0].lower() != key]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Headers):
            return NotImplemented
        return self._values == other._values

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._items!r})"

    def __str__(self) -> str:
        lines = [f"{name}: {value}\r\n" for name, value in self._items]
        return "".join(lines) + "\r\n"

    def serialize(self) -> bytes:
        """Return the header section as on the wire, with the empty line."""
        return str(self).encode("iso-8859-1")

    def copy(self) -> Headers:
        """Return a copy that changes on its own."""
        return self.from_valid(self._items.copy())

    def clear(self) -> None:
        """Remove all headers."""
        self._items = []
        self._values = {}

    # MutableMapping's own takes neither Headers with several values nor
    # more than one positional argument.
    def update(self, *args: HeadersLike, **kwargs: str) -> None:
        """Add the headers of mappings, of iterables of pairs, and of keywords."""
        for arg in args:
            for name, value in _pairs(arg):
                self[name] = value
        for name, value in kwargs.items():
            self[name] = value

    def get_all(self, name: str) -> list[str]:
        """Return the values of a header, an empty list if there is none."""
        return list(self._values.get(name.lower(), ()))

    def raw_items(self) -> Iterator[tuple[str, str]]:
        """Iterate over all names and values, in order and as spelt."""
        return iter(self._items)


HeadersLike: TypeAlias = (
    Headers | Mapping[str, str] | Iterable[tuple[str, str]] | SupportsKeysAndGetItem
)


def _pairs(source: HeadersLike) -> Iterable[tuple[str, str]]:
    if isinstance(source, Headers):
        return source.raw_items()
    if isinstance(source, Mapping):
        return source.items()
    if isinstance(source, Iterable):
        return source
    return [(name, source[name]) for name in source.keys()]  # noqa: SIM118


def check_header(name: str, value: str) -> None:
    """Check a header that is about to be written.

    Raises ValueError for what may not stand in a name or a value, TypeError
    for other types.
    """
    if not isinstance(name, str):
        raise TypeError(f"header name: expected a str; got {type(name).__name__}")
    if is_token(name) is None:
        raise ValueError(
            f"header name: expected a token (RFC 9110, section 5.6.2); got {name!r}"
        )
    if not isinstance(value, str):
        raise TypeError(f"header {name}: expected a str; got {type(value).__name__}")
    if is_field_value(value) is None:
        # Not the value itself: it may be a credential.
        bad = next(char for char in value if is_field_value(char) is None)
        raise ValueError(
            f"header {name}: expected no control characters and nothing above "
            f"U+00FF; got {bad!r} at {value.index(bad)}"
        )


# Lists. RFC 9110, section 5.6.1: #element is [ element ] *( OWS "," OWS
# [ element ] ), since a recipient must take empty elements; 1#element needs one.


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
    for element in value.split(","):
        item = element.strip(" \t")
        if item:
            if is_item(item) is None:
                raise InvalidHeaderFormat(name, f"expected {what}", escape(value), pos)
            items.append(item)
        pos += len(element) + 1
    if not items:
        raise InvalidHeaderFormat(name, f"expected {what}", escape(value), len(value))
    return items


# An extension's name and its parameters, in order; None is a parameter without
# a value.
ExtensionParameter: TypeAlias = tuple[str, str | None]
ExtensionHeader: TypeAlias = tuple[str, list[ExtensionParameter]]

_match_token = re.compile(TOKEN).match
_match_ows = re.compile(r"[\t ]*").match
_match_empty_elements = re.compile(r"[\t ,]*").match

# quoted-string = DQUOTE *( qdtext / quoted-pair ) DQUOTE (RFC 9110, section
# 5.6.4). The two alternatives differ in their first character: no backtracking.
_match_quoted = re.compile(
    r'"((?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*)"'
).match
_unquote = re.compile(r"\\(.)").sub


def parse_extensions(value: str) -> list[ExtensionHeader]:
    """Parse a Sec-WebSocket-Extensions header (RFC 6455, section 9.1).

    extension-list = 1#extension
    extension = extension-token *( ";" extension-param )
    extension-param = token [ "=" (token | quoted-string) ]

    Raises InvalidHeaderFormat.
    """
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
        value = _unquote(r"\1", match.group(1))
        # "the value after quoted-string unescaping MUST conform to the 'token'
        # ABNF" (RFC 6455, section 9.1).
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


def build_host(host: str, port: int, *, secure: bool) -> str:
    """Build a Host header: the port only if it isn't the scheme's own.

    RFC 6455, section 4.1; RFC 3986, section 3.2.2, for the brackets. The zone
    of an IPv6 address means nothing to the peer and stays out (RFC 6874).
    """
    if ":" in host:
        host = f"[{host.partition('%')[0]}]"
    return host if port == (443 if secure else 80) else f"{host}:{port}"


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
