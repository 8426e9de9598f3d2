"""trio_ws._protocol._headers: the container and the grammars."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import pytest
import websockets.headers
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import InvalidHeaderFormat as PeerInvalidHeaderFormat

from tests._protocol.costs import grows_with_the_square
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
from trio_ws._protocol.http.headers import Headers, MultipleValuesError, pack
from trio_ws._protocol.uri import build_host

if TYPE_CHECKING:
    from collections.abc import Callable

# The container


def test_a_header_is_found_whatever_its_case() -> None:
    headers = Headers({"Host": "example.com"})
    assert headers["hOST"] == "example.com"
    assert "HOST" in headers
    assert "Origin" not in headers
    assert cast(object, 1) not in headers
    assert headers.get("Origin") is None


def test_no_value_and_several_values() -> None:
    headers = Headers([("A", "1"), ("a", "2")])
    with pytest.raises(KeyError):
        headers["B"]
    with pytest.raises(MultipleValuesError, match="'A'") as caught:
        headers["A"]
    assert isinstance(caught.value, LookupError)
    assert str(MultipleValuesError("a", "b")) == "('a', 'b')"
    assert headers.get_all("A") == ["1", "2"]
    assert headers.get_all("B") == []


def test_get_all_returns_a_list_of_its_own() -> None:
    headers = Headers(A="1")
    headers.get_all("A").append("2")
    assert headers.get_all("A") == ["1"]


def test_setting_adds_and_deleting_removes_all() -> None:
    headers = Headers()
    headers["A"] = "1"
    headers["B"] = "2"
    headers["a"] = "3"
    assert list(headers.raw_items()) == [("A", "1"), ("B", "2"), ("a", "3")]
    assert (list(headers), len(headers)) == (["a", "b"], 2)
    del headers["A"]
    assert list(headers.raw_items()) == [("B", "2")]
    with pytest.raises(KeyError):
        del headers["A"]
    headers.clear()
    assert (len(headers), list(headers.raw_items())) == (0, [])


class Indexable:
    def keys(self) -> list[str]:
        return ["A", "B"]

    def __getitem__(self, name: str, /) -> str:
        return name.lower()


def test_update_takes_what_dict_takes_and_headers() -> None:
    several = Headers([("A", "1"), ("A", "2")])
    headers = Headers(several, {"B": "3"}, [("C", "4")], Indexable(), D="5")
    assert list(headers.raw_items()) == [
        *[("A", "1"), ("A", "2"), ("B", "3"), ("C", "4"), ("A", "a"), ("B", "b")],
        ("D", "5"),
    ]


def test_a_copy_changes_on_its_own() -> None:
    headers = Headers([("A", "1"), ("a", "2")])
    copy = headers.copy()
    assert copy == headers
    copy["A"] = "3"
    assert headers.get_all("A") == ["1", "2"]
    assert copy != headers


@given(
    st.lists(
        st.tuples(
            st.text("aB-", min_size=1),
            st.text('a:, \t"\x80\x85\xa0\xff').map(lambda text: text.strip(" \t")),
        )
    )
)
def test_packed_headers_are_the_same_once_looked_at(
    items: list[tuple[str, str]],
) -> None:
    looks: list[Callable[[Headers], object]] = [
        *(len, list, str, repr, Headers.copy, Headers.clear, Headers.serialize),
        lambda headers: headers.get_all("a"),
        lambda headers: headers.get("B", "none"),
        lambda headers: list(headers.raw_items()),
        lambda headers: headers.__setitem__("C", "1"),
        pack,
    ]
    for look in looks:
        known, packed = Headers(items), Headers(items)
        pack(packed)
        try:
            expected = look(known)
        except MultipleValuesError:
            continue
        assert look(packed) == expected
        assert packed == known
        assert list(packed.raw_items()) == list(known.raw_items())


def test_headers_have_no_other_attributes() -> None:
    with pytest.raises(AttributeError, match="missing"):
        Headers().missing  # type: ignore[attr-defined]  # noqa: B018


def test_equality_heeds_order_of_values_but_not_case_of_names() -> None:
    assert Headers([("A", "1"), ("B", "2")]) == Headers([("b", "2"), ("a", "1")])
    assert Headers(A="1") != {"a": "1"}
    with pytest.raises(TypeError):
        hash(Headers())


def test_text_forms() -> None:
    headers = Headers([("Host", "a"), ("X", "\xe9")])
    assert str(headers) == "Host: a\r\nX: \xe9\r\n\r\n"
    assert headers.serialize() == b"Host: a\r\nX: \xe9\r\n\r\n"
    assert repr(headers) == r"Headers([('Host', 'a'), ('X', 'é')])"


@pytest.mark.parametrize("name", ["", "a b", "a:", "a\r", "a\n", "\0", "\xe9", "(a)"])
def test_a_name_that_is_no_token_is_refused(name: str) -> None:
    headers = Headers()
    with pytest.raises(ValueError, match="expected a token"):
        headers[name] = "x"
    assert len(headers) == 0


@pytest.mark.parametrize("bad", ["\r", "\n", "\0", "\x1f", "\x7f", "\u0100", "\ud800"])
@pytest.mark.parametrize("template", ["{}", "a{}", "{}b", "a{}b: c"])
def test_a_value_that_could_split_the_message_is_refused(
    template: str, bad: str
) -> None:
    headers = Headers()
    with pytest.raises(ValueError, match="header X: expected no control") as caught:
        headers["X"] = template.format(bad)
    assert repr(bad) in str(caught.value)
    assert len(headers) == 0


def test_other_types_are_refused() -> None:
    headers = Headers()
    with pytest.raises(TypeError, match="expected a str; got int"):
        headers[cast(str, 1)] = "x"
    with pytest.raises(TypeError, match="header X: expected a str; got bytes"):
        headers["X"] = cast(str, b"x")
    assert len(headers) == 0


@given(st.text(), st.text())
def test_what_is_set_stays_one_line(name: str, value: str) -> None:
    headers = Headers()
    try:
        headers[name] = value
    except ValueError:
        assert len(headers) == 0
    else:
        line = headers.serialize().removesuffix(b"\r\n\r\n")
        assert not set(line) & {0, 10, 13}


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
        (parse_connection, "", "expected token at 0 in "),
        (parse_connection, ", ,", "expected token at 3 in , ,"),
        (parse_connection, "a, b c", "expected token at 2 in a, b c"),
        (parse_connection, "a/b", "expected token at 0 in a/b"),
        (parse_upgrade, "a/", "expected protocol at 0 in a/"),
        (parse_subprotocols, "a, \x80", r"expected token at 2 in a, \x80"),
        (parse_extensions, "", "expected token at 0 in "),
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


@pytest.mark.parametrize(
    ("host", "port", "secure", "header"),
    [
        ("example.com", 80, False, "example.com"),
        ("example.com", 80, True, "example.com:80"),
        ("example.com", 443, True, "example.com"),
        ("127.0.0.1", 8765, False, "127.0.0.1:8765"),
        ("::1", 80, False, "[::1]"),
        ("fe80::1%eth0", 8765, False, "[fe80::1]:8765"),
    ],
)
def test_host(host: str, port: int, secure: bool, header: str) -> None:
    assert build_host(host, port, secure=secure) == header


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
