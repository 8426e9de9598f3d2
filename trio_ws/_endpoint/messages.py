"""What can be sent, and what is received, as values of Python."""

from __future__ import annotations

import codecs
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping

from .._protocol.opcodes import BINARY, MAX_CONTROL_PAYLOAD, TEXT

Data = str | bytes | bytearray | memoryview


def not_a_message(message: object) -> TypeError:
    return TypeError(
        f"message: expected str, bytes, bytearray, memoryview or, for send(), an "
        f"iterable of them; got {type(message).__name__}"
    )


def encode_message(message: Data, text: bool | None) -> tuple[int, bytes]:
    """Return the opcode and the payload of a message or a fragment.

    A payload that can change is copied. Raises TypeError for what isn't one,
    UnicodeError for text that isn't UTF-8.
    """
    if isinstance(message, str):
        return (BINARY if text is False else TEXT), message.encode()
    if not isinstance(message, (bytes, bytearray, memoryview)):
        raise not_a_message(message)
    payload = bytes(message)
    if text is not True:
        return BINARY, payload
    payload.decode()  # what isn't UTF-8 would cost the connection
    return TEXT, payload


class FragmentedMessage:
    """Checks the fragments of one message: all text, or all binary."""

    __slots__ = ("_text", "_utf8", "begun", "opcode")

    def __init__(self, text: bool | None) -> None:
        self._text = text
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self.opcode = 0
        self.begun = False  # a part is accepted, and not all of it

    def encode(self, fragment: Data) -> bytes:
        """Return the payload of a fragment, or raise what is wrong with it."""
        if self._text is True:
            # Between bytes that are sent as text a character may be cut.
            opcode, payload = TEXT, encode_message(fragment, None)[1]
            self._utf8.decode(payload)
        else:
            opcode, payload = encode_message(fragment, self._text)
        if self.opcode not in (0, opcode):
            raise TypeError("fragments: expected all text or all binary")
        self.opcode = opcode
        return payload

    def finish(self) -> None:
        """Check that no character is left incomplete."""
        self._utf8.decode(b"", final=True)


def control_payload(data: str | bytes) -> bytes:
    if isinstance(data, str):
        data = data.encode()
    elif not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"data: expected str or bytes; got {type(data).__name__}")
    data = bytes(data)  # the length of a memoryview isn't always in bytes
    if len(data) > MAX_CONTROL_PAYLOAD:
        # RFC 6455, section 5.5
        raise ValueError(
            f"data: expected at most {MAX_CONTROL_PAYLOAD} bytes; got {len(data)}"
        )
    return data


def fragments_of(message: object) -> AsyncIterable[Data]:
    """Return the fragments of a message that is sent in fragments.

    Raises TypeError for what isn't a message.
    """
    if isinstance(message, AsyncIterable):
        return message
    # The keys of a mapping are hardly what is meant.
    if isinstance(message, Iterable) and not isinstance(message, Mapping):
        return _one_by_one(message)
    raise not_a_message(message)


async def _one_by_one(fragments: Iterable[Data]) -> AsyncIterator[Data]:
    for fragment in fragments:
        yield fragment


def decode_message(message: str | bytes, decode: bool | None) -> str | bytes:
    """Return a message, or a piece of one, as str or bytes, whichever is wanted."""
    if decode is False and isinstance(message, str):
        return message.encode()
    if decode is True and isinstance(message, bytes):
        return message.decode()
    return message
