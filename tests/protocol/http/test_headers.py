"""Headers: the container."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_ws._protocol.http.headers import Headers, MultipleValuesError, pack

if TYPE_CHECKING:
    from collections.abc import Callable


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
