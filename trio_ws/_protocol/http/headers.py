"""HTTP header fields: a container whose names ignore case (RFC 9110, section 5)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Protocol, TypeAlias

# token = 1*tchar (RFC 9110, section 5.6.2)
TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"


is_token = re.compile(TOKEN).fullmatch


# field-content, without the rule that white space stays inside: VCHAR, obs-text,
# SP and HTAB (RFC 9110, section 5.5). A str stands for bytes in ISO-8859-1.
FIELD_VALUE = r"[\t\x20-\x7e\x80-\xff]*"
is_field_value = re.compile(FIELD_VALUE).fullmatch


# Fields of a server's answer of which there can be one (RFC 9110, sections 6.6.1,
# 8.3, 8.6 and 10.2.4): what a user assigns stands in place of the server's own.
_SINGLE = frozenset({"content-length", "content-type", "date", "server"})


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
    - ``headers[name] = value`` adds one, after those already there; Content-Length,
      Content-Type, Date and Server, which come once, it replaces;
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
        key = name.lower()
        if key in _SINGLE and key in self._values:
            del self[name]
        self._items.append((name, value))
        self._values.setdefault(key, []).append(value)

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


def pack(headers: Headers) -> None:
    """Make headers take a sixth of the memory until somebody looks again.

    For those of the opening handshake, which are kept as long as the connection.
    """
    headers._packed = str(headers)
    del headers._items, headers._values


def _pairs(source: HeadersLike) -> Iterable[tuple[str, str]]:
    if isinstance(source, Headers):
        return source.raw_items()
    if isinstance(source, Mapping):
        return source.items()
    if isinstance(source, Iterable):
        return map(_pair, source)
    return [(name, source[name]) for name in source.keys()]  # noqa: SIM118


def _pair(item: object) -> tuple[str, str]:
    # A str of two characters would be one, too.
    if isinstance(item, (tuple, list)) and len(item) == 2:
        return item[0], item[1]
    if isinstance(item, str) and ":" in item:
        item = item.partition(":")[0] + ": ..."  # the rest may be a credential
    raise TypeError(f"expected a mapping or pairs of str; got {item!r}")


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
