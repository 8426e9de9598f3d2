"""Close codes, and how a log shows a frame."""

from __future__ import annotations

import pytest
import websockets.frames
from hypothesis import given
from hypothesis import strategies as st

from trio_ws._endpoint.log import describe
from trio_ws._protocol.closing import (
    OK_CODES,
    Close,
    CloseCode,
    close_payload,
    is_sendable,
)
from trio_ws._protocol.escaping import escape
from trio_ws._protocol.opcodes import (
    BINARY,
    CLOSE,
    CONT,
    MAX_CONTROL_PAYLOAD,
    OPCODE_NAMES,
    PING,
    PONG,
    TEXT,
)


def test_opcodes() -> None:
    # RFC 6455, section 5.2
    assert OPCODE_NAMES == {
        0: "CONT",
        1: "TEXT",
        2: "BINARY",
        8: "CLOSE",
        9: "PING",
        10: "PONG",
    }
    assert tuple(OPCODE_NAMES) == (CONT, TEXT, BINARY, CLOSE, PING, PONG)


def test_close_codes() -> None:
    assert {code.name: code.value for code in CloseCode} == {
        code.name: code.value for code in websockets.frames.CloseCode
    }
    assert {1000, 1001, 1005} == OK_CODES


def test_which_codes_are_sendable() -> None:
    # RFC 6455, section 7.4, and the registry of IANA
    sendable = {*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}
    assert {code for code in range(-1, 2**16 + 1) if is_sendable(code)} == sendable


@pytest.mark.parametrize(
    ("close", "text"),
    [
        (Close(1000), "1000 (OK)"),
        (Close(1001, "bye"), "1001 (going away) bye"),
        (Close(1005), "1005 (no status received [internal])"),
        (Close(1011, "oops"), "1011 (internal error) oops"),
        (Close(1016), "1016 (unknown)"),
        (Close(2999), "2999 (unknown)"),
        (Close(3000, "a"), "3000 (registered) a"),
        (Close(3999), "3999 (registered)"),
        (Close(4000), "4000 (private use)"),
        (Close(4999), "4999 (private use)"),
        (Close(5000), "5000 (unknown)"),
        (Close(1000, "a\r\nb\x1b[0m"), r"1000 (OK) a\r\nb\x1b[0m"),
    ],
)
def test_close_as_text(close: Close, text: str) -> None:
    assert str(close) == text


@given(st.integers(0, 2**16 - 1), st.text(max_size=40).filter(str.isprintable))
def test_close_as_text_is_that_of_websockets(code: int, reason: str) -> None:
    assert str(Close(code, reason)) == str(websockets.frames.Close(code, reason))


@pytest.mark.parametrize(
    ("code", "reason", "payload"),
    [
        (1000, "", b"\x03\xe8"),
        (CloseCode.GOING_AWAY, "", b"\x03\xe9"),
        (4999, "é", b"\x13\x87\xc3\xa9"),
        (1000, "é" * 61 + "a", b"\x03\xe8" + b"\xc3\xa9" * 61 + b"a"),
    ],
)
def test_close_payload(code: int, reason: str, payload: bytes) -> None:
    assert close_payload(code, reason) == payload
    assert len(payload) <= MAX_CONTROL_PAYLOAD


@pytest.mark.parametrize(
    ("code", "reason", "message"),
    [
        (1005, "", r"close code: expected 1000 to 1003, .*; got 1005"),
        (1004, "", r"got 1004"),
        (-1, "", r"got -1"),
        (70000, "", r"got 70000"),
        (1000, "a\rb", r"close reason: expected no CR, LF or NUL; got 'a\\rb'"),
        (1000, "a\nb", r"no CR, LF or NUL"),
        (1000, "a\0b", r"no CR, LF or NUL"),
        (1000, "é" * 62, r"close reason: expected at most 123 bytes.*; got 124"),
        (1000, "\ud800", r"surrogates not allowed"),
    ],
)
def test_close_payload_of_wrong_values(code: int, reason: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        close_payload(code, reason)


@pytest.mark.parametrize(
    ("code", "reason", "message"),
    [
        ("1000", "", "close code: expected int; got str"),
        (1000, b"bye", "close reason: expected str; got bytes"),
        (1000, None, "close reason: expected str; got NoneType"),
    ],
)
def test_close_payload_of_wrong_types(code: int, reason: str, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        close_payload(code, reason)


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


@pytest.mark.parametrize(
    ("opcode", "payload", "size", "fin", "text"),
    [
        (TEXT, b"hello", 5, True, "TEXT 'hello' [5 bytes]"),
        (TEXT, b"a", 1, True, "TEXT 'a' [1 byte]"),
        (BINARY, b"\x00\xff", 2, True, "BINARY 00 ff [2 bytes]"),
        (TEXT, "é".encode(), 2, False, "TEXT c3 a9 [2 bytes, continued]"),
        (TEXT, b"a\nb", 3, True, "TEXT 61 0a 62 [3 bytes]"),
        (CONT, b"", 0, True, "CONT '' [0 bytes]"),
        (BINARY, b"x" * 60, 60, True, f"BINARY '{'x' * 60}' [60 bytes]"),
        (BINARY, b"x" * 61, 61, True, f"BINARY '{'x' * 60}'... [61 bytes]"),
        # Of a long frame only the beginning is at hand.
        (BINARY, b"x" * 100, 9999, True, f"BINARY '{'x' * 60}'... [9999 bytes]"),
        (CLOSE, b"", 0, True, "CLOSE '' [0 bytes]"),
        (CLOSE, b"\x03", 1, True, "CLOSE 03 [1 byte]"),
        (CLOSE, b"\x03\xe8bye", 5, True, "CLOSE 1000 (OK) bye [5 bytes]"),
        (CLOSE, b"\x03\xe8\xff\n", 4, True, r"CLOSE 1000 (OK) \xff\n [4 bytes]"),
        (PING, b"", 0, True, "PING '' [0 bytes]"),
        (PONG, b"it's", 4, True, 'PONG "it\'s" [4 bytes]'),
    ],
)
def test_describe(opcode: int, payload: bytes, size: int, fin: bool, text: str) -> None:
    assert describe(opcode, payload, size, fin) == text


@given(st.sampled_from(sorted(OPCODE_NAMES)), st.binary(max_size=125), st.booleans())
def test_a_description_is_one_printable_line(
    opcode: int, payload: bytes, fin: bool
) -> None:
    assert describe(opcode, payload, len(payload), fin).isprintable()
