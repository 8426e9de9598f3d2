"""The grammars of header fields."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import websockets.headers
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import InvalidHeaderFormat as PeerInvalidHeaderFormat

from tests.protocol.costs import grows_with_the_square
from trio_ws._protocol.errors import InvalidHeaderFormat
from trio_ws._protocol.handshake.fields import (
    build_authorization_basic,
    build_extensions,
    build_subprotocols,
    parse_connection,
    parse_extensions,
    parse_subprotocols,
    parse_upgrade,
    validate_subprotocols,
)

if TYPE_CHECKING:
    from collections.abc import Callable


# The grammars


def test_connection() -> None:
    assert parse_connection("keep-alive, Upgrade") == ["keep-alive", "Upgrade"]
    assert parse_connection(" ,\t, a ,,b, ") == ["a", "b"]


def test_upgrade() -> None:
    assert parse_upgrade("websocket, HTTP/2.0") == ["websocket", "HTTP/2.0"]


def test_subprotocols() -> None:
    assert parse_subprotocols("chat,superchat") == ["chat", "superchat"]


@pytest.mark.parametrize(
    ("parse", "value", "error"),
    [
        (parse_connection, "", "expected token at 0 in ''"),
        (parse_connection, ", ,", "expected token at 3 in , ,"),
        (parse_connection, "a, b c", "expected token at 2 in a, b c"),
        (parse_connection, "a/b", "expected token at 0 in a/b"),
        (parse_upgrade, "a/", "expected protocol at 0 in a/"),
        (parse_subprotocols, "a, \x80", r"expected token at 2 in a, \x80"),
        (parse_extensions, "", "expected token at 0 in ''"),
        (parse_extensions, ",", "expected token at 1 in ,"),
        (parse_extensions, ";", "expected token at 0 in ;"),
        (parse_extensions, "a b", "expected comma at 2 in a b"),
        (parse_extensions, "a;", "expected token at 2 in a;"),
        (parse_extensions, "a; =", "expected token at 3 in a; ="),
        (parse_extensions, "a; b=", "expected token at 5 in a; b="),
        (parse_extensions, 'a; b="', 'expected quoted string at 5 in a; b="'),
        (
            parse_extensions,
            'a; b="c d"',
            'expected token in quoted string at 5 in a; b="c d"',
        ),
        (
            parse_extensions,
            'a; b=""',
            'expected token in quoted string at 5 in a; b=""',
        ),
    ],
)
def test_malformed(parse: Callable[[str], Any], value: str, error: str) -> None:
    with pytest.raises(InvalidHeaderFormat) as caught:
        parse(value)
    assert caught.value.value == error


@pytest.mark.parametrize(
    ("value", "extensions"),
    [
        ("foo", [("foo", [])]),
        ("foo, bar", [("foo", []), ("bar", [])]),
        (",\t, foo ,, bar,", [("foo", []), ("bar", [])]),
        ("foo; a; b=1", [("foo", [("a", None), ("b", "1")])]),
        ('foo ; a = "1" ;b', [("foo", [("a", "1"), ("b", None)])]),
        (r'foo; a="x\y\z"', [("foo", [("a", "xyz")])]),
    ],
)
def test_extensions(value: str, extensions: list[Any]) -> None:
    assert parse_extensions(value) == extensions
    assert parse_extensions(build_extensions(extensions)) == extensions


@pytest.mark.parametrize(
    "extension", [("a b", []), ("a", [("", None)]), ("a", [("b", "c,")])]
)
def test_extensions_that_cannot_be_built(extension: Any) -> None:
    with pytest.raises(ValueError, match="expected a token"):
        build_extensions([extension])


PARSERS = [
    (parse_connection, websockets.headers.parse_connection),
    (parse_upgrade, websockets.headers.parse_upgrade),
    (parse_subprotocols, websockets.headers.parse_subprotocol),
    (parse_extensions, websockets.headers.parse_extension),
]


@pytest.mark.parametrize(("ours", "theirs"), PARSERS)
@given(value=st.text('ab,;=/"\\ \t\x7f\xe9').map(lambda text: text.strip(" \t")))
def test_same_as_websockets(
    ours: Callable[[str], Any], theirs: Callable[[str], Any], value: str
) -> None:
    try:
        expected = theirs(value)
    except PeerInvalidHeaderFormat:
        with pytest.raises(InvalidHeaderFormat):
            ours(value)
    else:
        assert ours(value) == expected


@pytest.mark.parametrize("parse", [parser for parser, _ in PARSERS])
@pytest.mark.parametrize(
    ("start", "more"),
    [
        *[("", ","), ("", ", "), ("", " "), ("", "a"), ("", "a,"), ("", "a;b=c")],
        *[('a;b="', "\\"), ('a;b="', "x"), ("", 'a;b="'), ("a", "\t")],
    ],
)
def test_parsing_takes_linear_time(
    parse: Callable[[str], Any], start: str, more: str
) -> None:
    def call(size: int) -> None:
        with suppress(InvalidHeaderFormat):
            parse(start + more * size)

    assert not grows_with_the_square(call, 512)


# How much


@pytest.mark.parametrize("empty", ["", " ", "\t , ,"])
@pytest.mark.parametrize("parse", [parse_connection, parse_upgrade, parse_subprotocols])
def test_a_list_is_bounded(parse: Callable[[str], Any], empty: str) -> None:
    items = [f"a{number}" for number in range(101)]
    few = items[:50] + [empty] * 10
    assert parse(",".join(few)) == items[:50]
    assert parse(",".join(items[:100])) == items[:100]
    for value, position in (
        (",".join(items), 390),  # where the first too many begins
        ("a" + "," * 30_000, 101),
        ("," * 30_000 + "a", 100),
    ):
        with pytest.raises(InvalidHeaderFormat) as caught:
            parse(value)
        assert f"expected at most 100 elements at {position} in " in str(caught.value)


@pytest.mark.parametrize(
    ("start", "more", "tokens"),
    [
        ("a", ";b", 1),
        ("a", ",b", 1),
        ("a", ";b=c", 2),
        ("a", ';b="c"', 1),
        ("a", ", b;c", 2),
    ],
)
def test_extensions_are_bounded(start: str, more: str, tokens: int) -> None:
    most = start + more * (99 // tokens)
    assert parse_extensions(most)
    for value in (most + more, most + more * 5000):
        with pytest.raises(InvalidHeaderFormat) as caught:
            parse_extensions(value)
        position = re.search(
            r"at most 100 names and values at (\d+)", str(caught.value)
        )
        assert position is not None
        assert len(most) <= int(position[1]) <= len(most + more)
    # Empty elements cost nothing.
    assert parse_extensions("," * 30_000 + start) == [(start, [])]


def test_quoted_values_are_unescaped() -> None:
    assert parse_extensions(r'a; b="\c\d"; e="f\g"') == [
        ("a", [("b", "cd"), ("e", "fg")])
    ]
    for value in (r'"\\"', r'"a\\"', r'"\\\a"', r'"\"a"', '""'):
        with pytest.raises(InvalidHeaderFormat, match="token in quoted string"):
            parse_extensions(f"a; b={value}")


# What is built


def test_valid_subprotocols() -> None:
    assert validate_subprotocols(["a", "b"]) == ("a", "b")
    assert build_subprotocols(["a", "b"]) == "a, b"


@pytest.mark.parametrize("subprotocols", ["chat", {"chat"}, [b"chat"], 1])
def test_subprotocols_of_wrong_types(subprotocols: Any) -> None:
    with pytest.raises(TypeError, match="subprotocol"):
        validate_subprotocols(subprotocols)


@pytest.mark.parametrize(
    "subprotocols", [[""], ["a b"], ["a\r\nb"], ["\0"], ["a", "a"]]
)
def test_wrong_subprotocols(subprotocols: list[str]) -> None:
    with pytest.raises(ValueError, match="subprotocol"):
        build_subprotocols(subprotocols)


def test_authorization_basic() -> None:
    # RFC 7617, section 2
    credentials = build_authorization_basic("Aladdin", "open sesame")
    assert credentials == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
    # RFC 7617, section 2.1
    assert build_authorization_basic("test", "123\xa3") == "Basic dGVzdDoxMjPCow=="


@pytest.mark.parametrize(
    ("username", "password"), [("a:b", "s3cret"), ("a", "s3cret\n")]
)
def test_authorization_basic_that_cannot_be_built(username: str, password: str) -> None:
    with pytest.raises(ValueError, match="Basic credentials") as caught:
        build_authorization_basic(username, password)
    assert "s3cret" not in str(caught.value)
