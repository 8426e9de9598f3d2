"""What a log shows of text that a peer sent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_ws._protocol.escaping import escape


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("plain é", "plain é"),
        ("a\nb\x00\x7f", r"a\nb\x00\x7f"),
        ("é\u202e", r"é\u202e"),
        ("\ud800", r"\ud800"),
    ],
)
def test_escape(text: str, escaped: str) -> None:
    assert escape(text) == escaped


@given(st.text(alphabet=st.characters(codec=None)))
def test_what_is_escaped_is_printable(text: str) -> None:
    assert escape(text).isprintable()
