"""The parameters of compression, as they stand in headers (RFC 7692, section 7.1)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Final

from ..errors import NegotiationError
from .base import ExtensionParameter

# Section 7.1.2
_MIN_BITS: Final = 8
MAX_BITS: Final = 15
_BITS: Final = frozenset(map(str, range(_MIN_BITS, MAX_BITS + 1)))


@dataclasses.dataclass(frozen=True, slots=True)
class Parameters:
    """What the two sides have agreed on (section 7.1)."""

    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    server_max_window_bits: int | None = None
    client_max_window_bits: int | bool | None = None  # True: supported, no limit

    def as_list(self) -> list[ExtensionParameter]:
        """Return the parameters as they stand in the header."""
        params: list[ExtensionParameter] = []
        for name in self.__slots__:
            value = getattr(self, name)
            if value is True:
                params.append((name, None))
            elif value is not None and value is not False:
                params.append((name, str(value)))
        return params


def parse(params: Sequence[ExtensionParameter], *, response: bool) -> Parameters:
    """Parse the parameters of an offer or of an answer.

    Raises NegotiationError for what section 7.1 doesn't allow.
    """
    values: dict[str, Any] = {}
    for name, value in params:
        if name in values:
            raise NegotiationError(f"duplicate parameter: {name!r}")
        if name in ("server_no_context_takeover", "client_no_context_takeover"):
            if value is not None:
                raise NegotiationError(
                    f"parameter {name}: expected no value; got {value!r}"
                )
            values[name] = True
        elif name == "client_max_window_bits" and value is None and not response:
            values[name] = True
        elif name in ("server_max_window_bits", "client_max_window_bits"):
            values[name] = _bits(name, value)
        else:
            raise NegotiationError(f"unknown parameter: {name!r}")
    return Parameters(**values)


def _bits(name: str, value: str | None) -> int:
    # Sections 7.1.2.1 and 7.1.2.2: "a decimal integer value without leading
    # zeroes between 8 to 15, inclusive"
    if value not in _BITS:
        raise NegotiationError(f"parameter {name}: expected 8 to 15; got {value!r}")
    return int(value)


def check_bits(name: str, value: object) -> None:
    """Raise ValueError for a window that there isn't."""
    if not isinstance(value, int) or not _MIN_BITS <= value <= MAX_BITS:
        raise ValueError(f"{name}: expected 8 to 15 or None; got {value!r}")


def bits_or_most(bits: int | None) -> int:
    """Return the window bits of a parameter; a missing one sets no limit."""
    return MAX_BITS if bits is None else bits
